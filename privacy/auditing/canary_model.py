"""Canaries in a model: what they are, where they lie, and the records that carry them.

A canary is a unit whose gradient is one coordinate of the trained parameters, at norm C. Its
records run through the model like any others, and each adds to its loss one output of one
trainable linear layer, called with an input that has a single non-zero value: the per-record
gradient that the hooks compute is that one weight, so large that clipping leaves all but nothing
besides it.

Canaries lie in the model's own trained layers, so it is the noise on *these* that is measured.
Those that find no room there get a spare layer beside the model.

`auditing.canaries` builds one for an audit: `with_canaries` makes the task's loss add what a
canary adds, `CanaryData` holds the records, and `AuditedModel` says where each canary lies.
`fmfl_secure.audit` brings the model and the made-up records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from privacy.errors import AuditError
from privacy.mechanism.training import Collate, PerRecordLoss

# A canary's gradient over the larger of C and 1, before clipping: whatever else is in its records'
# gradients shrinks by as much. The layer's input is a part of it, by which a bias shrinks.
_STRENGTH = 1e6
_INPUT = 1e4


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


@dataclass(slots=True)
class _CanaryBatch:
    """A batch of the task, and which canary each record belongs to: int64, shape (b,), or -1."""

    inner: Any
    canaries: torch.Tensor


def with_canaries(loss: PerRecordLoss) -> PerRecordLoss:
    """The task's loss, to which a canary's records add their own; for an `AuditedModel`."""

    def planted(model: nn.Module, batch: _CanaryBatch) -> torch.Tensor:
        if not isinstance(model, AuditedModel):
            raise AuditError("canaries were planted in a model that has no room for them")
        own = loss(model.inner, batch.inner)
        return own + model.plant(batch.canaries)

    return planted


class CanaryData:
    """Background records first, one unit each, then the records of canary 0, 1, 2, ...

    A canary's records are copies of the cheapest quarter of the background's: what they say does
    not matter, and short ones cost a fraction of the time.
    """

    def __init__(self, records: SyntheticRecords, canaries: int, records_per_canary: int) -> None:
        count = len(records.cost)
        cheap = np.argsort(records.cost, kind="stable")[: max(1, count // 4)]
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
        """Indices of a canary's records."""
        first = len(self.background) + canary * self._each
        return np.arange(first, first + self._each, dtype=np.int64)

    def collate(self, indices: NDArray[np.int64]) -> _CanaryBatch:
        """The task's batch of these records, and whose each is."""
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


class AuditedModel(nn.Module):
    """A model, and where its canaries lie.

    Attributes:
        own_canaries: Those that lie in the model's own layers; the others have a spare layer.
        trained: All that requires gradients, the spare layer included.
        size: Values in them.
    """

    def __init__(self, inner: nn.Module, canaries: int, *, max_grad_norm: float) -> None:
        super().__init__()
        self.inner = inner
        self._strength = _STRENGTH * max(max_grad_norm, 1.0)
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
        self.size = sum(p.numel() for p in self.trained)

    def plant(self, canaries: torch.Tensor) -> torch.Tensor:
        """Returns what each record's canary adds to its loss, shape (b,): zero for -1."""
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
