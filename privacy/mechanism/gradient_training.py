"""One step whose gradient leaves the site: sample, clip and sum as everywhere, then add noise.

    sampled units -> per-unit clipped gradients (`privacy.mechanism.training`) -> their sum
      -> Gaussian noise of the site's own               with local noise
      -> secret rounding -> a share of Skellam noise    with distributed noise

The parameters do not move here: only a released sum may move them, at the server and at every
site alike. That is post-processing, whatever optimizer it is.

`train_locally` of `fmfl_secure` calls `GradientTrainer.step` once a round, and
`auditing.canary_training` does for an audit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.errors import PlanError, TrainingError
from privacy.mechanism.constant_work import ConstantWork
from privacy.mechanism.distributed import DistributedPlan, SkellamShare
from privacy.mechanism.noise import GaussianSource
from privacy.mechanism.plan import PrivacyPlan
from privacy.mechanism.training import (
    ClippedSum,
    Collate,
    PerRecordLoss,
    accumulate_sample,
)


class Release(Protocol):
    """Makes a clipped sum fit to leave a site."""

    def protect(self, clipped_sum: NDArray[np.float64]) -> NDArray[Any]:
        """The sum with noise, shape (d,)."""
        ...


class GaussianRelease:
    """Adds a site's own noise to its clipped sums.

    **Guarantee.** What `protect` returns is one step of `plan.round_event()`, whatever is done
    with it afterwards.

    Args:
        plan: What to do; one step a round.

    Raises:
        PlanError: It plans several: between two of them the model would have to move.
    """

    def __init__(self, plan: PrivacyPlan) -> None:
        if plan.steps_per_round != 1:
            raise PlanError(
                f"steps_per_round is {plan.steps_per_round}, expected 1: a gradient is released "
                "after every step"
            )
        self._stddev = plan.noise_stddev
        self._source = GaussianSource()

    def __repr__(self) -> str:
        return "GaussianRelease()"

    def protect(self, clipped_sum: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum with noise.

        Args:
            clipped_sum: float64, shape (d,): each unit's part at most C (1 + CLIP_TOLERANCE).

        Returns:
            float64, shape (d,).

        Raises:
            TrainingError: Another shape or dtype, or a value is not finite.
        """
        if clipped_sum.ndim != 1 or clipped_sum.dtype != np.float64:
            raise TrainingError(f"the sum is {clipped_sum.dtype} of shape {clipped_sum.shape}")
        if not np.isfinite(clipped_sum).all():
            raise TrainingError("the sum holds a value that is not finite")
        return clipped_sum + self._stddev * self._source.normal(len(clipped_sum))


def release_of(plan: PrivacyPlan | DistributedPlan) -> Release:
    """The noise that a plan asks for.

    Raises:
        PlanError: It releases no gradients.
    """
    return SkellamShare(plan) if isinstance(plan, DistributedPlan) else GaussianRelease(plan)


class GradientTrainer:
    """Computes one site's part in the steps of a plan.

    Args:
        model: Base model and adapter; exactly `parameters` require gradients, in float32.
        plan: What to do; with distributed noise its dimension is at least the parameters' size.
        parameters: In the order of the flat vector.
        loss: Per-record loss.
        collate: Record indices to a batch.
        units: Record indices of each unit at this site.
        physical_batch_size: Records in memory at once. Cannot touch privacy.
        record_cost: Optional, shape (records,): relative cost of a record (its length).
        work: What every step computes, whoever is sampled; None computes what was sampled.

    Raises:
        PlanError: The plan has several steps between two uploads.
        TrainingError: The parameters are not those that require gradients, or more than the
            plan's dimension.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        plan: PrivacyPlan | DistributedPlan,
        parameters: Sequence[nn.Parameter],
        loss: PerRecordLoss,
        collate: Collate,
        units: Sequence[NDArray[np.int64]],
        physical_batch_size: int,
        record_cost: NDArray[np.int64] | None = None,
        work: ConstantWork | None = None,
    ) -> None:
        size = sum(parameter.numel() for parameter in parameters)
        if isinstance(plan, DistributedPlan) and size > plan.dimension:
            raise TrainingError(
                f"{size} parameters are trained, the plan is for up to {plan.dimension}"
            )
        self._model = model
        self._plan = plan
        self._units = units
        self._record_cost = record_cost
        self._work = work
        self._release = release_of(plan)
        self._clipped_sum = ClippedSum(
            model,
            loss=loss,
            collate=collate,
            # Holds the parameters in order and never steps.
            optimizer=torch.optim.SGD(parameters, lr=0.0),
            max_grad_norm=plan.max_grad_norm,
            noise_stddev=plan.max_grad_norm,  # never added: `self._release` has the noise
            expected_batch_size=plan.sample_rate * plan.population,
            physical_batch_size=physical_batch_size,
        )

    def step(self) -> NDArray[Any]:
        """One step's noised sum. The caller has charged the step to the ledger before.

        Returns:
            Shape (d,). With local noise float64, and anyone may see it. With distributed noise
            int32, fit to leave the site under secure aggregation, and only so.

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
        return self._release.protect(total)
