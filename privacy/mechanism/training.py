"""The private step and the private round, with Opacus's optimizer.

    sampled units -> per-record gradients (Opacus hooks) -> one gradient per unit -> clip
      -> sum over all physical batches -> noise -> divide by the expected batch -> optimizer

A physical batch is a matter of memory and never of privacy: the records of one unit may be
spread over several, their gradients are summed first and clipped once. Every step checks itself
(rows, norms, dtypes, buffers) and raises rather than train on something the accountant does not
describe.

`train_locally` of `fmfl_secure` makes a `PrivateTrainer` through `privacy.training` and calls
`train_round` once a round. `mechanism.gradient_training` uses `ClippedSum` and `accumulate_sample`
alone, where the noised sum leaves the site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.errors import TrainingError
from privacy.mechanism.constant_work import ConstantWork
from privacy.mechanism.float32 import whole_float32
from privacy.mechanism.noise import GaussianSource
from privacy.mechanism.opacus_parts import DPOptimizer
from privacy.mechanism.plan import CLIP_TOLERANCE, PrivacyPlan
from privacy.mechanism.record_gradients import RecordGradients
from privacy.mechanism.sampling import sampled_units
from privacy.mechanism.slots import hand_on, sum_by_owner, sum_in_slots

Collate = Callable[[NDArray[np.int64]], Any]
"""Record indices, shape (b,), to a batch that the loss understands."""

PerRecordLoss = Callable[[nn.Module, Any], torch.Tensor]
"""Model and batch to one loss a record, shape (b,); each depends on that record alone."""


class ClippedSum:
    """Sums per-unit clipped gradients of a model, over as many physical batches as it takes.

    **Guarantee.** After `accumulate(units)`, the sum moves by at most C (1 + CLIP_TOLERANCE) in
    L2 norm when one unit is added or removed, for every model and loss that the admission gate
    passes. Norms, clipping and the sum are float64: in float32 the norm of ten million like
    values comes out nearly 1 % small.

    | a unit's gradient | contributes |
    | --- | --- |
    | norm at most C | itself |
    | norm above C | itself, scaled to norm C |
    | zero | zero |
    | any infinity or NaN | zero, and it still counts as a row |

    Use as a context manager: Opacus's hooks are on the model only inside, and float32 has all its
    bits there.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: PerRecordLoss,
        collate: Collate,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        noise_stddev: float,
        expected_batch_size: float,
        physical_batch_size: int,
    ) -> None:
        self._model = model
        self._loss = loss
        self._collate = collate
        self._max_grad_norm = max_grad_norm
        self._physical_batch_size = physical_batch_size
        self._optimizer = _SecureNoiseOptimizer(
            optimizer,
            noise_multiplier=noise_stddev / max_grad_norm,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
        )
        self._parameters = self._optimizer.params
        wrong = [p.dtype for p in self._parameters if p.dtype is not torch.float32]
        if wrong:
            raise TrainingError(f"trainable parameters have dtype {wrong[0]}, expected float32")
        trainable = {id(p) for p in model.parameters() if p.requires_grad}
        if trainable != {id(p) for p in self._parameters}:
            raise TrainingError("the optimizer does not hold exactly the trainable parameters")
        self._hooks: RecordGradients | None = None
        self._arithmetic = ExitStack()

    def __enter__(self) -> Self:
        self._model.train()
        self._hooks = RecordGradients(self._model, loss_reduction="sum", strict=True)
        self._arithmetic.enter_context(whole_float32())
        for parameter in self._parameters:
            parameter.summed_grad = None
        return self

    def __exit__(self, *_: object) -> None:
        self._arithmetic.close()
        if self._hooks is not None:
            self._hooks.cleanup()
            self._hooks = None
        for parameter in self._parameters:
            parameter.grad = parameter.summed_grad = None
        for module in self._model.modules():  # what a forward pass without its backward leaves
            for name in ("activations", "max_batch_len"):
                module.__dict__.pop(name, None)

    def accumulate(self, units: Sequence[NDArray[np.int64]]) -> None:
        """Add the clipped gradients of these units to the running sum.

        Args:
            units: Record indices of each unit; the empty sequence adds nothing.

        Raises:
            TrainingError: The loss or a gradient has the wrong shape, or a bound was broken.
        """
        if not units:
            return
        records = np.concatenate(units)
        owners = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
        unfinished: list[torch.Tensor] | None = None
        clipped_units = 0
        for start in range(0, len(records), self._physical_batch_size):
            stop = min(start + self._physical_batch_size, len(records))
            batch = self._collate(records[start:stop])
            gradients = self._per_record_gradients(batch, stop - start)
            gradients = sum_by_owner(gradients, owners[start:stop])
            if unfinished is not None:  # the first unit began in an earlier physical batch
                for gradient, begun in zip(gradients, unfinished, strict=True):
                    gradient[0] += begun
                unfinished = None
            if stop < len(records) and owners[stop] == owners[stop - 1]:
                unfinished = [gradient[-1].clone() for gradient in gradients]
                gradients = [gradient[:-1] for gradient in gradients]
            if len(gradients[0]):
                self._clip_and_add(gradients)
                clipped_units += len(gradients[0])
        if clipped_units != len(units):
            raise TrainingError("not every sampled unit was clipped once; is one without records?")

    def accumulate_evenly(
        self, units: Sequence[NDArray[np.int64]], cost: NDArray[np.int64], work: ConstantWork
    ) -> None:
        """Add the clipped gradients of these units, in the same operations whoever they are.

        Every pass has the same shapes and is clipped like one of as many units as it has rows;
        rows that nobody has are zero. See `privacy.mechanism.constant_work`.

        Args:
            units: Record indices of each unit.
            cost: int64, shape (records,): length of each record.
            work: What to compute.

        Raises:
            TrainingError: As `accumulate`.
            PlanError: A record is longer than declared.
        """
        passes, over = work.step.arrange(units, cost)
        if over:
            work.over(over)
        unfinished = [torch.zeros_like(parameter) for parameter in self._parameters]
        clipped_units = 0
        for one, following in zip_longest(passes, passes[1:]):
            batch = work.collate(one.records, one.length)
            gradients = self._per_record_gradients(batch, len(one.records))
            gradients = sum_in_slots(gradients, one.owners)
            unfinished, ended = hand_on(gradients, unfinished, one.owners, following)
            self._clip_and_add(gradients, at_most=ended, evenly=True)
            clipped_units += ended
        if clipped_units != len(units):
            raise TrainingError("not every sampled unit was clipped once; is one without records?")

    def step(self) -> None:
        """Add noise to the running sum, divide by the expected batch size, and step.

        With nothing accumulated, as in an empty Poisson batch, the step is noise alone, which
        is what the accountant assumes.
        """
        for parameter in self._parameters:
            parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def take_sum(self) -> torch.Tensor:
        """The running clipped sum as one float64 vector, and start anew.

        For the admission gate, and for distributed noise, which rounds it and adds a share. It is
        *not* private: it must never reach anything that leaves the site.
        """
        parts = []
        for parameter in self._parameters:
            summed = parameter.summed_grad
            if summed is None:
                summed = torch.zeros_like(parameter, dtype=torch.float64)
            parts.append(summed.detach().reshape(-1))
            parameter.summed_grad = None
        return torch.cat(parts)

    def _per_record_gradients(self, batch: Any, rows: int) -> list[torch.Tensor]:
        losses = self._loss(self._model, batch)
        if losses.shape != (rows,):
            raise TrainingError(
                f"the loss is a tensor of {losses.dim()} dimensions that does not hold one value "
                "a record, not reduced"
            )
        if self._hooks is None:
            raise TrainingError("gradients are taken inside the context only")
        self._hooks.backward(losses.sum())
        gradients = []
        for parameter in self._parameters:
            gradient = parameter.grad_sample
            if not isinstance(gradient, torch.Tensor) or len(gradient) != rows:
                raise TrainingError("a trainable parameter has no gradient for every record")
            if gradient.dtype is not torch.float32:
                raise TrainingError(f"a gradient has dtype {gradient.dtype}, expected float32")
            gradients.append(gradient)
            parameter.grad_sample = None
            parameter.grad = None
        return gradients

    def _clip_and_add(
        self, gradients: list[torch.Tensor], *, at_most: int | None = None, evenly: bool = False
    ) -> None:
        units = len(gradients[0]) if at_most is None else at_most
        self._optimizer.evenly = evenly
        before = [parameter.summed_grad for parameter in self._parameters]
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.summed_grad, parameter.grad_sample = None, gradient
        self._optimizer.clip_and_accumulate()
        squared = float(torch.stack([p.summed_grad.square().sum() for p in self._parameters]).sum())
        bound = units * self._max_grad_norm * (1.0 + CLIP_TOLERANCE)
        if not squared <= bound**2:  # also refuses NaN
            raise TrainingError("a clipped sum exceeds the norm that its rows can have")
        for parameter, old in zip(self._parameters, before, strict=True):
            parameter.grad_sample = None
            if old is not None:
                parameter.summed_grad += old


class PrivateTrainer:
    """Trains one site's adapter for rounds of a plan.

    Args:
        model: Base model and adapter; exactly the parameters to train require gradients, in
            float32. Every module is set to training mode, so dropout must be 0 (the admission
            gate checks it).
        plan: What to do; see `PrivacyPlan`.
        loss: Per-record loss.
        collate: Record indices to a batch.
        units: Record indices of each unit at this site.
        optimizer: Over the trainable parameters; sees only noised gradients.
        physical_batch_size: Records in memory at once. Cannot touch privacy.
        record_cost: Optional, shape (records,): relative cost of a record (its length). Units
            are processed in the order of it, so that records padded together are alike.
        work: What every step computes, whoever is sampled; needs `record_cost`. None computes what
            was sampled, and no more.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        plan: PrivacyPlan,
        loss: PerRecordLoss,
        collate: Collate,
        units: Sequence[NDArray[np.int64]],
        optimizer: torch.optim.Optimizer,
        physical_batch_size: int,
        record_cost: NDArray[np.int64] | None = None,
        work: ConstantWork | None = None,
    ) -> None:
        if physical_batch_size < 1:
            raise TrainingError(f"physical_batch_size is {physical_batch_size}, expected >= 1")
        self._model = model
        self._plan = plan
        self._units = units
        self._record_cost = record_cost
        self._work = work
        self._clipped_sum = ClippedSum(
            model,
            loss=loss,
            collate=collate,
            optimizer=optimizer,
            max_grad_norm=plan.max_grad_norm,
            noise_stddev=plan.noise_stddev,
            expected_batch_size=plan.expected_batch_size,
            physical_batch_size=physical_batch_size,
        )

    def train_round(self, on_step: Callable[[int], None] | None = None) -> None:
        """Run the plan's `steps_per_round` private steps.

        The caller has charged the round to the ledger before: data are read here.

        Args:
            on_step: Called with the number of finished steps. Local progress only: *when* it is
                called depends on the data.

        Raises:
            TrainingError: A step broke one of its checks. The round is spent; its result must
                not be used.
        """
        buffers = {name: b.clone() for name, b in self._model.named_buffers()}
        trained = {
            n: p.detach().clone() for n, p in self._model.named_parameters() if p.requires_grad
        }
        with self._clipped_sum as clipped_sum:
            for step in range(1, self._plan.steps_per_round + 1):
                accumulate_sample(
                    clipped_sum,
                    self._units,
                    self._plan.sample_rate,
                    cost=self._record_cost,
                    work=self._work,
                )
                clipped_sum.step()
                if on_step is not None:
                    on_step(step)
        for name, buffer in self._model.named_buffers():
            if name in buffers and not torch.equal(buffer, buffers[name]):
                raise TrainingError(f"buffer {name} changed while training: it saw raw data")
        for name, parameter in self._model.named_parameters():
            if name in trained and torch.equal(parameter, trained[name]):
                raise TrainingError(f"parameter {name} did not move in a round: it is not trained")


def accumulate_sample(
    clipped_sum: ClippedSum,
    units: Sequence[NDArray[np.int64]],
    sample_rate: float,
    *,
    cost: NDArray[np.int64] | None,
    work: ConstantWork | None,
) -> None:
    """Draw a step's units and add their clipped gradients.

    Raises:
        TrainingError: The work is to be constant and records have no cost.
    """
    sampled = sampled_units(units, sample_rate, cost)
    if work is None:
        clipped_sum.accumulate(sampled)
    elif cost is None:
        raise TrainingError("constant work needs the length of each record")
    else:
        clipped_sum.accumulate_evenly(sampled, cost, work)


class _SecureNoiseOptimizer(DPOptimizer):  # type: ignore[misc]
    """Opacus's optimizer with clipping in float64 and with this project's noise."""

    def __init__(self, optimizer: torch.optim.Optimizer, **settings: Any) -> None:
        super().__init__(optimizer, loss_reduction="mean", **settings)
        self._source = GaussianSource()
        self.evenly = False  # the same operations, whatever the rows are

    @property
    def accumulated_iterations(self) -> int:
        """1: a step's rows are summed before. Opacus counts over all parameters for each one."""
        return 1

    def clip_and_accumulate(self) -> None:
        """Clip each row over all parameters, and add the rows to `summed_grad`, in float64."""
        rows = [
            gradient.reshape(len(gradient), parameter.numel())
            for parameter, gradient in zip(self.params, self.grad_samples, strict=True)
        ]
        if not len(rows[0]):  # a step's own call: what it has is in the sum already
            for parameter in self.params:
                if parameter.summed_grad is None:
                    parameter.summed_grad = torch.zeros_like(parameter, dtype=torch.float64)
            return
        norms = [torch.linalg.vector_norm(row, dim=1, dtype=torch.float64) for row in rows]
        norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        finite = norm.isfinite()
        # A row that is not finite becomes zero *before* the sum, where it would reach all others.
        everyone = not self.evenly and bool(finite.all())
        factors = self.max_grad_norm / norm.clamp(min=self.max_grad_norm)
        factors = factors.where(finite, torch.zeros_like(factors))
        for parameter, row in zip(self.params, rows, strict=True):
            kept = row.double() if everyone else row.double().where(finite.unsqueeze(1), 0.0)
            added = (factors @ kept).view_as(parameter)
            summed = parameter.summed_grad
            parameter.summed_grad = added if summed is None else summed + added

    def add_noise(self) -> None:
        """Add noise to the sum in float64, then round once to the parameter's dtype."""
        stddev = self.noise_multiplier * self.max_grad_norm
        sizes = [parameter.numel() for parameter in self.params]
        noise = torch.from_numpy(self._source.normal(sum(sizes))).mul_(stddev)
        for parameter, part in zip(self.params, torch.split(noise, sizes), strict=True):
            noised = part.view_as(parameter).to(parameter.device) + parameter.summed_grad
            parameter.grad = noised.to(parameter.dtype)
