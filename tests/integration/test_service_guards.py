"""Over the service too, every guarantee rests on the party that it protects: the real parties."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from real_world import RealWorld

import aggregation
from fmfl_secure.settings.federation import FederationConfig


def crowd(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A coordinator that invites the fewest, whatever the settings say."""
    sign = aggregation.Coordinator.plan
    monkeypatch.setattr(
        aggregation.Coordinator,
        "plan",
        lambda self, plan: sign(self, replace(plan, members=plan.members[:size])),
    )


def test_every_site_refuses_a_cohort_of_three_of_six(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch, 3)
    world = RealWorld(tmp_path, tiny_model, sites=6)
    world.start_all()
    assert world.finish() == []
    refusals = world.run._refusals()
    assert set(refusals) == set(world.names[:3])
    for name in world.names[:3]:
        assert "3 pinned sites are fewer than the 4" in world.agents[name].refusal
    for name in world.names:
        for held in world.open_site(name, world.run.run)._ledger.budget().reservations.values():
            assert held.commits == []


def test_by_the_rule_of_0_1_0_it_opens(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch, 3)
    monkeypatch.setattr(FederationConfig, "floor", lambda *_: 0)
    world = RealWorld(tmp_path, tiny_model, sites=6)
    world.run.rounds.attempts._smallest_cohort = 3
    world.start_all()
    (record,) = world.finish()
    assert record.cohort == world.names[:3]
