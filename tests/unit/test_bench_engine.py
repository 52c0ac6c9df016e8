"""The split of a round of the embedded engine, and the steps beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aggregation.testing import Federation
from fmfl_secure.bench import engine, shares
from fmfl_secure.demonstration.federation import prepare_demo
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import load_federation


def test_the_steps_alone_are_in_neither_part_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"cpu": 0.0}
    monkeypatch.setattr(shares.time, "process_time", lambda: now["cpu"])
    taken = []

    def five_seconds(action) -> float:
        action()
        now["cpu"] += 5.0
        return 5.0

    monkeypatch.setattr(engine, "cpu_seconds", five_seconds)
    monkeypatch.setattr(engine, "_take_steps", lambda _, number: taken.append(number))
    clock = engine._Pairs(Federation(3, size=3))
    clock.run_started("run", first_round=1, rounds=2)
    for begins in (0.0, 15.0):
        now["cpu"] = begins + 1.0
        clock.site_training(1, "a", 0, 1)
        now["cpu"] = begins + 3.0
        clock.site_training(1, "a", 1, 1)
        now["cpu"] = begins + 10.0
        clock.round_finished(RoundRecord(1, "released", 1, ("a",), {}, "", "", {}, ""), {}, 0)
    assert [(p["training"], p["protocol"], p["alone"]) for p in clock.pairs] == [(2, 8, 5)] * 2
    assert taken == [1, 2], "a plan of its own each time: journals join none twice"


def test_the_steps_go_through_to_a_sum_that_everybody_checks() -> None:
    federation = Federation(3, size=3, suite="ckks-collective", key_agreement="x25519-mlkem768")
    engine._take_steps(federation, 1)
    engine._take_steps(federation, 2)


def test_its_settings_are_the_demonstrations_with_more_rounds(tmp_path: Path) -> None:
    path = prepare_demo(tmp_path / "demo", fresh=False, notes_per_site=10, holdout=1)
    config = engine._with_rounds(load_federation(path), 32)
    assert config.federation.rounds == 32
    assert config.privacy.steps_per_round == 1
    assert config.privacy.noise == "local"
    assert not config.evaluation.data
