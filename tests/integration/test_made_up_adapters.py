"""A coordinator with adapters of its own making, against real sites that were restarted."""

from __future__ import annotations

from pathlib import Path

import pytest
from contract_worlds import Killed, LocalWorld
from support import make_federation

from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.vectors.adapter import Adapter
from privacy import Ledger


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    make_federation(tmp_path, tiny_model, sites=4, rounds=2, steps=1, evaluation=False)
    return tmp_path


def stopped_after_a_round(folder: Path) -> None:
    world = LocalWorld(folder)
    world.killed(after=1)
    with pytest.raises(Killed):
        world.finish()


def made_up(adapter: bytes) -> bytes:
    known = Adapter.read(adapter)
    moved = {**known.tensors, "head.bias": known.tensors["head.bias"] + 1.0}
    return Adapter(moved, known.moments).encode()


def hand_out(monkeypatch: pytest.MonkeyPatch, change) -> None:
    plan = Coordinator.plan_attempt

    def planning(self, number: int, sites):
        self.adapter = change(self)
        return plan(self, number, sites)

    monkeypatch.setattr(Coordinator, "plan_attempt", planning)


@pytest.mark.parametrize(
    "change",
    [lambda c: made_up(c.adapter), lambda c: c.store.public().initial_adapter],
    ids=["made up", "of the last round"],
)
def test_restarted_sites_refuse_a_made_up_adapter(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change
) -> None:
    stopped_after_a_round(folder)
    hand_out(monkeypatch, change)
    world = LocalWorld(folder)
    assert [record.round for record in world.finish()] == [1]
    assert world.reason.startswith("2 sites are left for round 2")
    for name in ("site-1", "site-2"):
        code, told = world.observer.refused[name]
        assert code == "run"
        assert "the adapter is not the one the last sum gives" in told
    for name in world.sites:
        budget = Ledger(world.workspace.site(name) / "ledger.sqlite").budget()
        (held,) = budget.reservations.values()
        assert [number for number, _ in held.commits] == [1]


def test_one_that_kept_no_record_takes_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As all did in 0.1.0: the arm in which the attack works."""
    monkeypatch.setattr("fmfl_secure.parties.expected_adapter.said_of", lambda *_: None)
    monkeypatch.setattr(
        "fmfl_secure.parties.expected_adapter.ExpectedAdapter.begin", lambda *_: None
    )
    monkeypatch.setattr(
        "fmfl_secure.parties.expected_adapter.ExpectedAdapter._note", lambda *_: None
    )
    stopped_after_a_round(folder)
    hand_out(monkeypatch, lambda c: made_up(c.adapter))
    world = LocalWorld(folder)
    assert [record.cohort for record in world.finish()] == [world.sites, world.sites]
