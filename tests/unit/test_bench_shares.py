"""The split of a run's time into training and protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmfl_secure.bench import shares
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import load_federation


def a_record() -> RoundRecord:
    return RoundRecord(1, "released", 1, ("a", "b"), {}, "", "", {}, "")


def test_time_between_a_sites_zero_and_its_step_is_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter(range(1000))  # each look at the clock is a second later than the last
    clock = shares.RoundClock()
    times = {"cpu": 0.0}

    def at(seconds: float) -> None:
        times["cpu"] = seconds

    monkeypatch.setattr(shares.time, "process_time", lambda: times["cpu"])
    monkeypatch.setattr(shares.time, "perf_counter", lambda: float(next(now)))
    at(10.0)
    clock.run_started("run", first_round=1, rounds=1)
    for site, begins, trains, ends in (("a", 11.0, 13.0, 20.0), ("b", 21.0, 22.0, 30.0)):
        at(begins)
        clock.site_training(1, site, 0, 1)  # invited
        at(trains)
        clock.site_training(1, site, 0, 1)  # charged, data at hand
        at(ends)
        clock.site_training(1, site, 1, 1)
    at(34.0)
    clock.round_finished(a_record(), {}, 0)
    (pair,) = clock.pairs
    assert pair["training"] == 7.0 + 8.0
    assert pair["protocol"] == 1.0 + 2.0 + 1.0 + 1.0 + 4.0
    assert pair["training_wall"] + pair["protocol_wall"] == 7.0
    with pytest.raises(RuntimeError, match="a refused, budget"):
        clock.site_refused("a", "budget", "nothing left")


def test_its_settings_are_those_of_eight_sites_with_shares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "initialise", lambda *_, **__: [])
    federation = shares._prepare(tmp_path, rounds=9, last_layers=1)
    config = load_federation(federation)
    assert config.privacy.noise == "distributed"
    assert len(config.sites) == shares.SITES == 8
    assert config.adapter.kind == "ffa-lora"
    assert config.federation.rounds == 9
    assert not config.evaluation.data
