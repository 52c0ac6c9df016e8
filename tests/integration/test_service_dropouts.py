"""Sites that do not come, die or come late: the survivors finish, or the run says why not.

Agents run in threads, against the server's board and inbox without HTTP between. Who counts as
silent is set by the test, so that nothing hangs on time.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path

import pytest
from service_world import NAMES, DirectTransport, World, start_all

from fmfl_secure.errors import Rejected, RunError, SiteFailure
from fmfl_secure.provisioning.certificates import SITE
from fmfl_secure.runtime.inbox import CLOSED
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.runtime.transport import Work
from fmfl_secure.settings.service import Time

pytestmark = pytest.mark.slow  # processes of their own, and waiting for their time limits


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path) -> World:
    return World(tmp_path, tiny_model)


def test_everybody_comes(world: World) -> None:
    start_all(world)
    world.run.waiting.limits = Time(end_s=5.0)  # wait for all four to join
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
    world.run.waiting.limits = Time(end_s=5.0)
    start_all(world)
    world.dies("site-2", at)
    (record,) = world.finish()
    assert record.status == "released"
    assert record.cohort == ("site-1", "site-3", "site-4")
    assert record.attempts == attempts
    world.assert_sum(record)


def test_a_site_that_dies_before_it_opens_loses_the_round_and_says_so(world: World) -> None:
    world.run.waiting.limits = Time(end_s=5.0)
    start_all(world)
    world.dies("site-2", "opening")
    (record,) = world.finish()
    # Three sites opened, and one is too few for another sum: spent, and never repeated.
    assert record.status == "lost"
    reasons = world.inbox.store.notes(world.run.run, "over")
    assert reasons["1/1"] == b"site-2 did not open"
    assert b"fewer than the 3 it takes" in reasons["1/2"]


def test_a_site_that_dies_after_it_opened_costs_nothing(world: World) -> None:
    world.run.waiting.limits = Time(end_s=5.0)
    start_all(world)
    world.dies("site-2", "verdict")
    (record,) = world.finish()
    assert record.status == "released"
    assert record.cohort == NAMES
    world.assert_sum(record)


def test_a_site_that_comes_back_takes_part_with_what_it_had_stored(world: World) -> None:
    world.run.waiting.limits = Time(end_s=5.0)
    start_all(world)
    world.dies("site-2", "upload", then=lambda: world.start_site("site-2"))
    (record,) = world.finish()
    assert record.cohort == NAMES
    assert record.attempts == 2
    world.assert_sum(record)


def test_a_site_that_answers_late_is_in_the_next_round(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model, rounds=2)
    world.run.waiting.limits = Time(end_s=5.0)
    start_all(world)
    gone_on = threading.Event()
    slow, train = world.sites["site-4"], world.sites["site-4"].train

    def train_slowly(plan, *rest):
        if plan.round == 1:
            world.dead.add("site-4")
            with world.inbox.changed:
                world.inbox.changed.notify_all()
            assert gone_on.wait(60)
            world.dead.discard("site-4")
        return train(plan, *rest)

    slow.train = train_slowly  # type: ignore[method-assign]
    invite = world.run._invite

    def invite_after(*rest):
        if world.coordinator.rounds:
            gone_on.set()
            assert world.run.waiting.until(lambda: "site-4" not in world.dead, 60)
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
    assert store.state.status == "stopped"
    assert "fewer than min_sites = 3" in (store.state.reason or "")


def test_without_a_decryptor_the_run_ends_with_the_reason(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model, wait_for_sites_s=0.5)
    world.dead.add("decryptor")
    for name in NAMES:
        world.start_site(name)
    assert world.finish() == []
    assert "no decryptor" in (world.coordinator.store.state.reason or "")


def test_a_decryptor_that_lost_its_keys_costs_an_attempt(world: World) -> None:
    world.run.waiting.limits = Time(end_s=5.0)
    start_all(world)
    world.dies("decryptor", "confirmation", then=world.start_decryptor)
    (record,) = world.finish()
    assert record.status == "released"
    assert record.attempts == 2
    world.assert_sum(record)


def test_a_site_that_refuses_is_named_and_gone_on_without(world: World) -> None:
    from privacy.errors import BudgetExhausted

    def begin(_: object) -> None:
        raise BudgetExhausted("epsilon 8 asked, 1.5 left", asked_rounds=2, affordable_rounds=0)

    world.sites["site-3"].begin = begin  # type: ignore[method-assign]
    world.run.waiting.limits = Time(end_s=5.0)
    start_all(world)
    (record,) = world.finish()
    assert record.cohort == ("site-1", "site-2", "site-4")
    assert record.refusals == {"site-3": "budget"}


def test_a_site_that_stops_in_a_round_is_not_waited_for(world: World) -> None:
    """The time for training is hours, and this site has said that it takes no part."""

    def train(*_):
        raise SiteFailure("row 7 is empty")

    world.sites["site-3"].train = train  # type: ignore[method-assign]
    world.run.waiting.limits = Time(end_s=5.0)
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
    refused = world.inbox.store.notes(world.run.run, "refused")
    assert refused == {"site-1": b"policy.min_sites", "site-2": b"failed"}


def _throw(error: Exception, *_: object) -> None:
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
    wait = world.inbox.changed.wait

    def suspended(timeout: float) -> bool:
        shift[0] += 3600.0
        return wait(0.01)

    monkeypatch.setattr(world.inbox.changed, "wait", suspended)
    assert world.run.waiting.until(hour_later, 10.0), "the time limit was not used up either"
    assert world.board.silent_s("site-1") < 60
    assert world.board.silent_s("site-2") < 60


def test_steps_have_an_order(world: World) -> None:
    """What belongs to no task under way is refused, whoever sends it."""
    transport = DirectTransport(world, "site-1", SITE)
    work = Work(0, Step.OPEN, world.run.run, 1, 1, {}, [], 0, 16 * 1024)
    with pytest.raises(Rejected, match="not under way"):
        transport.send(work, "opening", b"opening")


def test_the_server_stays_until_everybody_was_told_of_the_end(world: World) -> None:
    start_all(world)
    world.run.waiting.limits = Time()
    over, early, calls = threading.Event(), [], []

    def slow(what: str) -> None:
        calls.append(what)
        if what == "work" and "release" in calls and not early:
            while len(world.inbox.store.notes(world.run.run, CLOSED)) < len(NAMES):
                time.sleep(0.01)
            early.append(over.wait(0.5))

    world.transports["decryptor"].broken = slow
    world.run.drive()
    over.set()
    assert early == [False], "sites had closed, and the decryptor had not heard of the end"
    assert world.board.was_told("decryptor")
    for thread in world.threads:
        thread.join()
