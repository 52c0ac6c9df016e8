"""Sites that do not come, die or come late: the survivors finish, or the run says why not.

Agents run in threads, against the server's board and intake without HTTP between. Who counts as
silent is set by the test, so that nothing hangs on time.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support import settings

from aggregation import Decryptor, Identity, MemoryJournal
from fmfl_secure.config import convert_config
from fmfl_secure.coordinator import Coordinator, start_run
from fmfl_secure.errors import RunError, SiteFailure
from fmfl_secure.models import Layout
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.planning import build_task
from fmfl_secure.run_store import RunFacts
from fmfl_secure.service.board import Board, Step
from fmfl_secure.service.certificates import DECRYPTOR, SITE
from fmfl_secure.service.client import DocumentRef, Work
from fmfl_secure.service.decryptor_agent import DecryptorAgent
from fmfl_secure.service.errors import Problem, Rejected, ServiceError
from fmfl_secure.service.intake import Intake, Stated
from fmfl_secure.service.rounds import Stopping
from fmfl_secure.service.run import ServerRun
from fmfl_secure.service.settings import Time
from fmfl_secure.service.simulate import SimulatedSite
from fmfl_secure.service.site_agent import SiteAgent
from fmfl_secure.service.store import MessageKey, SqliteStore
from fmfl_secure.workspace import Members

pytestmark = pytest.mark.slow  # processes of their own, and waiting for their time limits

NAMES = ("site-1", "site-2", "site-3", "site-4")


class Died(ServiceError):
    """A process is no more."""


class DirectLine:
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
            list(task.sizes), 0, self.world.intake.part_bytes,
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
                lambda start=start, part=part: self.world.intake.part(
                    self.role, key, sha256=digest, size=size, offset=start, data=part
                ),
            )

    def join(self, run: str, visibility) -> None:
        self._call("join", lambda: self.world.intake.join(self.name, run, visibility))

    def refuse(self, run: str, code: str) -> None:
        self._call("refuse", lambda: self.world.intake.refuse(self.name, run, code))

    def fail(self, work: Work, code: str) -> None:
        place = (work.run, work.round, work.attempt)
        self._call("fail", lambda: self.world.intake.fail(self.name, *place, code))

    def state(self, run: str, statement, signature: str, *, final: bool) -> None:
        stated = Stated(statement, signature)
        self._call("state", lambda: self.world.intake.state(self.name, run, stated, final=final))

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

    def __init__(self, folder: Path, model: Path, *, rounds: int = 1, **limits: float) -> None:
        import tomllib

        text = settings(model, sites=4, rounds=rounds, evaluation=False)
        self.config = convert_config(
            tomllib.loads(text), __import__("fmfl_secure.config").config.FederationConfig,
            source="test",
        )  # fmt: skip
        self.identities = {
            n: Identity.generate(n) for n in ("coordinator", "aggregator", "decryptor", *NAMES)
        }
        public = {n: i.public for n, i in self.identities.items()}
        sites = {n: public[n] for n in NAMES}
        roles = ("coordinator", "aggregator", "decryptor")
        self.members = Members(**{n: public[n] for n in roles}, sites=sites)
        task = build_task(self.config, relative_to=folder)
        learner = task.build_model(seed=1)
        facts = RunFacts(
            base_model="tiny",
            base_model_digest=task.base.digest,
            layout_digest=Layout.of(learner).digest,
            parameters=Layout.of(learner).size,
            sites={n: i.text for n, i in sites.items()},
            roles={n: public[n].fingerprint for n in roles},
            initial_adapter=adapter_bytes(learner),
        )
        store = start_run(folder / "run", config=self.config, public=facts, origin=folder)
        self.coordinator = Coordinator(
            self.identities["coordinator"],
            members=self.members,
            config=self.config,
            task=task,
            model=learner,
            store=store,
            key_agreement="x25519-mlkem768",
        )
        self.board = Board()
        self.dead: set[str] = set()
        self.board.silent_s = lambda party: 1e9 if party in self.dead else 0.0  # type: ignore[method-assign]
        self.intake = Intake(SqliteStore(folder / "service.sqlite"), part_bytes=16 * 1024)
        self.run = ServerRun(
            self.coordinator,
            identity=self.identities["coordinator"],
            aggregator=self.identities["aggregator"],
            members=lambda: self.members,
            membership=lambda: "",
            config=self.config,
            origin=folder,
            task=task,
            model=learner,
            output=folder / "run",
            intake=self.intake,
            board=self.board,
            limits=Time(**{"gather_s": 0.2, "end_s": 5.0} | limits),
        )
        self.run._write = lambda: None  # type: ignore[method-assign] # reports: another test's
        self.sites = {
            n: SimulatedSite(self.identities[n], members=self.members, journal=MemoryJournal())
            for n in NAMES
        }
        self.lines: dict[str, DirectLine] = {}
        self.threads: list[threading.Thread] = []
        self.stopping = threading.Event()
        self.journal = MemoryJournal()
        self.failed: Exception | None = None

    def start_site(self, name: str) -> DirectLine:
        """Start a site's process: its secrets are new, its journal and updates are its own."""
        self.dead.discard(name)
        self.lines[name] = line = DirectLine(self, name, SITE)
        agent = SiteAgent(
            lambda _: self.sites[name],
            members=lambda: self.members,
            line=line,  # type: ignore[arg-type]
            open_line=lambda: line,  # type: ignore[arg-type, return-value]
            stopping=self.stopping,
            once=True,
        )
        self._start(name, agent.run)
        return line

    def start_decryptor(self) -> DirectLine:
        self.dead.discard("decryptor")
        self.lines["decryptor"] = line = DirectLine(self, "decryptor", DECRYPTOR)
        decryptor = Decryptor(
            self.identities["decryptor"],
            self.journal,
            coordinator=self.members.coordinator,
            pinned=self.members.pinned,
        )
        agent = DecryptorAgent(decryptor, line, stopping=self.stopping, once=True)  # type: ignore[method-assign]
        self._start("decryptor", agent.run)
        return line

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
                self.lines[name].broken = _raise
                then()
                with self.intake.changed:
                    self.intake.changed.notify_all()
                raise Died(name)

        self.lines[name].broken = broken

    def finish(self):
        try:
            with suppress(Stopping):
                self.run.carry()
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


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path) -> World:
    return World(tmp_path, tiny_model)


def start_all(world: World, *names: str) -> None:
    world.start_decryptor()
    for name in names or NAMES:
        world.start_site(name)


def test_everybody_comes(world: World) -> None:
    start_all(world)
    world.run._limits = Time(end_s=5.0)  # wait for all four to join
    (record,) = world.finish()
    assert record.cohort == NAMES
    assert record.attempts == 1
    world.assert_sum(record)


def test_a_site_that_never_comes_is_gone_on_without(world: World) -> None:
    world.dead.add("site-4")
    start_all(world, *NAMES[:3])
    (record,) = world.finish()
    assert record.cohort == NAMES[:3]
    world.assert_sum(record)


@pytest.mark.parametrize(
    ("at", "attempts"),
    [("ready", 1), ("exchange", 2), ("upload", 2), ("chunks", 2), ("more chunks", 2)],
)
def test_a_site_that_dies_before_the_list_costs_an_attempt_at_most(
    world: World, at: str, attempts: int
) -> None:
    """While training; between ready and upload; with half of its upload sent."""
    world.run._limits = Time(end_s=5.0)
    start_all(world)
    world.dies("site-2", at)
    (record,) = world.finish()
    assert record.status == "released"
    assert record.cohort == ("site-1", "site-3", "site-4")
    assert record.attempts == attempts
    world.assert_sum(record)


def test_a_site_that_dies_before_it_opens_loses_the_round_and_says_so(world: World) -> None:
    world.run._limits = Time(end_s=5.0)
    start_all(world)
    world.dies("site-2", "opening")
    (record,) = world.finish()
    # Three sites opened, and one is too few for another sum: spent, and never repeated.
    assert record.status == "lost"
    reasons = world.intake.store.notes(world.run.run, "over")
    assert reasons["1/1"] == b"site-2 did not open"
    assert b"fewer than min_sites" in reasons["1/2"]


def test_a_site_that_dies_after_it_opened_costs_nothing(world: World) -> None:
    world.run._limits = Time(end_s=5.0)
    start_all(world)
    world.dies("site-2", "verdict")
    (record,) = world.finish()
    assert record.status == "released"
    assert record.cohort == NAMES
    world.assert_sum(record)


def test_a_site_that_comes_back_takes_part_with_what_it_had_stored(world: World) -> None:
    world.run._limits = Time(end_s=5.0)
    start_all(world)
    world.dies("site-2", "upload", then=lambda: world.start_site("site-2"))
    (record,) = world.finish()
    assert record.cohort == NAMES
    assert record.attempts == 2
    world.assert_sum(record)


def test_a_site_that_answers_late_is_in_the_next_round(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model, rounds=2)
    world.run._limits = Time(end_s=5.0)
    start_all(world)
    gone_on = threading.Event()
    slow, train = world.sites["site-4"], world.sites["site-4"].train

    def train_slowly(plan, *rest):
        if plan.round == 1:
            world.dead.add("site-4")
            with world.intake.changed:
                world.intake.changed.notify_all()
            assert gone_on.wait(60)
            world.dead.discard("site-4")
        return train(plan, *rest)

    slow.train = train_slowly  # type: ignore[method-assign]
    invite = world.run._invite

    def invite_after(*rest):
        if world.coordinator.rounds:
            gone_on.set()
            assert world.run.rounds.wait(lambda: "site-4" not in world.dead, 60)
        return invite(*rest)

    world.run._invite = invite_after  # type: ignore[method-assign]
    first, second = world.finish()
    assert first.cohort == NAMES[:3]
    assert second.cohort == NAMES
    world.assert_sum(first)
    world.assert_sum(second)


def test_too_few_sites_end_the_run_with_the_reason(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model, wait_for_sites_s=0.5)
    world.dead.update({"site-3", "site-4"})
    start_all(world, *NAMES[:2])
    assert world.finish() == []
    store = world.coordinator.store
    assert store.fact("status") == b"stopped"
    assert b"fewer than min_sites = 3" in (store.fact("reason") or b"")


def test_without_a_decryptor_the_run_ends_with_the_reason(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model, wait_for_sites_s=0.5)
    world.dead.add("decryptor")
    for name in NAMES:
        world.start_site(name)
    assert world.finish() == []
    assert b"no decryptor" in (world.coordinator.store.fact("reason") or b"")


def test_a_decryptor_that_lost_its_keys_costs_an_attempt(world: World) -> None:
    world.run._limits = Time(end_s=5.0)
    start_all(world)
    world.dies("decryptor", "confirmation", then=world.start_decryptor)
    (record,) = world.finish()
    assert record.status == "released"
    assert record.attempts == 2
    world.assert_sum(record)


def test_a_site_that_refuses_is_named_and_gone_on_without(world: World) -> None:
    from privacy.errors import BudgetExhausted

    def begin() -> None:
        raise BudgetExhausted("epsilon 8 asked, 1.5 left", asked_rounds=2, affordable_rounds=0)

    world.sites["site-3"].begin = begin  # type: ignore[method-assign]
    world.run._limits = Time(end_s=5.0)
    start_all(world)
    (record,) = world.finish()
    assert record.cohort == ("site-1", "site-2", "site-4")
    assert record.refusals == {"site-3": "budget"}


def test_a_site_that_stops_in_a_round_is_not_waited_for(world: World) -> None:
    """The time for training is hours, and this site has said that it takes no part."""

    def train(*_):
        raise SiteFailure("row 7 is empty")

    world.sites["site-3"].train = train  # type: ignore[method-assign]
    world.run._limits = Time(end_s=5.0)
    start_all(world)
    (record,) = world.finish()
    assert record.cohort == ("site-1", "site-2", "site-4")
    assert record.attempts == 1
    assert record.refusals == {"site-3": "failed"}


def test_every_word_that_a_site_may_say_is_taken(world: World) -> None:
    """Those of a policy have a dot in them, and an error that is no refusal has no word."""
    from privacy.errors import PolicyRefusal

    class Unknown(RunError):
        code = "words of its own"

    said = {"site-1": PolicyRefusal("min_sites", "at least 5"), "site-2": Unknown("secret")}
    for name, error in said.items():
        world.sites[name].begin = partial(_throw, error)  # type: ignore[method-assign]
    start_all(world)
    assert world.finish() == []
    refused = world.intake.store.notes(world.run.run, "refused")
    assert refused == {"site-1": b"policy.min_sites", "site-2": b"failed"}


def _throw(error: Exception) -> None:
    raise error


def test_a_suspended_server_takes_nobody_for_dead(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a virtual machine that was paused: its clock went on, and no one could be heard."""
    del world.board.silent_s  # the real one
    world.board.heard("site-1")
    asked = 0

    def hour_later() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    real, shift = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + shift[0])
    wait = world.intake.changed.wait

    def suspended(timeout: float) -> bool:
        shift[0] += 3600.0
        return wait(0.01)

    monkeypatch.setattr(world.intake.changed, "wait", suspended)
    assert world.run.rounds.wait(hour_later, 10.0), "the time limit was not used up either"
    assert world.board.silent_s("site-1") < 60
    assert world.board.silent_s("site-2") < 60


def test_steps_have_an_order(world: World) -> None:
    """What belongs to no task under way is refused, whoever sends it."""
    line = DirectLine(world, "site-1", SITE)
    work = Work(0, Step.OPEN, world.run.run, 1, 1, {}, [], 0, 16 * 1024)
    with pytest.raises(Rejected, match="not under way"):
        line.send(work, "opening", b"opening")
