"""One step with distributed noise: sample, clip and sum as everywhere, then round and add a share.

    sampled units -> per-unit clipped gradients (`privacy.mechanism.training`) -> their sum
      -> secret rounding -> Skellam share -> integers for secure aggregation

The parameters do not move here: only a released sum may move them, at the server and at every
site alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.errors import TrainingError
from privacy.mechanism.constant_work import ConstantWork
from privacy.mechanism.distributed import DistributedPlan, SkellamShare
from privacy.mechanism.training import (
    ClippedSum,
    Collate,
    PerRecordLoss,
    accumulate_sample,
)


class DistributedTrainer:
    """Computes one site's part in the steps of a plan.

    Args:
        model: Base model and adapter; exactly `parameters` require gradients, in float32.
        plan: What to do; its dimension is at least the parameters' size.
        parameters: In the order of the flat vector.
        loss: Per-record loss.
        collate: Record indices to a batch.
        units: Record indices of each unit at this site.
        physical_batch_size: Records in memory at once. Cannot touch privacy.
        record_cost: Optional, shape (records,): relative cost of a record (its length).
        work: What every step computes, whoever is sampled; None computes what was sampled.

    Raises:
        TrainingError: The parameters are not those that require gradients, or more than the
            plan's dimension.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        plan: DistributedPlan,
        parameters: Sequence[nn.Parameter],
        loss: PerRecordLoss,
        collate: Collate,
        units: Sequence[NDArray[np.int64]],
        physical_batch_size: int,
        record_cost: NDArray[np.int64] | None = None,
        work: ConstantWork | None = None,
    ) -> None:
        size = sum(parameter.numel() for parameter in parameters)
        if size > plan.dimension:
            raise TrainingError(
                f"{size} parameters are trained, the plan is for up to {plan.dimension}"
            )
        self._model = model
        self._plan = plan
        self._units = units
        self._record_cost = record_cost
        self._work = work
        self._share = SkellamShare(plan)
        self._clipped_sum = ClippedSum(
            model,
            loss=loss,
            collate=collate,
            # Holds the parameters in order and never steps.
            optimizer=torch.optim.SGD(parameters, lr=0.0),
            max_grad_norm=plan.max_grad_norm,
            noise_stddev=plan.max_grad_norm,  # never added: the noise is the share
            expected_batch_size=plan.sample_rate * plan.population,
            physical_batch_size=physical_batch_size,
        )

    def step(self) -> NDArray[np.int32]:
        """One step's integers. The caller has charged the step to the ledger before.

        Returns:
            int32, shape (d,): fit to leave the site under secure aggregation, and only so.

        Raises:
            TrainingError: The step broke one of its checks. It is spent; nothing may leave.
        """
        buffers = {name: b.clone() for name, b in self._model.named_buffers()}
        with self._clipped_sum as clipped_sum:
            accumulate_sample(
                clipped_sum,
                self._units,
                self._plan.sample_rate,
                cost=self._record_cost,
                work=self._work,
            )
            total = clipped_sum.take_sum().cpu().numpy()
        for name, buffer in self._model.named_buffers():
            if name in buffers and not torch.equal(buffer, buffers[name]):
                raise TrainingError(f"buffer {name} changed while training: it saw raw data")
        return self._share.protect(total)
