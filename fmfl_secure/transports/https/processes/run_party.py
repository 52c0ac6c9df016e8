"""A party's process with its operations port, until it ends or is told to stop.

Told to stop, it ends within three seconds, whatever it waits for. Only a training that was charged
is finished first, since it would be charged again; a second signal ends that, too.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.settings.service import ClientSettings
from fmfl_secure.transports.https.metrics import ClientMetrics
from fmfl_secure.transports.https.processes.operations import OperationsApp, OperationsPort

_LOG = logging.getLogger("fmfl_secure.transports.https.processes.run_party")
_GRACE_S: Final = 1.5  # for what is under way
_LOOK_S: Final = 0.2  # how often a signal is looked for


class PartyProcess(Protocol):
    """A site's or the decryptor's process."""

    @property
    def agent(self) -> Agent:
        """The agent that does its work."""
        ...

    @property
    def metrics(self) -> ClientMetrics:
        """Counters that the process keeps."""
        ...

    @property
    def settings(self) -> ClientSettings:
        """The settings of its `service.toml`."""
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
    leaving: Callable[[], None] = lambda: None,
) -> None:
    """Be a site or the decryptor, until told to stop.

    Args:
        process: The party's.
        kit: Its kit.
        template: Of its live page.
        page: What the page shows.
        started: Called with the operations port, once it is open.
        leaving: Called before this process ends here and now, whatever it waits for.

    Raises:
        FmflError, PrivacyError, AggregationError: The server shuts this party out, or it cannot
            go on.
    """
    app = OperationsApp(
        token=kit.operations_token(),
        template=template,
        page=page,
        ready=lambda: "" if process.agent.transport.connected else "the server does not answer",
        registry=process.metrics.registry,
        certificate=kit.certificate,
    )
    work = _Work(process, leaving)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: work.stop())
    with OperationsPort(app, process.settings.operations) as port:
        started(port.port)
        work.run()


class _Work:
    """The party's work in a thread of its own: whatever that is stuck in, this one can end.

    Nothing is lost by it: what a party has said is on its disk before it leaves, as for a kill.
    """

    def __init__(self, process: PartyProcess, leaving: Callable[[], None]) -> None:
        self._process = process
        self._leaving = leaving
        self._signals = 0
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Told to stop.

        Safe from a signal's handler: that interrupts `run`, whatever lock it holds there, so what
        `run` waits with is not touched.
        """
        self._signals += 1
        self._process.stop()

    def run(self) -> None:
        """Work until it is done or told to stop."""
        thread = threading.Thread(target=self._work, name="party", daemon=True)
        thread.start()
        while thread.is_alive() and not self._signals:
            thread.join(_LOOK_S)
        thread.join(_GRACE_S)
        if thread.is_alive() and self._process.agent.is_training:
            _LOG.info("this round's training is charged, and is finished before this ends")
        while thread.is_alive():
            if not self._process.agent.is_training or self._signals > 1:
                self._leaving()
                _leave()
            thread.join(_GRACE_S)
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            self._process.run()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._failure = error


def _leave() -> None:
    """End here and now: a thread that waits for the network cannot be ended otherwise."""
    _LOG.info("ended while it waited")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
