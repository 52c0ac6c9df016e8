"""Training without privacy: baselines, on data declared public.

The same sampling, schedule and optimizer as the private path, without clipping and noise, so that
a difference in accuracy is the price of privacy and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fmfl_secure.config import FederationConfig
from fmfl_secure.tasks import Task, TaskData


def train_plain_round(
    model: nn.Module,
    *,
    config: FederationConfig,
    task: Task,
    data: TaskData,
    optimizer: torch.optim.Optimizer,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Run one round's steps on Poisson batches, averaging over the records of each.

    Sampling needs no secrecy here, and is seeded by nothing, like the private path.
    """
    generator = np.random.default_rng()
    model.train()
    for step in range(1, config.privacy.steps_per_round + 1):
        chosen = np.flatnonzero(generator.random(data.records) < config.privacy.sample_rate)
        records = chosen[np.argsort(data.record_cost[chosen], kind="stable")]
        optimizer.zero_grad(set_to_none=True)
        for start in range(0, len(records), config.training.physical_batch_size):
            part = records[start : start + config.training.physical_batch_size]
            loss = task.per_record_loss(model, data.collate(part)).sum() / len(records)
            torch.autograd.backward(loss)
        if len(records):
            optimizer.step()
        if on_step is not None:
            on_step(step)
    optimizer.zero_grad(set_to_none=True)
