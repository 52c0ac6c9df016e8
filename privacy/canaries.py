"""Canaries through the real training path: the harness of the one-run audit.

A canary is a unit whose gradient is one coordinate of the trained parameters, at norm C. Its
records run through the model like any others, and each adds to its loss one output of one
trainable linear layer, called with an input that has a single non-zero value: the per-record
gradient that the hooks compute is that one weight, so large that clipping leaves all but nothing
besides it. From there it goes where every gradient goes: summed over its unit's records, clipped,
added over physical batches, noised, divided, handed to the optimizer. Nothing is added behind the
trainer's back. Inclusion in the data is by fair coins; sampling is the trainer's own.

Canaries lie in the model's own trained layers, so it is the noise on *these* that is measured.
Those that find no room there get a spare layer beside the model.

The auditor sees each step's noised gradient, as the optimizer does, which is what the accountant
assumes of everybody outside. Records are synthetic, so nothing is charged.

Tested are the hooks of linear layers, clipping, the sums over a unit's records and over physical
batches, sampling, the noise and its scale, and steps and rounds as planned. Not tested are layers
of other kinds, mistakes that only certain records would meet, the noise's tails and randomness,
how data are read, and what becomes of an update later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.audit import log_likelihood_ratio
from privacy.errors import AuditError
from privacy.plan import PrivacyPlan
from privacy.training import ClippedSum, Collate, PerRecordLoss, PrivateTrainer

# A canary's gradient over the larger of C and 1, before clipping: whatever else is in its records'
# gradients shrinks by as much. The layer's input is a part of it, by which a bias shrinks.
_STRENGTH = 1e6
_INPUT = 1e4
# What is left of C in a canary's coordinate at least, or the audit says nothing.
_ARRIVES = 0.98
_CHECKED = 128  # canaries that this is measured on


@dataclass(frozen=True, slots=True)
class SyntheticRecords:
    """Made-up records that the model can be trained on; nobody's data.

    Attributes:
        collate: Record indices, shape (b,), to a batch that the loss understands. An index may
            occur several times in a batch.
        cost: int64, shape (records,): relative cost of each record, as for `PrivateTrainer`.
    """

    collate: Collate
    cost: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Observation:
    """What an audited run gave.

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
    plan: PrivacyPlan,
    loss: PerRecordLoss,
    records: SyntheticRecords,
    canaries: int,
    build_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    physical_batch_size: int,
    records_per_canary: int = 1,
    begin_round: Callable[[int], object] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Observation:
    """Train all rounds of a plan on canaries, and score each by what was released.

    Args:
        model: As it would be trained; left trained on canaries, of no use for anything else.
        plan: As it would be trained with.
        loss: Per-record loss of the task.
        records: Each is in the data once, as a unit; canaries' records are copies of the cheaper
            half.
        canaries: m, at least 1.
        build_optimizer: A fresh optimizer over these parameters, for each round.
        physical_batch_size: Records in memory at once.
        records_per_canary: More than one where a unit has several records.
        begin_round: Called with each round's number, from 1; makes trainable what it trains. A
            canary lies elsewhere in rounds that train other parameters.
        on_step: Called with the number of finished steps, all rounds together.

    Returns:
        Inclusion and scores, for `privacy.audit.evaluate`.

    Raises:
        AuditError: Canaries do not reach the clipped sum, so that scores would mean nothing.
        TrainingError: A step broke one of the trainer's own checks.
    """
    data = _CanaryData(records, canaries, records_per_canary)
    planted_loss = _with_canaries(loss)
    included = np.frombuffer(os.urandom(canaries), dtype=np.uint8) % 2 == 1
    units = data.background + [data.unit(int(canary)) for canary in np.flatnonzero(included)]
    auditor = _Auditor(plan, canaries)
    checked: set[tuple[int, ...]] = set()
    spare = 0
    for number in range(1, plan.rounds + 1):
        if begin_round is not None:
            begin_round(number)
        audited = _AuditedModel(model, canaries, strength=_STRENGTH * max(plan.max_grad_norm, 1.0))
        spare = max(spare, canaries - audited.own_canaries)
        trained = tuple(id(p) for p in model.parameters() if p.requires_grad)
        if trained not in checked:
            _check_arrival(audited, plan, planted_loss, data, physical_batch_size)
            checked.add(trained)
        optimizer = build_optimizer(audited.trained)
        optimizer.register_step_pre_hook(auditor.watching(audited))
        PrivateTrainer(
            audited,
            plan=plan,
            loss=planted_loss,
            collate=data.collate,
            units=units,
            optimizer=optimizer,
            physical_batch_size=physical_batch_size,
            record_cost=data.cost,
        ).train_round(_counting(on_step, (number - 1) * plan.steps_per_round))
    # Weights have moved: had they made the model's own gradients huge, canaries would be lost.
    _check_arrival(audited, plan, planted_loss, data, physical_batch_size)
    auditor.require_steps(plan.rounds * plan.steps_per_round)
    return Observation(included=included, scores=auditor.scores, spare=spare)


class _Auditor:
    """Sees every noised gradient just before the optimizer does, and adds up scores."""

    def __init__(self, plan: PrivacyPlan, canaries: int) -> None:
        self._plan = plan
        self._steps = 0
        self.scores = np.zeros(canaries)

    def watching(self, audited: _AuditedModel) -> Callable[..., None]:
        """What an optimizer of this model is to call before each of its steps."""
        plan = self._plan

        def see(*_: Any) -> None:
            sums = audited.noised_coordinates() * plan.expected_batch_size
            self.scores += log_likelihood_ratio(
                sums / plan.max_grad_norm,
                sample_rate=plan.sample_rate,
                noise_multiplier=plan.noise_multiplier,
            )
            self._steps += 1

        return see

    def require_steps(self, steps: int) -> None:
        if self._steps != steps:
            raise AuditError(f"{self._steps} steps were seen of {steps}: scores mean nothing")


def _check_arrival(
    audited: _AuditedModel,
    plan: PrivacyPlan,
    loss: PerRecordLoss,
    data: _CanaryData,
    physical_batch_size: int,
) -> None:
    """Raise unless canaries reach the clipped sum; lost ones would look like perfect privacy."""
    path = ClippedSum(
        audited,
        loss=loss,
        collate=data.collate,
        optimizer=torch.optim.SGD(audited.trained, lr=0.0),
        max_grad_norm=plan.max_grad_norm,
        noise_stddev=plan.noise_stddev,
        expected_batch_size=plan.expected_batch_size,
        physical_batch_size=physical_batch_size,
    )
    checked = np.unique(np.linspace(0, data.canaries - 1, _CHECKED).astype(np.int64))
    with path:
        path.accumulate([data.unit(int(canary)) for canary in checked])
        total = path.take_sum()
    arrived = audited.coordinates_of(total)[checked] / plan.max_grad_norm
    if not bool((arrived >= _ARRIVES).all()):  # also refuses NaN
        raise AuditError(
            f"a canary reaches the clipped sum with {float(arrived.min()):.3g} C, expected C: "
            "its scores would mean nothing",
            hint="The model's own gradients are too large beside the canaries', or not finite.",
        )


def _counting(on_step: Callable[[int], None] | None, before: int) -> Callable[[int], None] | None:
    return None if on_step is None else lambda step: on_step(before + step)


@dataclass(slots=True)
class _CanaryBatch:
    """A batch of the task, and which canary each record belongs to: int64, shape (b,), or -1."""

    inner: Any
    canaries: torch.Tensor


def _with_canaries(loss: PerRecordLoss) -> PerRecordLoss:
    def planted(model: nn.Module, batch: _CanaryBatch) -> torch.Tensor:
        if not isinstance(model, _AuditedModel):
            raise AuditError("canaries were planted in a model that has no room for them")
        own = loss(model.inner, batch.inner)
        return own + model.plant(batch.canaries)

    return planted


class _CanaryData:
    """Background records first, one unit each, then the records of canary 0, 1, 2, ...

    A canary's records are copies of the cheaper half of the background's: what they say does not
    matter, and short ones cost a fraction of the time.
    """

    def __init__(self, records: SyntheticRecords, canaries: int, records_per_canary: int) -> None:
        count = len(records.cost)
        cheap = np.argsort(records.cost, kind="stable")[: max(1, count // 2)]
        copies = cheap[np.arange(canaries * records_per_canary) % len(cheap)]
        self._records = records
        self.canaries = canaries
        self._source = np.concatenate([np.arange(count), copies])
        self._canary = np.concatenate(
            [np.full(count, -1), np.repeat(np.arange(canaries), records_per_canary)]
        )
        self._each = records_per_canary
        self.cost = records.cost[self._source]
        self.background = [np.array([i], dtype=np.int64) for i in range(count)]

    def unit(self, canary: int) -> NDArray[np.int64]:
        first = len(self.background) + canary * self._each
        return np.arange(first, first + self._each, dtype=np.int64)

    def collate(self, indices: NDArray[np.int64]) -> _CanaryBatch:
        return _CanaryBatch(
            inner=self._records.collate(self._source[indices]),
            canaries=torch.from_numpy(self._canary[indices]),
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """Weights of one layer that canaries lie in: the canaries from `first` on, one each."""

    layer: nn.Linear
    first: int
    rows: torch.Tensor
    columns: torch.Tensor


class _AuditedModel(nn.Module):
    """A model, and where its canaries lie."""

    def __init__(self, inner: nn.Module, canaries: int, *, strength: float) -> None:
        super().__init__()
        self.inner = inner
        self._strength = strength
        self._device = next(inner.parameters()).device
        own = {
            id(module.weight): module
            for module in inner.modules()
            if type(module) is nn.Linear and module.weight.requires_grad
        }
        layers = list(own.values())
        room = sum(layer.weight.numel() for layer in layers)
        self.own_canaries = min(canaries, room)
        spare = canaries - self.own_canaries
        if spare:
            self.spare = nn.Linear(spare, 1, bias=False, device=self._device)
            layers.append(self.spare)
        # Public and the same each time: where a canary lies says nothing of whether it is in.
        chosen = np.random.default_rng(20230515).permutation(room)[: self.own_canaries]
        chosen = np.concatenate([np.sort(chosen), room + np.arange(spare)])
        self._places = _places(layers, chosen)
        self.trained = [p for p in self.parameters() if p.requires_grad]

    def plant(self, canaries: torch.Tensor) -> torch.Tensor:
        """What each record adds to its loss, shape (b,): zero for -1."""
        canaries = canaries.to(self._device)
        total = torch.zeros(len(canaries), device=self._device)
        for place in self._places:
            local = canaries - place.first
            here = (local >= 0) & (local < len(place.rows))
            local = torch.where(here, local, 0)
            inputs = torch.zeros(len(canaries), place.layer.in_features, device=self._device)
            inputs.scatter_(1, place.columns[local].unsqueeze(1), 1.0)
            output = place.layer(inputs * _INPUT * here.unsqueeze(1))
            picked = output.gather(1, place.rows[local].unsqueeze(1)).squeeze(1)
            total = total + picked * here * (self._strength / _INPUT)
        return total

    def noised_coordinates(self) -> NDArray[np.float64]:
        """Each canary's coordinate of the gradients as they stand, shape (m,)."""
        found = []
        for place in self._places:
            gradient = place.layer.weight.grad
            if gradient is None:
                raise AuditError("a trainable layer was left without a gradient in a step")
            found.append(gradient[place.rows, place.columns].double().cpu().numpy())
        return np.concatenate(found)

    def coordinates_of(self, flat: torch.Tensor) -> NDArray[np.float64]:
        """The same of one vector over all of `trained`, in its order."""
        starts, start = {}, 0
        for parameter in self.trained:
            starts[id(parameter)] = start
            start += parameter.numel()
        found = [
            flat[starts[id(p.layer.weight)] + p.rows * p.layer.in_features + p.columns]
            for p in self._places
        ]
        return torch.cat(found).double().cpu().numpy()


def _places(layers: Sequence[nn.Linear], chosen: NDArray[np.int64]) -> list[_Place]:
    """Ascending coordinates over all layers' weights, by layer; only layers that have some."""
    places, start, first = [], 0, 0
    for layer in layers:
        size = layer.weight.numel()
        here = chosen[(chosen >= start) & (chosen < start + size)] - start
        if len(here):
            places.append(
                _Place(
                    layer,
                    first,
                    rows=torch.from_numpy(here // layer.in_features).to(layer.weight.device),
                    columns=torch.from_numpy(here % layer.in_features).to(layer.weight.device),
                )
            )
        start, first = start + size, first + len(here)
    return places
