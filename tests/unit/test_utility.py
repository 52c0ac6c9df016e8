"""Utility figures: when they are computed, and of which adapter."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fmfl_secure.data import LeftOut
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.settings.sections import EvaluationSection
from fmfl_secure.training.evaluator import Utility

DATA = SimpleNamespace(left_out=LeftOut())


class _Task:
    """Counts what is asked of it; its one metric is the adapter's own value."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    def load(self, path, *, unit, on_bad_row):
        assert (unit, on_bad_row) == ("record", "skip")
        self.loads.append(str(path))
        return DATA

    def evaluate(self, model, data, *, batch_size):
        assert (data, batch_size) == (DATA, 8)
        return {"value": model.weight.item()}


def _utility(task: _Task, tmp_path, *, data: str = "dev.csv", every: int = 3) -> Utility:
    config = SimpleNamespace(
        evaluation=EvaluationSection(data=data, visibility="public", every=every),
        task=SimpleNamespace(on_bad_row="skip"),
        training=SimpleNamespace(physical_batch_size=8),
        federation=SimpleNamespace(rounds=8),
    )
    return Utility(config, task, nn.Linear(1, 1, bias=False), tmp_path)  # type: ignore[arg-type]


def _adapter(value: float) -> bytes:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(value)
    return adapter_bytes(model)


def test_every_third_round_and_the_last_are_evaluated(tmp_path) -> None:
    task = _Task()
    utility = _utility(task, tmp_path)
    assert utility.before(_adapter(0.0)) == {"value": 0.0}
    found = {n: utility.after(n, _adapter(float(n))) for n in range(1, 9)}
    assert {n for n, metrics in found.items() if metrics} == {3, 6, 8}
    assert all(metrics == {"value": float(n)} for n, metrics in found.items() if metrics)
    assert task.loads == [str(tmp_path / "dev.csv")], "the set is read once"


@pytest.mark.parametrize("every", [1, 3])
def test_without_a_set_nothing_is_read(tmp_path, every: int) -> None:
    task = _Task()
    utility = _utility(task, tmp_path, data="", every=every)
    assert utility.before(_adapter(0.0)) == utility.after(8, _adapter(1.0)) == {}
    assert task.loads == []
