"""Custodians across processes: what opens with their word, and what does not without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from service_world import NAMES, World, start_all

from aggregation import SiteAttempt
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.settings.service import Time

BOARD, COURT = "board", "court"


@pytest.fixture
def world(tmp_path: Path, tiny_model: Path) -> World:
    world = World(tmp_path, tiny_model, custodians=(BOARD, COURT))
    world.run.waiting.limits = Time(end_s=5.0)
    return world


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who opened."""
    names: list[str] = []
    real = SiteAttempt.open

    def noted(self, *rest):
        names.append(repr(self))
        return real(self, *rest)

    monkeypatch.setattr(SiteAttempt, "open", noted)
    return names


def test_with_every_custodian_s_word_the_exact_sum_opens(world: World) -> None:
    start_all(world)
    (record,) = world.finish()
    assert (record.status, record.cohort, record.attempts) == ("released", NAMES, 1)
    world.assert_sum(record)


def test_a_custodian_that_refuses_is_asked_before_any_site_trains(
    world: World, opened: list[str]
) -> None:
    world.agree(COURT, min_sites=5)
    start_all(world)
    assert world.finish() == []
    reason = world.coordinator.store.state.reason or ""
    assert "court does not let round 1 open" in reason
    assert opened == []
    assert all(site.updates == {} for site in world.sites.values()), "nobody trained"


def test_a_word_withheld_after_the_uploads_opens_nothing(
    world: World, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decryptor holds all it will ever hold of the round, and no site has opened."""
    from fmfl_secure.errors import RunError

    def withhold(self, *_, **__):
        raise RunError("not today")

    monkeypatch.setattr(Custodian, "approve", withhold)
    start_all(world)
    assert world.finish() == []
    assert "does not let round 1 open" in (world.coordinator.store.state.reason or "")
    assert opened == []
    assert all(site.updates for site in world.sites.values()), "everyone had uploaded"


def test_a_custodian_that_lost_its_keys_costs_an_attempt(world: World) -> None:
    start_all(world)
    world.dies(BOARD, "custodian-ready", then=lambda: world.start_custodian(BOARD))
    (record,) = world.finish()
    assert (record.status, record.attempts) == ("released", 2)
    world.assert_sum(record)


def test_a_word_that_was_recorded_before_a_restart_is_sent_again(world: World) -> None:
    start_all(world)
    world.dies(BOARD, "approval", then=lambda: world.start_custodian(BOARD))
    (record,) = world.finish()
    assert (record.status, record.attempts) == ("released", 1)
    world.assert_sum(record)


def test_a_round_whose_attempt_died_after_a_custodian_s_word_is_lost(
    world: World, opened: list[str]
) -> None:
    """One word a round: no other attempt at it can open, and the run goes on without that round."""
    start_all(world)
    world.dies(COURT, "approval")
    invite = world.run._invite

    def back(*rest):
        if COURT in world.dead:
            world.start_custodian(COURT)
        return invite(*rest)

    world.run._invite = back  # type: ignore[method-assign]
    (record,) = world.finish()
    assert record.status == "lost"
    assert opened == []


def test_without_a_custodian_the_run_ends_with_the_reason(tmp_path: Path, tiny_model: Path) -> None:
    world = World(tmp_path, tiny_model, custodians=(BOARD,), wait_for_sites_s=0.5)
    world.dead.add(BOARD)
    world.start_decryptor()
    for name in NAMES:
        world.start_site(name)
    assert world.finish() == []
    assert "no board" in (world.coordinator.store.state.reason or "")


@pytest.mark.slow  # processes of their own
def test_processes_with_a_custodian_end_like_the_embedded_engine(
    tmp_path: Path, tiny_model: Path
) -> None:
    import numpy as np
    from processes import Federation, run_embedded
    from support import make_federation, make_kits

    from fmfl_secure.run.record import decode_record

    custodians = f'custodians = ["{BOARD}"]'
    folder, beside = tmp_path / "service", tmp_path / "embedded"
    make_kits(folder, tiny_model, rounds=2, evaluation=False, aggregation=custodians)
    parties = ("server", "decryptor", BOARD, *NAMES[:3])
    federation = Federation(folder)
    try:
        for name in parties:
            federation.start(name, f"seeded:{folder / 'sums'}")
        federation.wait()
    finally:
        federation.close()
    assert {p.exitcode for p in federation.processes.values()} == {0}, federation.state()
    path = make_federation(beside, tiny_model, rounds=2, evaluation=False, aggregation=custodians)
    run_embedded(path, beside / "run", beside / "sums")
    for number in (1, 2):
        ours, theirs = (np.load(at / f"sums/{number}.npy") for at in (folder, beside))
        assert np.array_equal(ours, theirs)
        assert np.any(ours)
    ours, theirs = (decode_record((at / "run/report.json").read_bytes()) for at in (folder, beside))
    assert ours.status == theirs.status == "finished"
    assert set(ours.identities) == set(theirs.identities)
    assert f"custodian {BOARD}" in ours.identities
