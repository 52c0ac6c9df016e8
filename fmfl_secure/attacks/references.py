"""Reference models: what the same training makes of public-like data, and scores against them.

Carlini et al. 2022, arXiv 2112.03570: a record that a model fits well may be an easy one. How well
models fit it that never saw it says how easy; what is left is what training on it did. This is the
attack's offline form, with one variance for all records, as few reference models allow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.training.local_round import build_optimizer
from fmfl_secure.training.non_private import poisson_steps, train_plain

_LEAST_LOSS = 1e-7


def train_reference(
    config: FederationConfig, task: Task, data: TaskData, *, seed: int
) -> nn.Module:
    """A model after all of a run's steps on other data, without clipping or noise.

    Args:
        config: The run's settings.
        task: Its task.
        data: What to train on.
        seed: Of the adapter's initial values.
    """
    model = task.build_model(seed=seed)
    kept: dict[int, torch.optim.Optimizer] = {}
    for number in range(1, config.federation.rounds + 1):
        task.begin_round(model, number)
        # As a run does: one memory at the server, a fresh one each round at the sites.
        key = number % len(task.distinct_rounds) if config.steps_at_server else number
        if key not in kept:
            kept = {} if not config.steps_at_server else kept
            kept[key] = build_optimizer(model, config.training)
        steps = poisson_steps(
            data,
            steps=config.privacy.steps_per_round,
            sample_rate=config.privacy.sample_rate,
            physical_batch_size=config.training.physical_batch_size,
        )
        train_plain(
            model, steps, loss=task.per_record_loss, collate=data.collate, optimizer=kept[key]
        )
    return model.eval()


@torch.no_grad()
def losses(model: nn.Module, task: Task, data: TaskData, *, batch_size: int) -> NDArray[np.float64]:
    """A model's loss of every record, float64, shape (records,).

    Args:
        model: Of the task.
        task: The task.
        data: The records.
        batch_size: How many at once.
    """
    found = np.empty(data.records)
    for batch in data.by_cost(batch_size):
        found[batch] = task.per_record_loss(model, data.collate(batch)).double().cpu().numpy()
    return found


def fits(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well a model fits records, on a scale on which losses are near normal: logit e^-loss."""
    bounded = np.maximum(loss, _LEAST_LOSS)
    return np.asarray(-bounded - np.log(-np.expm1(-bounded)))


def against_references(
    target: NDArray[np.float64], references: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """How much better a model fits records than models do that never saw them.

    Args:
        target: The attacked model's losses, shape (records,).
        references: Those of reference models.

    Returns:
        The difference, shape (records,). With one variance for all records it would be a divisor
        that changes no order; taken over the records at hand it would tell one set from another.
    """
    beside = np.mean([fits(each) for each in references], axis=0)
    scores: NDArray[np.float64] = fits(target) - beside
    return scores


def by_unit(scores: NDArray[np.float64], units: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """The mean score of each unit's records, shape (units,)."""
    return np.array([scores[unit].mean() for unit in units])
