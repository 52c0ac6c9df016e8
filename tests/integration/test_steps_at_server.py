"""A run with local noise whose steps are the server's, from its folder to its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support import Quiet, make_federation

from fmfl_secure.errors import RunStopped
from fmfl_secure.run.record import decode_record
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter import Adapter
from privacy import Ledger, PoissonSampledGaussian


def test_every_round_is_one_charged_step_and_one_step_of_the_optimizer(
    tmp_path: Path, tiny_model: Path
) -> None:
    path = make_federation(tmp_path, tiny_model, rounds=3, steps=1)
    path.write_text(path.read_text().replace("[training]", '[training]\nsteps_at = "server"'))
    LocalEngine(path, tmp_path / "run", resume=False, observer=Quiet()).run()
    record = decode_record((tmp_path / "run/report.json").read_bytes())
    assert (record.status, [r.status for r in record.rounds]) == ("finished", ["released"] * 3)
    assert record.mechanism.steps_per_round == 1
    config = load_federation(path)
    for site in config.sites:
        budget = Ledger(tmp_path / f"sites/{site.name}/ledger.sqlite").budget()
        (held,) = budget.reservations.values()
        assert held.event == PoissonSampledGaussian(
            config.privacy.sample_rate, record.mechanism.noise_multiplier, 1
        )
        assert [number for number, _ in held.commits] == [1, 2, 3]
    store = RunStore(tmp_path / "run")
    start, end = Adapter.read(store.public().initial_adapter), Adapter.read(store.last_adapter())
    (steps,) = [v for name, v in end.moments.items() if name.endswith("steps")]
    assert steps.tolist() == [3.0]
    assert not start.moments
    assert any(np.any(end.tensors[name] != start.tensors[name]) for name in end.tensors)


def test_a_step_that_takes_weights_beyond_float32_is_the_last_and_nothing_more_is_charged(
    tmp_path: Path, tiny_model: Path
) -> None:
    """There one unit changes the gradients of others, and epsilon would be of nothing."""
    path = make_federation(
        tmp_path, tiny_model, rounds=3, steps=1, plain=True, adapter='kind = "lora"\nrank = 4'
    )
    steps = '[training]\nsteps_at = "server"\nlearning_rate = 30.0'
    path.write_text(path.read_text().replace("[training]", steps))
    with pytest.raises(RunStopped, match="fewer than"):
        LocalEngine(path, tmp_path / "run", resume=False, observer=Quiet()).run()
    record = decode_record((tmp_path / "run/report.json").read_bytes())
    assert [r.status for r in record.rounds] == ["released"]
    assert {site.refusal for site in record.sites} >= {"admission"}
    for site in load_federation(path).sites:
        budget = Ledger(tmp_path / f"sites/{site.name}/ledger.sqlite").budget()
        (held,) = budget.reservations.values()
        assert [number for number, _ in held.commits] == [1]
