"""How long a step of constant work takes, measured where no data are."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from privacy.mechanism.constant_work import ConstantWork
from privacy.mechanism.training import ClippedSum, Collate, PerRecordLoss


def measure_step(
    model: nn.Module,
    *,
    parameters: Sequence[nn.Parameter],
    loss: PerRecordLoss,
    collate: Collate,
    work: ConstantWork,
) -> float:
    """Seconds that a step of dummies alone takes, from batches to clipped gradients.

    Leaves the model as it was. Every step takes as long, whoever is sampled.

    Args:
        model: As it will be trained.
        parameters: Exactly those that require gradients.
        loss: Per-record loss.
        collate: Record indices to a batch; not called.
        work: What a step computes; of its records none is used.
    """
    clipped_sum = ClippedSum(
        model,
        loss=loss,
        collate=collate,
        optimizer=torch.optim.SGD(parameters, lr=0.0),
        max_grad_norm=1.0,
        noise_stddev=1.0,  # never added: nothing is released
        expected_batch_size=1.0,
        physical_batch_size=work.step.rows,
    )
    began = time.perf_counter()
    with clipped_sum:
        clipped_sum.accumulate_evenly([], np.empty(0, dtype=np.int64), work)
        clipped_sum.take_sum()
    return time.perf_counter() - began
