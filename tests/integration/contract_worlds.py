"""One federation of real parties over each transport: what the contract's scenarios are told to.

A scenario says who dies when it is about to send what, and when it comes back; a world says how
that comes about: in the embedded engine a party takes no more turns, over HTTPS its thread ends,
and a Flower node goes offline. Nothing hangs on time: who counts as silent, the world says.
"""

from __future__ import annotations

import shutil
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from service_world import DirectTransport
from support import Quiet, open_own_site

from aggregation import PublicIdentity, SqliteJournal, said_of
from fmfl_secure.errors import RunError
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.decisions import Decisions
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import DECRYPTOR, Workspace
from fmfl_secure.planning.task import build_task, start_of
from fmfl_secure.provisioning.certificates import CUSTODIAN, SITE
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.runtime.agents.custodian import CustodianAgent
from fmfl_secure.runtime.agents.decryptor import DecryptorAgent
from fmfl_secure.runtime.agents.site import SiteAgent
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.runtime.waiting import Stopping
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.service import ServerSettings, Time
from fmfl_secure.storage.message_store import open_store
from fmfl_secure.transports.flower.frames import Order, open_frame
from fmfl_secure.transports.flower.parties import Parties
from fmfl_secure.transports.flower.server import FlowerServer
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

Back = Literal["never", "at once", "next round"]


class Died(BaseException):
    """A party's process is no more."""


class Killed(BaseException):
    """All processes are no more."""


@dataclass
class Death:
    """A party dies when it is about to send, or has just sent, a message of a round."""

    kind: str
    round: int
    back: Back
    sent: bool
    done: bool = False


class Watcher(Quiet):
    """An observer that brings back who comes back, and kills who is to be killed."""

    def __init__(self, world: ContractWorld) -> None:
        super().__init__()
        self.world = world

    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        super().round_finished(record, epsilon, upload_bytes)
        self.world.between_rounds(record.round)


class ContractWorld(ABC):
    """A run of a federation's folder.

    Args:
        folder: With `federation.toml`; a run that is there goes on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_federation(folder / "federation.toml")
        self.workspace = Workspace(folder)
        self.members = MembershipFolder(folder).members()
        self.sites = tuple(entry.name for entry in self.config.sites)
        self.parties = (DECRYPTOR, *self.config.aggregation.custodians, *self.sites)
        self.deaths: dict[str, Death] = {}
        self.killed_after = 0
        self.observer = Watcher(self)

    @property
    def resume(self) -> bool:
        return (self.folder / "run/state.sqlite").exists()

    def dies(
        self, name: str, kind: str, *, number: int = 1, back: Back = "never", sent: bool = False
    ) -> None:
        self.deaths[name] = Death(kind, number, back, sent)

    def killed(self, *, after: int) -> None:
        """All processes end once a round is over."""
        self.killed_after = after

    def between_rounds(self, number: int) -> None:
        for name in self.back_after(number):
            self.start(name)
        if number == self.killed_after:
            raise Killed

    def back_after(self, number: int) -> list[str]:
        """Who died in a round and comes back now that it is over."""
        return [
            name
            for name, death in self.deaths.items()
            if death.done and death.back == "next round" and death.round == number
        ]

    def watch(self, name: str, agent: Agent) -> Agent:
        """Have a party die when it is to."""
        send = agent.transport.send

        def sending(work, kind: str, message: bytes) -> None:
            death = self.deaths.get(name)
            if death is None or death.done or (kind, work.round) != (death.kind, death.round):
                send(work, kind, message)
                return
            death.done = True
            if death.sent:
                send(work, kind, message)
                self.died_after_sending(name)
            else:
                raise Died(name)

        agent.transport.send = sending  # type: ignore[method-assign]
        return agent

    def died_after_sending(self, name: str) -> None:
        """A party's message is on its way, and the party is no more."""
        raise Died(name)

    def said(self, name: str, run: str, number: int):
        """What a site's journal holds of a round: its verdict."""
        own: PublicIdentity = self.members.sites[name]
        journal = SqliteJournal(self.workspace.site(name) / "journal.sqlite")
        key = f"{own.fingerprint}/{self.config.federation.name}/{run}/{number}"
        return said_of(journal, own, key)

    @abstractmethod
    def start(self, name: str) -> None:
        """Start a party's process, with its folder and no memory."""

    @abstractmethod
    def finish(self) -> list[RoundRecord]:
        """Run to the end; the records of all rounds."""

    @property
    @abstractmethod
    def reason(self) -> str:
        """Why the run stopped."""


class LocalWorld(ContractWorld):
    """The embedded engine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.engine = LocalEngine(
            folder / "federation.toml",
            folder / "run",
            resume=self.resume,
            observer=self.observer,
        )
        for name in self.parties:
            self._watch(name, self.engine._agents[name])
        self.dead: set[str] = set()
        waiting = self.engine._server.run.waiting
        waiting.is_present = lambda party: party not in self.dead  # type: ignore[method-assign]

    def start(self, name: str) -> None:
        self.dead.discard(name)
        if name == DECRYPTOR:
            agent: Agent = self.engine._decryptor()
        elif name in self.sites:
            agent = self.engine._site(next(e for e in self.config.sites if e.name == name))
        else:
            agent = self.engine._custodian(name)
        self.engine._agents[name] = self._watch(name, agent)

    def _watch(self, name: str, agent: Agent) -> Agent:
        step = self.watch(name, agent).step

        def stepping() -> bool:
            try:
                return step()
            except Died:
                agent.step = lambda: False  # type: ignore[method-assign]
                self.dead.add(name)
                if self.deaths[name].back == "at once":
                    self.start(name)
                return True

        agent.step = stepping  # type: ignore[method-assign]
        return agent

    def finish(self) -> list[RoundRecord]:
        with suppress(RunError):  # it is in the state
            self.engine.run()
        return self.engine._server.coordinator.rounds

    @property
    def reason(self) -> str:
        return self.engine.store.state.reason or ""


class _ServedWorld(ContractWorld):
    """A server as a deployment has it, with a durable store and the clock's waiter."""

    def __init__(self, folder: Path, adapter: bytes = b"") -> None:
        super().__init__(folder)
        task = build_task(self.config, relative_to=folder)
        model = task.build_model(seed=self.config.federation.seed)
        self.server = RunServer(
            folder,
            folder / "run",
            config=self.config,
            settings=ServerSettings(time=Time(gather_s=60.0, end_s=5.0)),
            start=start_of(self.config, task, model, adapter=adapter),
            messages=open_store("sqlite:service.sqlite", relative_to=folder),
            observer=self.observer,
        )
        self.board, self.inbox, self.run = self.server.board, self.server.inbox, self.server.run
        self.heads = self.server.heads
        self.run._write = lambda: None  # type: ignore[method-assign] # reports: another test's

    @property
    def reason(self) -> str:
        return self.server.coordinator.store.state.reason or ""


class HttpsWorld(_ServedWorld):
    """As over HTTPS, by calls: the server in this thread, each party in one of its own."""

    def __init__(self, folder: Path, adapter: bytes = b"") -> None:
        super().__init__(folder, adapter)
        self.dead: set[str] = set()
        self.over = 0  # the latest round that is
        self.dying = threading.Lock()
        self.board.silent_s = lambda party: 1e9 if party in self.dead else 0.0  # type: ignore[method-assign]
        self.stopping = threading.Event()
        self.building = threading.Lock()  # seeds are the process's, not a thread's
        self.threads: list[threading.Thread] = []
        self.failed: BaseException | None = None

    def start(self, name: str) -> None:
        self.dead.discard(name)
        role = {DECRYPTOR: DECRYPTOR}.get(name, SITE if name in self.sites else CUSTODIAN)
        transport = DirectTransport(self, name, role)  # type: ignore[arg-type]
        agent = self.watch(name, self._agent(name, transport))

        def body() -> None:
            try:
                agent.run()
            except Died:
                self._died(name)
            except BaseException as error:  # noqa: BLE001 - raised again by `finish`
                self.failed = error
                self.run.stop()

        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def back_after(self, number: int) -> list[str]:
        """Of those whose thread has ended: the server may be done with a round before that."""
        with self.dying:
            self.over = number
            return [name for name in super().back_after(number) if name in self.dead]

    def _died(self, name: str) -> None:
        death = self.deaths[name]
        with self.dying:
            self.dead.add(name)
            is_late = death.back == "next round" and death.round <= self.over
        if death.back == "at once" or is_late:
            self.start(name)
        with self.inbox.changed:
            self.inbox.changed.notify_all()

    def _agent(self, name: str, transport) -> Agent:
        stopping = self.stopping
        if name == DECRYPTOR:
            role = self.workspace.role(DECRYPTOR)
            decryptor = open_decryptor(role, config=self.config, members=self.members)
            return DecryptorAgent(
                decryptor, transport, stopping=stopping, once=True,
                decisions=Decisions(role, self.members),
            )  # fmt: skip
        if name not in self.sites:
            folder = self.workspace.custodian(name)
            return CustodianAgent(
                Custodian(folder, name, self.config), transport, stopping=stopping, once=True,
                decisions=Decisions(folder),
            )  # fmt: skip
        return SiteAgent(
            lambda run: self._site(name, run),
            members=MembershipFolder(self.workspace.site(name)).members,
            transport=transport,
            open_transport=None,
            stopping=stopping,
            once=True,
            decisions=Decisions(self.workspace.site(name)),
        )

    def _site(self, name: str, run: str) -> Site:
        return open_own_site(self.folder, name, run, config=self.config, building=self.building)

    def finish(self) -> list[RoundRecord]:
        for name in self.parties:
            self.start(name)
        try:
            with suppress(Stopping):
                self.server.drive()
        finally:
            self.stopping.set()
            for thread in self.threads:
                thread.join(timeout=30)
        if self.failed is not None:
            raise self.failed
        return self.server.coordinator.rounds


class FlowerWorld(_ServedWorld):
    """As over Flower, with nodes in this process in place of a SuperLink."""

    def __init__(self, folder: Path, adapter: bytes = b"") -> None:
        super().__init__(folder, adapter)
        self.started = 0
        self.online: dict[int, str] = {}
        self.held: dict[str, Parties] = {}
        self.waiting: dict[str, bytes | None] = {}
        self.sent = 0
        self.ending: set[str] = set()
        self.dead: set[str] = set()  # who does not come back before the round is over
        silent_s = self.board.silent_s
        self.board.silent_s = lambda party: 1e9 if party in self.dead else silent_s(party)  # type: ignore[method-assign]
        invite = self.run._invite

        def invite_those_back() -> list[str]:
            """Not before the carrier has greeted who came back."""
            back = [n for n, d in self.deaths.items() if d.done and n not in self.dead]
            self.run.waiting.until(lambda: all(self.run._is_present(n) for n in back), 60.0)
            return invite()

        self.run._invite = invite_those_back  # type: ignore[method-assign]

    # What the carrier asks of Flower.

    def nodes(self):
        return set(self.online)

    def send(self, node: int, frame: bytes) -> str | None:
        if node not in self.online:
            return None
        name = self.online[node]
        self.sent += 1
        try:
            self.waiting[str(self.sent)] = self.held[name].answer(name, frame)
            order, _ = open_frame(frame, Order, self.members.coordinator)
            if order.step == "hello":
                self.watch(name, self.held[name]._open[name]._agent)
        except Died:
            self._died(node)
            self.waiting[str(self.sent)] = None
        if name in self.ending:  # what it said is in the answer, which arrives
            self.ending.remove(name)
            self._died(node)
        return str(self.sent)

    def died_after_sending(self, name: str) -> None:
        self.ending.add(name)

    def _died(self, node: int) -> None:
        name = self.online.pop(node)
        self.dead.add(name)
        if self.deaths[name].back == "at once":
            self.start(name)

    def replies(self, ids):
        return [(i, self.waiting.pop(i)) for i in list(ids) if i in self.waiting]

    # What a scenario asks.

    def start(self, name: str) -> None:
        self.started += 1
        self.dead.discard(name)
        self.online[self.started] = name
        self.held[name] = Parties(self.folder)

    def finish(self) -> list[RoundRecord]:
        for name in self.parties:
            self.start(name)
        FlowerServer(self.server, self, pause_s=0.01).run()  # type: ignore[arg-type]
        return self.server.coordinator.rounds


WORLDS: dict[str, type[ContractWorld]] = {
    "local": LocalWorld,
    "https": HttpsWorld,
    "flower": FlowerWorld,
}


def world_of(transport: str, made: Path, place: Path) -> ContractWorld:
    """A world of a copy of a federation that was made before.

    Args:
        transport: Its name.
        made: The federation's folder.
        place: An empty one.
    """
    return WORLDS[transport](Path(shutil.copytree(made, place / "federation")))


def charged(world: ContractWorld, name: str) -> list[int]:
    """Rounds that a site's ledger was charged for."""
    budget = Ledger(world.workspace.site(name) / "ledger.sqlite").budget()
    return [number for held in budget.reservations.values() for number, _ in held.commits]
