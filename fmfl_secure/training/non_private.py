"""Training without privacy: baselines, on data declared public, and what benchmarks compare with.

The same sampling, schedule and optimizer as the private path, without clipping and noise, so that
a difference in accuracy or in time is the price of privacy and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.tasks import TaskData

PhysicalBatches = Sequence[NDArray[np.int64]]
"""The record indices of one step, in batches that go through the model together."""


def poisson_steps(
    data: TaskData, *, steps: int, sample_rate: float, physical_batch_size: int
) -> Iterator[PhysicalBatches]:
    """Batches of records, sampled one by one and ordered as in private training.

    Sampling needs no secrecy here, and is seeded by nothing, like the private path.
    """
    generator = np.random.default_rng()
    members = np.concatenate(data.units)
    for _ in range(steps):
        chosen = members[generator.random(len(members)) < sample_rate]
        records = chosen[np.argsort(data.record_cost[chosen], kind="stable")]
        yield [
            records[start : start + physical_batch_size]
            for start in range(0, len(records), physical_batch_size)
        ]


def train_plain(
    model: nn.Module,
    steps: Iterable[PhysicalBatches],
    *,
    loss: Callable[[nn.Module, Any], torch.Tensor],
    collate: Callable[[NDArray[np.int64]], Any],
    optimizer: torch.optim.Optimizer,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Run one optimizer step on each element, averaging over its records.

    Args:
        model: With exactly the parameters to train requiring gradients.
        steps: The records of each step; one without records leaves the model as it is.
        loss: One loss a record, shape (b,).
        collate: Record indices, shape (b,), to a batch.
        optimizer: Over the trainable parameters.
        on_step: Called with the number of finished steps.
    """
    model.train()
    for step, batches in enumerate(steps, start=1):
        optimizer.zero_grad(set_to_none=True)
        records = sum(map(len, batches))
        for batch in batches:
            torch.autograd.backward(loss(model, collate(batch)).sum() / records)
        if records:
            optimizer.step()
        if on_step is not None:
            on_step(step)
    optimizer.zero_grad(set_to_none=True)


def sum_gradients(
    model: nn.Module,
    batches: PhysicalBatches,
    parameters: Sequence[nn.Parameter],
    *,
    loss: Callable[[nn.Module, Any], torch.Tensor],
    collate: Callable[[NDArray[np.int64]], Any],
) -> NDArray[np.float64]:
    """The sum of one step's gradients, neither clipped nor noised.

    Args:
        model: With exactly these parameters requiring gradients; left as it was.
        batches: The records of the step.
        parameters: In the order of the flat vector.
        loss: One loss a record, shape (b,).
        collate: Record indices, shape (b,), to a batch.

    Returns:
        float64, shape (d,); zero where there is no record.
    """
    model.train()
    for parameter in parameters:
        parameter.grad = None
    for batch in batches:
        torch.autograd.backward(loss(model, collate(batch)).sum())
    parts = [
        np.zeros(p.numel()) if p.grad is None else p.grad.double().cpu().numpy().reshape(-1)
        for p in parameters
    ]
    for parameter in parameters:
        parameter.grad = None
    return np.concatenate(parts)
