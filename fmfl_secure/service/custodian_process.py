"""`fmfl-secure custodian`: its process, from its kit. Loads no machine-learning library."""

from __future__ import annotations

import threading

from aggregation import Identity
from fmfl_secure.config import load_federation
from fmfl_secure.custodian import Custodian
from fmfl_secure.errors import ConfigError
from fmfl_secure.service.client import Line
from fmfl_secure.service.custodian_agent import CustodianAgent
from fmfl_secure.service.kit import Kit
from fmfl_secure.service.metrics import ClientMetrics
from fmfl_secure.service.settings import ClientSettings, load_settings


class CustodianProcess:
    """A custodian, from its kit.

    Args:
        kit: The custodian's.
        once: End after one run.

    Raises:
        FmflError, AggregationError: The kit cannot be used.
    """

    def __init__(self, kit: Kit, *, once: bool = False) -> None:
        self.stopping = threading.Event()
        self.settings = load_settings(kit.service_file, ClientSettings)
        self.config = load_federation(kit.federation_file)
        self.name = Identity.load(kit.folder / "identity.pem").public.name
        if self.name not in self.config.aggregation.custodians:
            raise ConfigError(f"{self.name} is not among the custodians of {kit.federation_file}")
        self.metrics = ClientMetrics()
        line = Line(self.settings.server, kit.tls, metrics=self.metrics, stopping=self.stopping)
        custodian = Custodian(kit.folder, self.name)
        self.agent = CustodianAgent(custodian, line, stopping=self.stopping, once=once)

    def run(self) -> None:
        """Work until told to stop."""
        with self.agent.line:
            self.agent.run()

    def stop(self) -> None:
        """Stop after what is under way. Safe from a signal's handler."""
        self.stopping.set()
