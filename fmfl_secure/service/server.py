"""`fmfl-secure serve`: coordinator and aggregator as one process, and the only one that listens."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI

from aggregation import Identity
from fmfl_secure.anchor_store import AnchorStore
from fmfl_secure.config import FederationConfig, load_federation
from fmfl_secure.coordinator import Coordinator, resume_run, start_run
from fmfl_secure.errors import RunError
from fmfl_secure.gate import check_admission
from fmfl_secure.membership import digest_of
from fmfl_secure.models import Layout
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.planning import build_task
from fmfl_secure.run_store import RunFacts, RunStore
from fmfl_secure.service.access import Access
from fmfl_secure.service.api import build_app
from fmfl_secure.service.board import Board
from fmfl_secure.service.guard import Guard
from fmfl_secure.service.heads import KeptHeads
from fmfl_secure.service.intake import Intake
from fmfl_secure.service.kit import Kit
from fmfl_secure.service.listener import Listener, https_config
from fmfl_secure.service.metrics import ServerMetrics
from fmfl_secure.service.run import ServerRun
from fmfl_secure.service.settings import ServerSettings, load_settings
from fmfl_secure.service.store import heads_location, open_store
from fmfl_secure.service.tls import Renewal, server_context
from fmfl_secure.service.waiting import Stopping
from fmfl_secure.workspace import AGGREGATOR, COORDINATOR, DECRYPTOR, Members

_LOG = logging.getLogger("fmfl_secure.service.server")
_RENEWAL_S = 2.0  # how often a renewed certificate is looked for
_THREADS = 8


class Service:
    """The server of one run, from its kit.

    Args:
        kit: The server's kit.
        output: The run's folder; a run that is there goes on.

    Raises:
        FmflError, PrivacyError, AggregationError: Kit, settings or run cannot be used.
    """

    def __init__(self, kit: Kit, output: Path) -> None:
        self._kit = kit
        self.config: FederationConfig = load_federation(kit.federation_file)
        self.settings = load_settings(kit.service_file, ServerSettings)
        self._task = build_task(self.config, relative_to=kit.folder)
        self._model = self._task.build_model(seed=self.config.federation.seed)
        check_admission(self.config, self._task, self._model)
        store, self.ended = self._open_run(output)
        self.coordinator = Coordinator(
            self._identity(COORDINATOR),
            members=self.members(),
            config=self.config,
            task=self._task,
            model=self._model,
            store=store,
            key_agreement="x25519-mlkem768",
        )
        self.metrics = ServerMetrics()
        self.board = Board()
        self.store = open_store(self.settings.store, relative_to=kit.folder)
        limits = self.settings.limits
        self.intake = Intake(self.store, part_bytes=limits.part_bytes)
        self.run = ServerRun(
            self.coordinator,
            identity=self._identity(COORDINATOR),
            aggregator=self._identity(AGGREGATOR),
            members=self.members,
            membership=lambda: digest_of(kit.membership.last()),
            config=self.config,
            origin=kit.folder,
            task=self._task,
            model=self._model,
            output=output,
            intake=self.intake,
            board=self.board,
            limits=self.settings.time,
        )
        self._failure: BaseException | None = None
        self.app: FastAPI = build_app(
            intake=self.intake,
            board=self.board,
            membership=kit.membership.lists,
            heads=KeptHeads(self._anchors(), self.store, self.members),
            metrics=self.metrics,
        )
        access = Access(
            self.config.federation.name,
            members=self.members,
            authority=(kit.tls / "ca.pem").read_bytes(),
            revocations=kit.revocations,
        )
        self.guarded = Guard(
            self.app, access=access, limits=limits, heard=self.board.heard, metrics=self.metrics
        )

    @property
    def parameters(self) -> int:
        """Length of an update."""
        return Layout.of(self._model).size

    def members(self) -> Members:
        """All parties, as the membership list in force has them."""
        return self._kit.membership.members()

    def _anchors(self) -> AnchorStore:
        file = self._kit.folder / COORDINATOR / "anchors.sqlite"
        return AnchorStore(heads_location(self.settings.store, otherwise=file))

    def _identity(self, role: str) -> Identity:
        return Identity.load(self._kit.folder / role / "identity.pem", role)

    def _open_run(self, output: Path) -> tuple[RunStore, bool]:
        """The run's state, and whether the run has ended already."""
        if not (output / "state.sqlite").exists():
            facts = self._public_facts()
            origin = self._kit.folder
            return start_run(output, config=self.config, public=facts, origin=origin), False
        store = RunStore(output)
        if store.fact("status") in {b"finished", b"stopped"}:
            return store, True
        return resume_run(output, config=self.config), False

    def _public_facts(self) -> RunFacts:
        layout = self._task.begin_round(self._model, 1)
        base, members = self._task.base, self.members()
        absent = [e.name for e in self.config.sites if e.name not in members.sites]
        absent += [n for n in self.config.aggregation.custodians if n not in members.custodians]
        if absent:
            raise RunError(
                f"{', '.join(absent)} is not a member of the federation",
                hint="Provision it, or take it out of federation.toml.",
            )
        return RunFacts(
            base_model=base.name,
            base_model_digest=base.digest,
            layout_digest=layout.digest,
            parameters=layout.size,
            sites={entry.name: members.sites[entry.name].text for entry in self.config.sites},
            roles={
                COORDINATOR: members.coordinator.fingerprint,
                AGGREGATOR: members.aggregator.fingerprint,
                DECRYPTOR: members.decryptor.fingerprint,
                **{
                    f"custodian {name}": members.custodians[name].fingerprint
                    for name in self.config.aggregation.custodians
                },
            },
            initial_adapter=adapter_bytes(self._model),
        )

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
            FmflError, PrivacyError, AggregationError: The run cannot go on.
        """
        try:
            asyncio.run(self._serve(started))
        finally:
            self.store.close()
        if self._failure is not None:
            raise self._failure

    async def _serve(self, started: Callable[[int], None]) -> None:
        # Requests take turns at one store: more threads would only hold more memory.
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        context = server_context(self._kit.tls)
        listen = self.settings.listen
        config = https_config(
            self.guarded,
            address=listen.address,
            port=listen.port,
            context=context,
            limits=self.settings.limits,
        )
        listener = Listener(config, self._stopping)
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

    def _stopping(self) -> None:
        self.run.stop()
        self.board.close()

    def _carry(self, listener: Listener) -> None:
        try:
            if self.ended:
                self.run.close()
            else:
                self.run.carry()
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
