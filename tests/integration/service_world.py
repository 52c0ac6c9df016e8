"""A run with its server in a thread and agents in others, without HTTP between.

Who counts as silent is set by the test, so that nothing hangs on time.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from support import settings

from aggregation import Decryptor, Identity, MemoryJournal
from fmfl_secure.errors import Problem, Rejected, ServiceError
from fmfl_secure.parties.coordinator import Coordinator, start_run
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.workspace import Members
from fmfl_secure.planning.task import build_task, start_of
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SITE
from fmfl_secure.report.results import write_results
from fmfl_secure.run.observer import Silent
from fmfl_secure.runtime.agents.custodian import CustodianAgent
from fmfl_secure.runtime.agents.decryptor import DecryptorAgent
from fmfl_secure.runtime.agents.simulated import SimulatedSite
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.runtime.inbox import Inbox, SignedStatement
from fmfl_secure.runtime.run_driver import RunDriver
from fmfl_secure.runtime.task_board import TaskBoard
from fmfl_secure.runtime.transport import DocumentRef, Work
from fmfl_secure.runtime.waiting import PartyWaiter, Stopping
from fmfl_secure.settings.federation import FederationConfig, convert_config
from fmfl_secure.settings.service import Time
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.message_store import MessageKey, open_store

NAMES = ("site-1", "site-2", "site-3", "site-4")


class Died(ServiceError):
    """A process is no more."""


class DirectTransport:
    """What `Line` does, by calls. `broken` is asked before each, and may raise."""

    def __init__(self, world: World, name: str, role: str) -> None:
        self.world, self.name, self.role = world, name, role
        self.broken: Callable[[str], None] = lambda _: None
        self.connected = True

    def _call(self, what: str, call: Callable[[], object]):
        self.broken(what)
        self.world.board.heard(self.name)
        try:
            return call()
        except Problem as problem:
            raise Rejected(
                problem.status, problem.reason, str(problem), received=problem.received
            ) from problem

    def work(self, after: int) -> Work:
        board = self.world.board
        number, task = self._call("work", lambda: asyncio.run(board.wait(self.name, after, 0.2)))
        documents = {n: DocumentRef(d.sha256, d.size) for n, d in task.documents.items()}
        return Work(
            number, task.step, task.run, task.round, task.attempt, documents,
            list(task.sizes), 0, self.world.inbox.part_bytes,
        )  # fmt: skip

    def fetch(self, document: DocumentRef) -> bytes:
        found = self.world.board.document(self.name, document.sha256)
        if found is None:
            raise Rejected(404, "not-found", "")
        return found.slice(0, found.size)

    def send(self, work: Work, kind: str, message: bytes) -> None:
        key = MessageKey(work.run, work.round, work.attempt, self.name, kind)
        digest, size = hashlib.sha256(message).hexdigest(), len(message)
        for start in range(0, size, work.part_bytes):
            part = message[start : start + work.part_bytes]
            what = kind if not start else f"more {kind}"
            self._call(
                what,
                lambda start=start, part=part: self.world.inbox.part(
                    self.role, key, sha256=digest, size=size, offset=start, data=part
                ),
            )

    def join(self, run: str, visibility) -> None:
        self._call("join", lambda: self.world.inbox.join(self.name, run, visibility))

    def refuse(self, run: str, code: str) -> None:
        self._call("refuse", lambda: self.world.inbox.refuse(self.name, run, code))

    def fail(self, work: Work, code: str) -> None:
        place = (work.run, work.round, work.attempt)
        self._call("fail", lambda: self.world.inbox.fail(self.name, *place, code))

    def state(self, run: str, statement, signature: str, *, final: bool) -> None:
        stated = SignedStatement(statement, signature)
        self._call("state", lambda: self.world.inbox.state(self.name, run, stated, final=final))

    def heads(self, *, known: bool, since: str):
        tell = self.world.heads.tell
        return self._call("heads", lambda: tell(self.name, known=known, since=since))

    def bring_heads(self, heads) -> None:
        self._call("bring", lambda: self.world.heads.bring(heads))

    def give_head(self, head: str) -> None:
        self._call("head", lambda: self.world.heads.give(self.name, head))

    def give_stop(self, statement: bytes) -> None:
        self._call("stop", lambda: self.world.server.take_stop(statement))

    def heartbeat(self) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def close(self) -> None:
        pass


class World:
    """A run with its server in a thread, and agents in others."""

    def __init__(
        self,
        folder: Path,
        model: Path,
        *,
        rounds: int = 1,
        custodians: tuple[str, ...] = (),
        **limits: float,
    ) -> None:
        import tomllib

        text = settings(
            model, sites=4, rounds=rounds, evaluation=False,
            aggregation=f"custodians = {list(custodians)}",
        )  # fmt: skip
        self.folder = folder
        self.config = convert_config(
            tomllib.loads(text), FederationConfig,
            source="test",
        )  # fmt: skip
        self.identities = {
            n: Identity.generate(n)
            for n in ("coordinator", "aggregator", "decryptor", *custodians, *NAMES)
        }
        public = {n: i.public for n, i in self.identities.items()}
        sites = {n: public[n] for n in NAMES}
        roles = ("coordinator", "aggregator", "decryptor")
        self.members = Members(
            **{n: public[n] for n in roles},
            sites=sites,
            custodians={n: public[n] for n in custodians},
        )
        for name in custodians:
            (folder / name).mkdir()
            self.identities[name].save(folder / name / "identity.pem")
            (folder / name / "members.json").write_bytes(self.members.encode())
            self.agree(name, min_sites=3)
        task = build_task(self.config, relative_to=folder)
        learner = task.build_model(seed=1)
        start = start_of(self.config, task, learner)
        store = start_run(
            folder / "run",
            config=self.config,
            members=self.members,
            start=start,
            origin=folder,
        )
        self.coordinator = Coordinator(
            self.identities["coordinator"],
            members=self.members,
            config=self.config,
            start=start,
            store=store,
        )
        self.board = TaskBoard()
        self.dead: set[str] = set()
        self.board.silent_s = lambda party: 1e9 if party in self.dead else 0.0  # type: ignore[method-assign]
        self.inbox = Inbox(
            open_store("sqlite:service.sqlite", relative_to=folder), part_bytes=16 * 1024
        )
        self.heads = AnchorRegistry(
            AnchorStore(folder / "anchors.sqlite"), self.inbox.store, lambda: self.members
        )
        self.run = RunDriver(
            self.coordinator,
            identity=self.identities["coordinator"],
            aggregator=self.identities["aggregator"],
            members=lambda: self.members,
            membership=lambda: "",
            config=self.config,
            output=folder / "run",
            inbox=self.inbox,
            board=self.board,
            waiting=PartyWaiter(
                self.inbox, self.board, Time(**{"gather_s": 0.2, "end_s": 5.0} | limits)
            ),
            observer=Silent(),
            save_adapter=lambda _, __: None,
            write_results=write_results,
        )
        self.run._write = lambda: None  # type: ignore[method-assign] # reports: another test's
        self.sites = {
            n: SimulatedSite(
                self.identities[n],
                members=self.members,
                journal=MemoryJournal(),
                config=self.config,
            )
            for n in NAMES
        }
        self.transports: dict[str, DirectTransport] = {}
        self.threads: list[threading.Thread] = []
        self.stopping = threading.Event()
        self.journal = MemoryJournal()
        self.failed: Exception | None = None

    def start_site(self, name: str) -> DirectTransport:
        """Start a site's process: its secrets are new, its journal and updates are its own."""
        self.dead.discard(name)
        self.transports[name] = transport = DirectTransport(self, name, SITE)
        agent = SiteAgent(
            lambda _: self.sites[name],
            members=lambda: self.members,
            transport=transport,  # type: ignore[arg-type]
            open_transport=lambda: transport,  # type: ignore[arg-type, return-value]
            stopping=self.stopping,
            once=True,
        )
        self._start(name, agent.run)
        return transport

    def start_decryptor(self) -> DirectTransport:
        self.dead.discard("decryptor")
        self.transports["decryptor"] = transport = DirectTransport(self, "decryptor", DECRYPTOR)
        decryptor = Decryptor(
            self.identities["decryptor"],
            self.journal,
            coordinator=self.members.coordinator,
            pinned=self.members.pinned,
        )
        agent = DecryptorAgent(decryptor, transport, stopping=self.stopping, once=True)  # type: ignore[method-assign]
        self._start("decryptor", agent.run)
        return transport

    def agree(self, name: str, **policy: int) -> None:
        """Write what a custodian agrees to."""
        transports = [f"{key} = {value}" for key, value in policy.items()]
        (self.folder / name / "custodian.toml").write_text("\n".join(["[policy]", *transports]))

    def start_custodian(self, name: str) -> DirectTransport:
        """Start a custodian's process: its keys are new, its journal is its own."""
        self.dead.discard(name)
        self.transports[name] = transport = DirectTransport(self, name, CUSTODIAN)
        custodian = Custodian(self.folder / name, name, self.config)
        agent = CustodianAgent(custodian, transport, stopping=self.stopping, once=True)  # type: ignore[arg-type]
        self._start(name, agent.run)
        return transport

    def _start(self, name: str, run: Callable[[], None]) -> None:
        def body() -> None:
            try:
                run()
            except Died:
                pass
            except Exception as error:  # noqa: BLE001 - raised again by `finish`
                # Else the server would wait for this party for as long as its limits say.
                self.failed = error
                self.run.stop()

        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def dies(self, name: str, at: str, *, then: Callable[[], None] = lambda: None) -> None:
        """Have a site's process die when it is about to do something."""

        def broken(what: str) -> None:
            if what == at:
                self.dead.add(name)
                self.transports[name].broken = _raise
                then()
                with self.inbox.changed:
                    self.inbox.changed.notify_all()
                raise Died(name)

        self.transports[name].broken = broken

    def finish(self):
        try:
            with suppress(Stopping):
                self.run.drive()
        finally:
            self.stopping.set()
            for thread in self.threads:
                thread.join(timeout=10)
        if self.failed is not None:
            raise self.failed
        return self.coordinator.rounds

    def assert_sum(self, record) -> None:
        """What was released is the sum of its cohort's updates, and its sites verified it."""
        expected = np.sum(
            [self.sites[n].updates[record.round].astype(np.int64) for n in record.cohort], axis=0
        )
        verified = [self.sites[n].verified.get(record.round) for n in record.cohort]
        found = [total for total in verified if total is not None]
        assert found
        assert all(np.array_equal(total, expected) for total in found)


def _raise(_: str) -> None:
    raise Died("no more")


def start_all(world: World, *names: str) -> None:
    world.start_decryptor()
    for custodian in world.members.custodians:
        world.start_custodian(custodian)
    for name in names or NAMES:
        world.start_site(name)
