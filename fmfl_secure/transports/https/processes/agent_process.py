"""Decryptor and custodian as processes: one agent, on one transport to the server."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from fmfl_secure.provisioning.ceremony import require_comparison
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import ClientSettings, load_settings
from fmfl_secure.storage.in_use import in_use
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.https.metrics import ClientMetrics

AnAgent = TypeVar("AnAgent", bound=Agent)


class AgentProcess(Generic[AnAgent]):
    """A party's process, from its kit; whoever extends it makes the agent.

    Args:
        kit: The party's.
        role: Which kit it has to be.

    Raises:
        FmflError: The kit cannot be used.
    """

    agent: AnAgent

    def __init__(self, kit: Kit, role: str) -> None:
        kit.require(role)
        require_comparison(kit.folder)
        self._kit, self._role = kit, role
        self.stopping = threading.Event()
        self.settings = load_settings(kit.service_file, ClientSettings)
        self.config = load_federation(kit.federation_file)
        self.metrics = ClientMetrics()
        self._transport = HttpsTransport(
            self.settings.server, kit.tls, metrics=self.metrics, stopping=self.stopping
        )

    def run(self) -> None:
        """Work until told to stop.

        Raises:
            InUse: Another process has this kit.
            FmflError, PrivacyError, AggregationError: It cannot go on.
        """
        with in_use(self._kit.folder, self._role), self.agent.transport:
            self.agent.run()

    def stop(self) -> None:
        """Stop after what is under way. Safe from a signal's handler."""
        self.stopping.set()
