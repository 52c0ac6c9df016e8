"""Clipped gradients without their noise: of records that are made up, or public."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.mechanism.training import ClippedSum, Collate, PerRecordLoss


def public_clipped_means(
    model: nn.Module,
    *,
    parameters: Sequence[nn.Parameter],
    loss: PerRecordLoss,
    collate: Collate,
    blocks: Sequence[NDArray[np.int64]],
    max_grad_norm: float,
    physical_batch_size: int,
) -> NDArray[np.float64]:
    """The mean clipped gradient of each block of records, which must be nobody's.

    Nothing is noised and nothing is charged. Leaves the model as it was.

    Args:
        model: As it will be trained.
        parameters: Exactly those that require gradients, in the order of the flat vector.
        loss: Per-record loss.
        collate: Record indices to a batch.
        blocks: Record indices, every one a unit of its own; none empty.
        max_grad_norm: Clipping bound C.
        physical_batch_size: Records in memory at once.

    Returns:
        Shape (blocks, d).

    Raises:
        TrainingError: A loss or gradient has the wrong shape, or a bound was broken.
    """
    clipped_sum = ClippedSum(
        model,
        loss=loss,
        collate=collate,
        # Holds the parameters in order and never steps.
        optimizer=torch.optim.SGD(parameters, lr=0.0),
        max_grad_norm=max_grad_norm,
        noise_stddev=max_grad_norm,  # never added
        expected_batch_size=1.0,
        physical_batch_size=physical_batch_size,
    )
    means = []
    with clipped_sum:
        for block in blocks:
            clipped_sum.accumulate([np.array([record], dtype=np.int64) for record in block])
            means.append(clipped_sum.take_sum().cpu().numpy() / len(block))
    return np.stack(means)
