"""`fmfl-secure decryptor`: its process, from its kit. Loads no machine-learning library."""

from __future__ import annotations

import threading

from aggregation import Decryptor, Identity, SqliteJournal
from fmfl_secure.config import load_federation
from fmfl_secure.service.client import Line
from fmfl_secure.service.decryptor_agent import DecryptorAgent
from fmfl_secure.service.kit import Kit
from fmfl_secure.service.metrics import ClientMetrics
from fmfl_secure.service.settings import ClientSettings, load_settings
from fmfl_secure.workspace import DECRYPTOR


class DecryptorProcess:
    """The decryptor, from its kit.

    Args:
        kit: The decryptor's.
        once: End after one run.

    Raises:
        FmflError, AggregationError: The kit cannot be used.
    """

    def __init__(self, kit: Kit, *, once: bool = False) -> None:
        self.stopping = threading.Event()
        self.settings = load_settings(kit.service_file, ClientSettings)
        self.config = load_federation(kit.federation_file)
        members = kit.membership.members()
        self.metrics = ClientMetrics()
        line = Line(self.settings.server, kit.tls, metrics=self.metrics, stopping=self.stopping)
        decryptor = Decryptor(
            Identity.load(kit.folder / "identity.pem", DECRYPTOR),
            SqliteJournal(kit.folder / "journal.sqlite"),
            coordinator=members.coordinator,
            pinned=members.pinned,
            min_cohort=self.config.federation.min_sites,
        )
        self.agent = DecryptorAgent(decryptor, line, stopping=self.stopping, once=once)

    def run(self) -> None:
        """Work until told to stop."""
        with self.agent.line:
            self.agent.run()

    def stop(self) -> None:
        """Stop after what is under way. Safe from a signal's handler."""
        self.stopping.set()
