"""Canaries through the real training path: the harness of the one-run audit.

What canaries are is `privacy.auditing.canary_model`'s matter, and what each mechanism does with
them `privacy.auditing.canary_training`'s. From a canary's gradient on it goes where every gradient
goes: summed over its unit's records, clipped, added over physical batches, noised, and handed to
the optimizer. Inclusion in the data is by fair coins; sampling is the trainer's own.

The auditor sees each step's noised gradient, as the optimizer does, which is what the accountant
assumes of everybody outside; with distributed noise each released sum. Records are synthetic, so
nothing is charged.

Tested are the hooks of linear layers, clipping, the sums over a unit's records and over physical
batches, sampling, the noise and its scale, rounding, and steps and rounds as planned. Not tested
are layers of other kinds, mistakes that only certain records would meet, the noise's tails and
randomness, how data are read, and what becomes of an update later.

`fmfl_secure.audit` calls `observe_canaries`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.auditing.canary_model import AuditedModel, CanaryData, SyntheticRecords, with_canaries
from privacy.auditing.canary_training import (
    CanaryTraining,
    DistributedNoise,
    LocalGradients,
    LocalNoise,
    Workload,
)
from privacy.auditing.statistics import log_likelihood_ratio
from privacy.errors import AuditError
from privacy.mechanism.distributed import DistributedPlan
from privacy.mechanism.plan import PrivacyPlan
from privacy.mechanism.training import ClippedSum, PerRecordLoss

# What is left of C in a canary's coordinate at least, or the audit says nothing.
_ARRIVES = 0.98
_CHECKED = 128  # canaries that this is measured on


@dataclass(frozen=True, slots=True)
class Observation:
    """The outcome of an audited run: which canaries were in it, and what it says of each.

    Attributes:
        included: bool, shape (m,): canaries that were in the data.
        scores: float64, shape (m,): what the released gradients say of each.
        spare: Canaries that lay beside the model's own layers.
    """

    included: NDArray[np.bool_]
    scores: NDArray[np.float64]
    spare: int


def observe_canaries(
    model: nn.Module,
    *,
    plan: PrivacyPlan | DistributedPlan,
    loss: PerRecordLoss,
    records: SyntheticRecords,
    canaries: int,
    build_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    physical_batch_size: int,
    shares: int = 1,
    gradients: bool = False,
    records_per_canary: int = 1,
    begin_round: Callable[[int], object] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Observation:
    """Train all rounds of a plan on canaries, and score each by what was released.

    Args:
        model: As it would be trained; left trained on canaries, of no use for anything else.
        plan: As it would be trained with.
        loss: Per-record loss of the task.
        records: Each is in the data once, as a unit; canaries' records are copies of the
            cheapest quarter.
        canaries: m, at least 1.
        build_optimizer: A fresh optimizer over these parameters: for each round with local noise,
            one for all rounds of a kind where gradients are released.
        physical_batch_size: Records in memory at once.
        shares: With distributed noise, how many sites' shares count; see `DistributedNoise`.
        gradients: With local noise, whether gradients are released and steps taken elsewhere.
        records_per_canary: More than one where a unit has several records.
        begin_round: Called with each round's number, from 1; makes trainable what it trains. A
            canary lies elsewhere in rounds that train other parameters.
        on_step: Called with the number of finished steps, all rounds together.

    Returns:
        Inclusion and scores, for `privacy.auditing.statistics.evaluate`.

    Raises:
        AuditError: Canaries do not reach the clipped sum, so that scores would mean nothing; or
            so many shares are not in a sum.
        TrainingError: A step broke one of the trainer's own checks.
    """
    data = CanaryData(records, canaries, records_per_canary)
    included = np.frombuffer(os.urandom(canaries), dtype=np.uint8) % 2 == 1
    work = Workload(
        loss=with_canaries(loss),
        collate=data.collate,
        units=data.background + [data.unit(int(canary)) for canary in np.flatnonzero(included)],
        record_cost=data.cost,
        build_optimizer=build_optimizer,
        physical_batch_size=physical_batch_size,
    )
    training: CanaryTraining
    if isinstance(plan, DistributedPlan):
        training = DistributedNoise(plan, work, shares=shares)
    else:
        training = LocalGradients(plan, work) if gradients else LocalNoise(plan, work)
    auditor = _Auditor(plan.sample_rate, canaries)
    audited_models: dict[tuple[int, ...], AuditedModel] = {}  # by what they train
    for number in range(1, plan.rounds + 1):
        if begin_round is not None:
            begin_round(number)
        trained = tuple(id(p) for p in model.parameters() if p.requires_grad)
        if trained not in audited_models:
            audited_models[trained] = AuditedModel(
                model, canaries, max_grad_norm=plan.max_grad_norm
            )
            _check_arrival(audited_models[trained], plan.max_grad_norm, work, data)
        audited = audited_models[trained]
        before = (number - 1) * training.steps_per_round
        training.train_round(audited, auditor.see, _counting(on_step, before))
    # Weights have moved: had they made the model's own gradients huge, canaries would be lost.
    _check_arrival(audited, plan.max_grad_norm, work, data)
    auditor.require_steps(plan.rounds * training.steps_per_round)
    spare = max(canaries - each.own_canaries for each in audited_models.values())
    return Observation(included=included, scores=auditor.scores, spare=spare)


class _Auditor:
    """Sees what every step releases, and adds up scores."""

    def __init__(self, sample_rate: float, canaries: int) -> None:
        self._sample_rate = sample_rate
        self._steps = 0
        self.scores = np.zeros(canaries)

    def see(self, observed: NDArray[np.float64], noise_multiplier: float) -> None:
        """Take note of a step: canaries' coordinates in units of C, and the noise claimed."""
        self.scores += log_likelihood_ratio(
            observed, sample_rate=self._sample_rate, noise_multiplier=noise_multiplier
        )
        self._steps += 1

    def require_steps(self, steps: int) -> None:
        if self._steps != steps:
            raise AuditError(f"{self._steps} steps were seen of {steps}: scores mean nothing")


def _check_arrival(
    audited: AuditedModel, max_grad_norm: float, work: Workload, data: CanaryData
) -> None:
    """Raise unless canaries reach the clipped sum; lost ones would look like perfect privacy."""
    path = ClippedSum(
        audited,
        loss=work.loss,
        collate=work.collate,
        optimizer=torch.optim.SGD(audited.trained, lr=0.0),
        max_grad_norm=max_grad_norm,
        noise_stddev=max_grad_norm,  # never added: no step is taken
        expected_batch_size=1.0,
        physical_batch_size=work.physical_batch_size,
    )
    checked = np.unique(np.linspace(0, data.canaries - 1, _CHECKED).astype(np.int64))
    with path:
        path.accumulate([data.unit(int(canary)) for canary in checked])
        total = path.take_sum()
    arrived = audited.coordinates_of(total)[checked] / max_grad_norm
    if not bool((arrived >= _ARRIVES).all()):  # also refuses NaN
        raise AuditError(
            f"a canary reaches the clipped sum with {float(arrived.min()):.3g} C, expected C: "
            "its scores would mean nothing",
            hint="Use another model or loss: its own gradients are too large beside the canaries', "
            "or not finite.",
        )


def _counting(on_step: Callable[[int], None] | None, before: int) -> Callable[[int], None] | None:
    return None if on_step is None else lambda step: on_step(before + step)
