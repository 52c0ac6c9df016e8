"""A round on canaries through one mechanism's real training path, and what everybody sees of it.

Nothing is added behind the trainers' backs: units are sampled, clipped, summed and noised by
`privacy.mechanism.training` and `privacy.mechanism.gradient_training`. What each step releases
is shown in units of C, canary by canary, before it moves the model.

`auditing.canaries` picks the class by the plan's kind of noise and calls `train_round` until the
run's rounds are over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.auditing.canary_model import AuditedModel
from privacy.errors import AuditError
from privacy.mechanism.distributed import DistributedPlan, SkellamShare
from privacy.mechanism.gradient_training import GradientTrainer
from privacy.mechanism.plan import PrivacyPlan
from privacy.mechanism.training import Collate, PerRecordLoss, PrivateTrainer

See = Callable[[NDArray[np.float64], float], None]
"""What a step released of each canary, shape (m,), in units of C; and the noise claimed of it."""

OnStep = Callable[[int], None]
"""Finished steps of a round."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Data, loss and optimizer of an audited training, the same for every mechanism.

    Attributes:
        loss: Per-record loss that knows canaries.
        collate: Record indices to a batch.
        units: Record indices of each unit that is in the data.
        record_cost: int64, shape (records,): relative cost of each record.
        build_optimizer: A fresh optimizer over these parameters.
        physical_batch_size: Records in memory at once.
    """

    loss: PerRecordLoss
    collate: Collate
    units: Sequence[NDArray[np.int64]]
    record_cost: NDArray[np.int64]
    build_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    physical_batch_size: int


class CanaryTraining(Protocol):
    """Trains rounds of a plan and shows what each step releases."""

    steps_per_round: int

    def train_round(self, audited: AuditedModel, see: See, on_step: OnStep | None) -> None:
        """Train one round; `see` is called once a step.

        Raises:
            TrainingError: A step broke one of the trainer's own checks.
        """
        ...


class LocalNoise:
    """Every site's update is private by itself: its noised gradients are what is seen."""

    def __init__(self, plan: PrivacyPlan, work: Workload) -> None:
        self._plan = plan
        self._work = work
        self.steps_per_round = plan.steps_per_round

    def train_round(self, audited: AuditedModel, see: See, on_step: OnStep | None) -> None:
        """A round of `PrivateTrainer`, with a fresh optimizer, which sees what the auditor does."""
        plan, work = self._plan, self._work

        def before_step(*_: Any) -> None:
            sums = audited.noised_coordinates() * plan.expected_batch_size
            see(sums / plan.max_grad_norm, plan.noise_multiplier)

        optimizer = work.build_optimizer(audited.trained)
        optimizer.register_step_pre_hook(before_step)
        PrivateTrainer(
            audited,
            plan=plan,
            loss=work.loss,
            collate=work.collate,
            units=work.units,
            optimizer=optimizer,
            physical_batch_size=work.physical_batch_size,
            record_cost=work.record_cost,
        ).train_round(on_step)


class _ReleasedGradients:
    """Base of mechanisms whose steps a public optimizer takes, on released gradients."""

    steps_per_round = 1

    def __init__(self, work: Workload) -> None:
        self._work = work
        self._optimizers: dict[AuditedModel, torch.optim.Optimizer] = {}

    def _gradient(
        self, audited: AuditedModel, plan: PrivacyPlan | DistributedPlan
    ) -> NDArray[np.float64] | NDArray[np.int32]:
        work = self._work
        return GradientTrainer(
            audited,
            plan=plan,
            parameters=audited.trained,
            loss=work.loss,
            collate=work.collate,
            units=work.units,
            physical_batch_size=work.physical_batch_size,
            record_cost=work.record_cost,
        ).step()

    def _move(self, audited: AuditedModel, gradient: torch.Tensor) -> None:
        if audited not in self._optimizers:
            self._optimizers[audited] = self._work.build_optimizer(audited.trained)
        sizes = [parameter.numel() for parameter in audited.trained]
        for parameter, part in zip(audited.trained, torch.split(gradient, sizes), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter)
        self._optimizers[audited].step()
        self._optimizers[audited].zero_grad(set_to_none=True)


class LocalGradients(_ReleasedGradients):
    """Every site's gradient is private by itself; it is seen before it is rounded and summed.

    Args:
        plan: Of the site.
        work: What it trains on.
    """

    def __init__(self, plan: PrivacyPlan, work: Workload) -> None:
        super().__init__(work)
        self._plan = plan

    def train_round(self, audited: AuditedModel, see: See, on_step: OnStep | None) -> None:
        """One step of `GradientTrainer`; then the public optimizer moves the model by it."""
        plan = self._plan
        released = torch.from_numpy(self._gradient(audited, plan))
        see(audited.coordinates_of(released) / plan.max_grad_norm, plan.noise_multiplier)
        self._move(audited, released / plan.expected_batch_size)
        if on_step is not None:
            on_step(1)


class DistributedNoise(_ReleasedGradients):
    """Sums that carry shares of noise: one site has canaries, the others have shares alone.

    What is seen is the released sum less whatever its viewers know. Canaries are at one site,
    whose integers come from `GradientTrainer`, its share in them; `shares - 1` other honest
    sites have no data, and theirs are `SkellamShare.protect` of zero, the real code as well.
    Other sites' data would only hide canaries better.

    Args:
        plan: Of the site.
        work: What it trains on.
        shares: How many sites' noise counts: `min_cohort - colluding_sites` of them for whoever
            sees released sums; 1 for all other sites together, who can subtract their own.

    Raises:
        AuditError: So many shares are not in a sum.
    """

    def __init__(self, plan: DistributedPlan, work: Workload, *, shares: int) -> None:
        super().__init__(work)
        honest = plan.min_cohort - plan.colluding_sites
        if not 1 <= shares <= honest:
            raise AuditError(f"{shares} shares count, expected 1 to {honest}")
        self._plan = plan
        self._shares = shares

    def train_round(self, audited: AuditedModel, see: See, on_step: OnStep | None) -> None:
        """One step of `GradientTrainer`; then the public optimizer moves the model by the sum.

        Raises:
            TrainingError: See the protocol.
        """
        plan = with_room(self._plan, audited.size)
        total = self._gradient(audited, plan).astype(np.int64)
        for _ in range(self._shares - 1):
            total += SkellamShare(plan).protect(np.zeros(len(total)))
        released = torch.from_numpy(total * plan.granularity)
        deviation = plan.granularity * math.sqrt(self._shares * plan.share_variance)
        see(
            audited.coordinates_of(released) / plan.max_grad_norm,
            deviation / plan.max_grad_norm,
        )
        self._move(audited, released / (plan.sample_rate * plan.population))
        if on_step is not None:
            on_step(1)


def with_room(plan: DistributedPlan, size: int) -> DistributedPlan:
    """The plan itself, or one for as many parameters with as much noise for what a unit moves.

    A spare layer adds parameters that the run itself does not train. Rounding steps are finer
    then and the noise larger in steps; its event costs no more than the plan's, which makes the
    plan's claim the wider one's as well.
    """
    if size <= plan.dimension:
        return plan
    wider = replace(plan, dimension=size)
    variance = -(-plan.share_variance * wider.squared_l2 // plan.squared_l2)  # rounded up
    return replace(wider, share_variance=variance)
