"""A party's process with its operations port, until it ends or is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from typing import Protocol

from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.settings.service import ClientSettings
from fmfl_secure.transports.https.metrics import ClientMetrics
from fmfl_secure.transports.https.processes.operations import OperationsApp, OperationsPort


class PartyProcess(Protocol):
    """A site's or the decryptor's process."""

    @property
    def agent(self) -> Agent:
        """What does its work."""
        ...

    @property
    def metrics(self) -> ClientMetrics:
        """What it counts."""
        ...

    @property
    def settings(self) -> ClientSettings:
        """Its `service.toml`."""
        ...

    def run(self) -> None:
        """Work until told to stop."""
        ...

    def stop(self) -> None:
        """Stop after what is under way."""
        ...


def run_party(
    process: PartyProcess,
    kit: Kit,
    *,
    template: str,
    page: Callable[[], Mapping[str, object]],
    started: Callable[[int], None],
) -> None:
    """Be a site or the decryptor, until told to stop.

    Args:
        process: The party's.
        kit: Its kit.
        template: Of its live page.
        page: What the page shows.
        started: Called with the operations port, once it is open.

    Raises:
        FmflError: The server shuts this party out.
    """
    app = OperationsApp(
        token=kit.operations_token(),
        template=template,
        page=page,
        ready=lambda: "" if process.agent.transport.connected else "the server does not answer",
        registry=process.metrics.registry,
        certificate=kit.certificate,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: process.stop())
    with OperationsPort(app, process.settings.operations) as port:
        started(port.port)
        process.run()
