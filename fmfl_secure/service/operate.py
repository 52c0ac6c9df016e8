"""Each party's process with its operations port, until it ends or is told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from fmfl_secure.service.kit import Kit
from fmfl_secure.service.operations import OperationsApp, OperationsPort
from fmfl_secure.service.parties import DecryptorProcess, SiteProcess
from fmfl_secure.service.server import Service
from fmfl_secure.service.views import decryptor_page, server_page, site_page


def run_server(
    kit: Kit, output: Path, *, started: Callable[[int, int], None] = lambda _, __: None
) -> None:
    """Serve a run; a run that is in `output` goes on.

    Args:
        kit: The server's.
        output: The run's folder.
        started: Called with both ports, once they are open.

    Raises:
        FmflError, PrivacyError, AggregationError: Kit or run cannot be used, or go on.
    """
    service = Service(kit, output)
    app = OperationsApp(
        token=kit.operations_token(),
        template="server.html",
        page=lambda: server_page(service),
        ready=service.not_ready,
        registry=service.metrics.registry,
    )
    with OperationsPort(app, service.settings.operations) as port:
        service.serve(started=lambda https: started(https, port.port))


def run_decryptor(kit: Kit, *, once: bool, started: Callable[[int], None] = lambda _: None) -> None:
    """Be the decryptor; see `run_server`."""
    process = DecryptorProcess(kit, once=once)
    app = OperationsApp(
        token=kit.operations_token(),
        template="decryptor.html",
        page=lambda: decryptor_page(process),
        ready=lambda: "" if process.agent.line.connected else "the server does not answer",
        registry=process.metrics.registry,
    )
    _stop_on_signals(process.stop)
    with OperationsPort(app, process.settings.operations) as port:
        started(port.port)
        process.run()


def run_site(kit: Kit, *, once: bool, started: Callable[[int], None] = lambda _: None) -> None:
    """Be a site; see `run_server`."""
    process = SiteProcess(kit, once=once)
    app = OperationsApp(
        token=kit.operations_token(),
        template="site.html",
        page=lambda: site_page(process),
        ready=lambda: "" if process.agent.line.connected else "the server does not answer",
        registry=process.metrics.registry,
    )
    _stop_on_signals(process.stop)
    with OperationsPort(app, process.settings.operations) as port:
        started(port.port)
        process.run()


def _stop_on_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
