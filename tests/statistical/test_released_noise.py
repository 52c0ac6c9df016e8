"""What is released carries the declared noise: from Opacus through quantisation to the sum.

The loss of every record is zero, so that noise is all there is. Kolmogorov-Smirnov tests at a fixed
significance of 1e-6 accept the declared sigma, and reject two thirds and three halves of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from scipy import stats
from support import make_federation

from aggregation import dequantize
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.planning.noise import privacy_plan
from fmfl_secure.planning.plans import quantization
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.training.local_round import train_locally

SIGNIFICANCE = 1e-6
ROUNDS = 40


class NoSignal:
    """A task whose losses move nothing."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def per_record_loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return 0.0 * self._task.per_record_loss(model, batch)


@pytest.mark.parametrize("place", ["site", "server"])
def test_a_released_sum_carries_the_noise_of_every_site(
    tmp_path: Path, tiny_model: Path, place: str
) -> None:
    federation = make_federation(tmp_path, tiny_model, epsilon=3.0, privacy="delta = 1e-4")
    config = load_federation(federation)
    privacy = msgspec.structs.replace(config.privacy, steps_per_round=1)
    training = msgspec.structs.replace(
        config.training,
        optimizer="sgd",
        learning_rate=0.5,
        head_learning_rate=0.5,
        steps_at=place,
    )
    config = msgspec.structs.replace(config, privacy=privacy, training=training)
    task = build_task(config, relative_to=tmp_path)
    model = task.build_model(seed=1)
    layout = task.begin_round(model, 1)
    grid = quantization(config, layout, layout.size)
    start = adapter_bytes(model)
    plans = [privacy_plan(config, site) for site in config.sites]
    data = [task.load(tmp_path / f"data/{site.name}.csv", unit="record") for site in config.sites]
    released = []
    for _ in range(ROUNDS):
        updates = [
            train_locally(
                model,
                start,
                own,
                config=config,
                task=NoSignal(task),
                plan=plan,
                layout=layout,
                rank=2,
                quantization=grid,
            )
            for own, plan in zip(data, plans, strict=True)
        ]
        total = np.sum([update.astype(np.int64) for update in updates], axis=0)
        released.append(dequantize(total, grid, 1.0))
    values = np.concatenate(released)
    plan = plans[0]
    of_sum = plan.noise_multiplier * plan.max_grad_norm * np.sqrt(len(plans))
    stddev = of_sum  # of a gradient; an update is a step by its mean
    if place == "site":
        stddev = training.learning_rate * of_sum / (plan.sample_rate * plan.population)
    assert all(abs(np.abs(u).max()) < grid.limit for u in updates), "nothing was cut off"

    def accepts(sigma: float) -> bool:
        return bool(stats.kstest(values, stats.norm(scale=sigma).cdf).pvalue > SIGNIFICANCE)

    assert len(values) == ROUNDS * layout.size
    assert accepts(stddev)
    assert not accepts(stddev * 2 / 3)
    assert not accepts(stddev * 3 / 2)
