"""The gate before the first private step: has this model, with this loss, the sensitivity C?

Opacus's own validator looks at module types. It raised nothing on any of the configurations
that later broke the bound (batch-coupled losses, tied embeddings, token means), so this gate
*measures*, on synthetic records, with random non-zero adapters and heads:

1. no module is of a kind known to break it (`privacy.mechanism.unsupported` lists them),
2. every trainable parameter receives a gradient,
3. the batched, clipped sum equals the sum of gradients taken one record at a time by autograd,
4. removing any one unit moves the sum by at most C,
5. a unit of several records, spread over physical batches, is clipped once,
6. a unit whose gradient is not finite contributes zero and disturbs no other.

It is a test and not a proof; the trainer checks every step besides.

Weights may grow so large that float32 no longer keeps records apart: how a product rounds depends
on the shape of its batch, and a network that is steep enough makes another gradient of that. So
`check_apart` measures the third property once more, of the weights that a round starts from.

A site's training calls `check_admission` through `privacy.training` before its first private step,
and `check_apart` before it takes part in a round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.errors import AdmissionError, TrainingError
from privacy.mechanism.training import ClippedSum, Collate, PerRecordLoss
from privacy.mechanism.unsupported import refuse_unsupported

# float32 sums over padded batches agree to about 1e-6; coupled losses miss by 10 % and more.
_TOLERANCE = 1e-3

_PER_RECORD = (
    "Losses must be per record: for sequences a mean over each one's own tokens, not over the "
    "batch's; for pairs a score against fixed, public candidates, not against the other records."
)

# How hooks and autograd fail on a model that they do not support, in so many ways: DoRA is a
# TypeError, a parameter outside a layer an AttributeError, an operation in place a RuntimeError.
_FAILURES = (TrainingError, RuntimeError, TypeError, AttributeError, ValueError, IndexError)


def check_admission(
    model: nn.Module,
    *,
    loss: PerRecordLoss,
    collate: Collate,
    records: int,
    physical_batch_size: int,
) -> None:
    """Measure the six properties above; the model's parameters are restored afterwards.

    Args:
        model: As it will be trained.
        loss: As it will be trained with.
        collate: Indices of *synthetic* records, 0 to records - 1, of mixed and extreme lengths.
        records: How many there are, at least 4.
        physical_batch_size: As it will be trained with; also tried at 3, so that batches split.

    Raises:
        AdmissionError: One of the properties does not hold; names the one and the module or
            parameter where it can.
    """
    if records < 4:
        raise AdmissionError(f"the gate got {records} synthetic records, expected at least 4")
    refuse_unsupported(model)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise AdmissionError("no parameter is trainable")
    require_loss(model, loss=loss, collate=collate, records=records)
    saved = {name: p.detach().clone() for name, p in trainable.items()}
    try:
        _randomise(trainable)
        _measure(model, trainable, loss, collate, records, physical_batch_size)
    except _FAILURES as error:
        raise AdmissionError(
            f"per-record gradients do not work on this model: {type(error).__name__}: {error}",
            hint="Train ordinary Linear, Embedding and norm layers, as LoRA on Linear layers does.",
        ) from error
    finally:
        with torch.no_grad():
            for name, parameter in trainable.items():
                parameter.copy_(saved[name])


def check_apart(
    model: nn.Module,
    *,
    loss: PerRecordLoss,
    collate: Collate,
    records: int,
    physical_batch_size: int,
    max_grad_norm: float,
) -> None:
    """Measure that records do not change each other's gradients, at the weights as they are.

    They are computed alone and together. Reads no data, and leaves the weights as they were.

    Args:
        model: With the weights that are trained on, and what is trained requiring gradients.
        loss: As it will be trained with.
        collate: Indices of *synthetic* records to a batch, of mixed and extreme lengths.
        records: How many there are.
        physical_batch_size: As it will be trained with: no more of them are in memory at once.
        max_grad_norm: Clipping bound C.

    Raises:
        AdmissionError: They do: removing one unit may move the sum by more than the plan charges.
    """
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    everyone = [np.array([record], dtype=np.int64) for record in range(records)]
    path = _path(model, trainable, loss, collate, max_grad_norm, physical_batch_size)
    with path:
        path.accumulate(everyone)
        moved = path.take_sum()
        for one in everyone:
            path.accumulate([one])
            moved -= path.take_sum()
    found = float(moved.norm()) / max_grad_norm
    if not found <= _TOLERANCE:
        raise AdmissionError(
            f"at the weights that this round starts from, {records} records computed together give "
            f"another sum than one by one, by {found:.3f} C, expected at most {_TOLERANCE} C: the "
            "weights are so large that gradients hang on how float32 rounds",
            hint="Lower training.learning_rate, or start from another adapter.",
        )


def require_loss(model: nn.Module, *, loss: PerRecordLoss, collate: Collate, records: int) -> None:
    """Require that a model can read synthetic records at all, whatever is trained on them then.

    Args:
        model: As it will be trained.
        loss: One loss per record.
        collate: Makes a batch of the synthetic records from their indices.
        records: How many there are.

    Raises:
        AdmissionError: It makes no loss of them.
    """
    try:
        with torch.no_grad():
            loss(model, collate(np.arange(records)))
    except _FAILURES as error:
        raise AdmissionError(
            f"the model makes no loss of a synthetic record: {type(error).__name__}: {error}",
            hint="Check that its configuration, tokenizer and image processor go together.",
        ) from error


def _randomise(trainable: dict[str, nn.Parameter]) -> None:
    generator = torch.Generator().manual_seed(20260101)
    with torch.no_grad():
        for parameter in trainable.values():
            value = torch.randn(parameter.shape, generator=generator) * 0.05
            parameter.copy_(value.to(parameter.device, parameter.dtype))


def _measure(
    model: nn.Module,
    trainable: dict[str, nn.Parameter],
    loss: PerRecordLoss,
    collate: Collate,
    records: int,
    physical_batch_size: int,
) -> None:
    single = [_autograd_gradient(model, trainable, loss, collate, i) for i in range(records)]
    _check_every_parameter_learns(trainable, single)
    norms = torch.stack([g.norm() for g in single])
    # A bound between the norms: some records are clipped and some are not.
    max_grad_norm = float(norms.median())
    if not 0.0 < max_grad_norm < float("inf"):
        raise AdmissionError(
            "half of the synthetic records or more have a gradient that is zero or not finite: "
            "they measure nothing"
        )
    everyone = [np.array([i], dtype=np.int64) for i in range(records)]

    def clipped_sum(
        units: list[NDArray[np.int64]], batch: int, with_loss: PerRecordLoss = loss
    ) -> torch.Tensor:
        return _clipped_sum(model, trainable, with_loss, collate, units, max_grad_norm, batch)

    def close(left: torch.Tensor, right: torch.Tensor) -> bool:
        return float((left - right).norm()) <= _TOLERANCE * max_grad_norm * records

    expected = torch.stack([_clip(g, max_grad_norm) for g in single]).sum(dim=0)
    for batch in {3, physical_batch_size}:
        total = clipped_sum(everyone, batch)
        if not close(total, expected):
            raise AdmissionError(
                "the batched sum of clipped gradients differs from the one taken record by record "
                f"by {float((total - expected).norm() / max_grad_norm):.3f} C: "
                "a loss or a module couples the records of a batch",
                hint=_PER_RECORD,
            )
    for left_out in range(records):
        rest = clipped_sum(everyone[:left_out] + everyone[left_out + 1 :], physical_batch_size)
        moved = float((expected - rest).norm()) / max_grad_norm
        if moved > 1.0 + _TOLERANCE * records:
            raise AdmissionError(
                f"removing one unit moves the clipped sum by {moved:.3f} C, expected at most C",
                hint=_PER_RECORD,
            )
    grouped = [np.arange(records - 1, dtype=np.int64), np.array([records - 1], dtype=np.int64)]
    expected_grouped = _clip(torch.stack(single[:-1]).sum(dim=0), max_grad_norm) + _clip(
        single[-1], max_grad_norm
    )
    if not close(clipped_sum(grouped, 3), expected_grouped):
        raise AdmissionError("a unit of several records is not clipped once over its own sum")
    damaged = clipped_sum(everyone, records, _with_infinite_first(loss))
    if not close(damaged, expected - _clip(single[0], max_grad_norm)):
        raise AdmissionError(
            "a unit with a gradient that is not finite disturbs the others", hint=_PER_RECORD
        )


def _autograd_gradient(
    model: nn.Module,
    trainable: dict[str, nn.Parameter],
    loss: PerRecordLoss,
    collate: Collate,
    record: int,
) -> torch.Tensor:
    model.train()
    losses = loss(model, collate(np.array([record], dtype=np.int64)))
    if losses.shape != (1,):
        raise AdmissionError(
            f"the loss of one record has shape {tuple(losses.shape)}, not (1,)", hint=_PER_RECORD
        )
    # backward() and not grad(), which reentrant checkpointing does not support.
    torch.autograd.backward(losses.sum())
    gradients = [parameter.grad for parameter in trainable.values()]
    for parameter in trainable.values():
        parameter.grad = None
    unused = [n for n, g in zip(trainable, gradients, strict=True) if g is None]
    if unused:
        raise AdmissionError(f"parameter {unused[0]} is trainable but the loss does not use it")
    return torch.cat([g.reshape(-1) for g in gradients if g is not None])


def _check_every_parameter_learns(
    trainable: dict[str, nn.Parameter], gradients: list[torch.Tensor]
) -> None:
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        raise AdmissionError(
            "a gradient of a synthetic record is not a finite number: so is a weight of the base "
            "model, or its loss",
            hint="Fetch the base model's weights again, and see whether they hold NaN or infinity.",
        )
    largest = torch.stack(gradients).abs().amax(dim=0)
    start = 0
    for name, parameter in trainable.items():
        if not bool((largest[start : start + parameter.numel()] > 0).any()):
            raise AdmissionError(f"parameter {name} is trainable but its gradient is always zero")
        start += parameter.numel()


def _clip(gradient: torch.Tensor, max_grad_norm: float) -> torch.Tensor:
    return gradient.double() * (max_grad_norm / max(float(gradient.norm()), max_grad_norm))


def _clipped_sum(
    model: nn.Module,
    trainable: dict[str, nn.Parameter],
    loss: PerRecordLoss,
    collate: Collate,
    units: list[NDArray[np.int64]],
    max_grad_norm: float,
    physical_batch_size: int,
) -> torch.Tensor:
    path = _path(model, trainable, loss, collate, max_grad_norm, physical_batch_size)
    with path:
        path.accumulate(units)
        return path.take_sum()


def _path(
    model: nn.Module,
    trainable: dict[str, nn.Parameter],
    loss: PerRecordLoss,
    collate: Collate,
    max_grad_norm: float,
    physical_batch_size: int,
) -> ClippedSum:
    return ClippedSum(
        model,
        loss=loss,
        collate=collate,
        optimizer=torch.optim.SGD(list(trainable.values()), lr=0.0),
        max_grad_norm=max_grad_norm,
        noise_stddev=max_grad_norm,
        expected_batch_size=1.0,
        physical_batch_size=physical_batch_size,
    )


def _with_infinite_first(loss: PerRecordLoss) -> Callable[[nn.Module, Any], torch.Tensor]:
    def damaged(model: nn.Module, batch: Any) -> torch.Tensor:
        losses = loss(model, batch)
        scale = torch.ones_like(losses)
        scale[0] = float("inf")
        return losses * scale

    return damaged
