"""`fmfl-secure serve`: coordinator and aggregator as one process, and the only one that listens.

`fmfl-secure serve` (`cli.service`) makes a `Service` from the server's kit and calls `serve`: the
door opens, uvicorn listens, the run is driven in a thread of its own, and certificates that were
renewed are taken up meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI

from fmfl_secure.errors import RunStopped
from fmfl_secure.parties.workspace import Members
from fmfl_secure.provisioning.certificates import SERVER
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.run.observer import Observer
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.runtime.waiting import Stopping
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import ServerSettings, load_settings
from fmfl_secure.transports.https.access import Access
from fmfl_secure.transports.https.app import build_app
from fmfl_secure.transports.https.connections import Door, room_for
from fmfl_secure.transports.https.guard import Guard
from fmfl_secure.transports.https.listener import Listener, https_config
from fmfl_secure.transports.https.memory import spare_memory
from fmfl_secure.transports.https.metrics import ServerMetrics
from fmfl_secure.transports.https.tls import Renewal, server_context

_LOG = logging.getLogger("fmfl_secure.transports.https.server")
_RENEWAL_S = 2.0  # how often a renewed certificate is looked for
_THREADS = 8


class Service:
    """The server of one run, from its kit.

    Args:
        kit: The server's kit.
        output: The run's folder; a run that is there goes on.
        observer: Told of the run's progress.

    Raises:
        FmflError, PrivacyError, AggregationError: Kit, settings or run cannot be used.
    """

    def __init__(self, kit: Kit, output: Path, *, observer: Observer | None = None) -> None:
        kit.require(SERVER)
        self._kit = kit
        self.settings = load_settings(kit.service_file, ServerSettings)
        self._side = side = RunServer(
            kit.folder,
            output,
            config=load_federation(kit.federation_file),
            settings=self.settings,
            keep_open=True,
            observer=observer,
        )
        self.config, self.coordinator = side.config, side.coordinator
        self.board, self.store, self.inbox, self.run = (
            side.board,
            side.store,
            side.inbox,
            side.run,
        )
        self.metrics = ServerMetrics()
        self._failure: BaseException | None = None
        self.app: FastAPI = build_app(
            inbox=self.inbox,
            board=self.board,
            membership=kit.membership.lists,
            heads=side.heads,
            take_stop=side.take_stop,
            metrics=self.metrics,
        )
        access = Access(
            self.config.federation.name,
            members=self.members,
            authority=(kit.tls / "ca.pem").read_bytes(),
            revocations=kit.revocations,
        )
        self.guarded = Guard(
            self.app,
            access=access,
            limits=self.settings.limits,
            heard=self.board.heard,
            metrics=self.metrics,
        )

    @property
    def parameters(self) -> int:
        """Values of an update, in the first round."""
        return self._side.parameters

    def members(self) -> Members:
        """All parties, as the membership list in force has them."""
        return self._side.members()

    @property
    def stopped(self) -> str:
        """By whom the run was stopped and why, for people; empty where nobody has."""
        return self._side.stopped

    def not_ready(self) -> str:
        """Why the server cannot do its work; empty if it can."""
        if self.board.closed:
            return "the server is going down"
        return "" if self.store.healthy() else "the store cannot be written to"

    def serve(self, *, started: Callable[[int], None] = lambda _: None) -> None:
        """Serve until the run has ended and its sites closed it, or until a signal.

        Args:
            started: Called with the port, once it is open.

        Raises:
            InUse: Another process carries the run, or has this kit.
            FmflError, PrivacyError, AggregationError: The run cannot go on.
        """
        spare_memory()
        try:
            with self._side.alone():
                asyncio.run(self._serve(started))
        finally:
            self._side.close()
        if self._failure is not None:
            raise self._failure

    def require_finished(self) -> None:
        """Require that the run has ended with its last round.

        Raises:
            Stopping: It has not ended; it goes on when its server starts again.
            RunStopped: It ended early.
        """
        state = self.coordinator.store.state
        if not state.ended:
            raise Stopping("the server was told to stop, and the run has not ended")
        if state.reason:
            raise RunStopped(f"the run has ended early: {state.reason}")

    async def _serve(self, started: Callable[[int], None]) -> None:
        # Requests take turns at one store: more threads would only hold more memory.
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        context = server_context(self._kit.tls)
        listen = self.settings.listen
        limits = self.settings.limits
        door = Door(listen.address, listen.port, room_for(limits), handshake_s=limits.header_s)
        config = https_config(self.guarded, door=door, context=context, limits=limits)
        listener = Listener(config, self._side.stop, door)
        serving = asyncio.create_task(listener.serve())
        while not listener.started and not serving.done():
            await asyncio.sleep(0.01)
        if serving.done():
            await serving
            return
        _LOG.info("listening on port %s", listener.port)
        started(listener.port)
        thread = threading.Thread(target=self._carry, args=(listener,), name="run")
        thread.start()
        renewal = asyncio.create_task(_renew(Renewal(context, self._kit.tls)))
        await serving
        renewal.cancel()
        await asyncio.to_thread(thread.join)

    def _carry(self, listener: Listener) -> None:
        try:
            self._side.drive()
        except Stopping:
            _LOG.info("stopped; the run goes on when the server starts again")
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._failure = error
        finally:
            listener.stop()


async def _renew(renewal: Renewal) -> None:
    while True:
        await asyncio.sleep(_RENEWAL_S)
        if renewal.check():
            _LOG.info("the renewed certificate is in use")
