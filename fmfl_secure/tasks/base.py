"""The interface of a kind of work: classification, language modelling and others.

Privacy and aggregation never see more of a task than this: per-record losses, batches by record
index, and units. A new task is a new file here and touches neither. `adapter_task` implements it
for all kinds; `signal` and the bench of a `large` decoder take any that does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.data import Field, LeftOut, PictureCheck
from fmfl_secure.measures import Outcomes
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.layout import Layout

if TYPE_CHECKING:
    from fmfl_secure.tasks.responses import WithEachResponse


@dataclass(frozen=True, slots=True, repr=False)
class TaskData:
    """One data set, ready to train on or to evaluate with. Private: has no useful repr.

    Attributes:
        collate: int64 record indices, shape (b,), to a batch the task's loss understands.
        units: Record indices of each unit.
        record_cost: int64, shape (records,): relative cost of each record, for batching.
        labels: int64, shape (records,), or empty where the task has none, or not every record.
        label_sets: float32, shape (records, labels): 1 where a label holds; empty where a record
            has one label, or none.
        words: For each record, the token that answers for each of its words, -1 where none does;
            empty where a task does not answer word by word.
        tags: Each record's tags by word, where the task has them.
        pooled: How many units each of the files has, in order, where several were read as one.
        left_out: Rows of the data that are not among the records. Local only.
        shortened: Records whose text is longer than the model reads, and was cut. Local only.
        unread: Records of which the tokenizer knows less than half of the tokens. Local only.
        lengths: Tokens of each record's whole text, also of what was cut off, int64, shape
            (records,); empty where there is no text.
        answered: The records with each declared response in place of their own; None where none
            is declared.
        ids: Of the units, in their order; empty where a record is one.
        groups: The declared subgroup that each record is in, int64, shape (records,), -1 for none;
            empty where no column is read for it.
        held_out: Whether each unit is set apart from training, bool, shape (units,); empty where
            none is.
    """

    collate: Callable[[NDArray[np.int64]], Any]
    units: Sequence[NDArray[np.int64]]
    record_cost: NDArray[np.int64]
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    label_sets: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, 0), dtype=np.float32)
    )
    words: Sequence[NDArray[np.int64]] = ()
    tags: Sequence[Sequence[int]] = ()
    pooled: tuple[int, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)
    shortened: int = 0
    unread: int = 0
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    answered: WithEachResponse | None = None
    ids: Sequence[str] = ()
    groups: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    held_out: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))

    @property
    def records(self) -> int:
        """Number of records. Local only."""
        return len(self.record_cost)

    def to_train(self) -> TaskData:
        """The same without the units that are set apart: no gradient sees these."""
        if not len(self.held_out):
            return self
        kept = np.flatnonzero(~self.held_out).tolist()
        return replace(
            self,
            units=[self.units[unit] for unit in kept],
            ids=[self.ids[unit] for unit in kept] if self.ids else (),
            pooled=(),
            held_out=np.empty(0, dtype=np.bool_),
        )

    @property
    def said_of_held_out(self) -> str:
        """How many units are set apart, for the site's own people; empty where none can be."""
        if not len(self.held_out):
            return ""
        apart = int(self.held_out.sum())
        return f"{apart:,} of {len(self.units):,} units are set apart, and never trained on"

    @property
    def said_of_unread(self) -> str:
        """How many texts the tokenizer does not know, for the site's own people; or nothing."""
        if not self.unread:
            return ""
        return (
            f"{self.unread:,} of {self.records:,} records are next to nothing to the model: its "
            "tokenizer knows less than half of their tokens. Are they in its language, and in its "
            "case?"
        )

    def only(self, records: NDArray[np.int64]) -> TaskData:
        """Some records as a data set of their own, each its own unit.

        Args:
            records: Which, int64, shape (n,).
        """
        return TaskData(
            collate=lambda chosen: self.collate(records[chosen]),
            answered=None if self.answered is None else self.answered.only(records),
            units=one_unit_each(len(records)),
            record_cost=self.record_cost[records],
            labels=self.labels[records] if len(self.labels) else self.labels,
            label_sets=self.label_sets[records] if len(self.label_sets) else self.label_sets,
            words=[self.words[record] for record in records] if len(self.words) else (),
            tags=[self.tags[record] for record in records] if len(self.tags) else (),
            groups=self.groups[records] if len(self.groups) else self.groups,
            lengths=self.lengths[records] if len(self.lengths) else self.lengths,
        )

    def by_cost(self, batch_size: int) -> list[NDArray[np.int64]]:
        """Records in batches of alike cost, which pads least."""
        order = np.argsort(self.record_cost, kind="stable").astype(np.int64)
        return [order[start : start + batch_size] for start in range(0, self.records, batch_size)]

    def __repr__(self) -> str:
        return "TaskData(<private>)"


class Task(Protocol):
    """One kind of work on one base model with one adapter."""

    @property
    def kind(self) -> str:
        """The name that settings use."""
        ...

    @property
    def base(self) -> BaseModel:
        """The base model, found and digested."""
        ...

    @property
    def distinct_rounds(self) -> tuple[int, ...]:
        """One round of each sort that differs in what it trains."""
        ...

    @property
    def own_parts_of(self) -> str:
        """The run whose sites' own parts each goes on from; empty where none kept any."""
        ...

    def build_model(self, *, seed: int) -> nn.Module:
        """A model with a fresh adapter from a public seed, ready for the first round."""
        ...

    def begin_round(self, model: nn.Module, round_number: int) -> Layout:
        """Make trainable what a round trains; returns the layout of what it uploads."""
        ...

    def check_source(self, path: Path, *, unit: str, subgroups: Field | None = None) -> None:
        """Require of local data what can be known before a charge."""
        ...

    def check_pictures(self, path: Path, *, unit: str) -> PictureCheck:
        """Reads local pictures, unusable ones left out, and counts them; none of other data."""
        ...

    def said_of(self, data: TaskData) -> tuple[str, ...]:
        """How a site's data were read, in sentences for the site alone."""
        ...

    def load(
        self,
        path: Path,
        *,
        unit: str,
        on_bad_row: Literal["error", "skip"] = "error",
        subgroups: Field | None = None,
    ) -> TaskData:
        """Read and prepare local data, with the field of a declared subgroup beside."""
        ...

    def load_pooled(
        self,
        paths: Sequence[Path],
        *,
        unit: str,
        on_bad_row: Literal["error", "skip"] = "error",
        subgroups: Field | None = None,
    ) -> TaskData:
        """Several sites' data as if one had them all: for comparison, on public data."""
        ...

    def load_inputs(self, path: Path) -> TaskData:
        """Read and prepare data to predict for, without what is to be predicted."""
        ...

    def synthetic(self) -> TaskData:
        """A few records made up, of mixed and extreme lengths, for the admission gate."""
        ...

    def per_record_loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """One loss a record, shape (b,), each a function of that record alone."""
        ...

    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """The field's metrics; higher is better for the first one."""
        ...

    def outcomes(self, model: nn.Module, data: TaskData, *, batch_size: int) -> Outcomes:
        """Runs a model on each record, for the task's measures. Private."""
        ...

    def predict(
        self, model: nn.Module, inputs: TaskData, *, batch_size: int
    ) -> list[dict[str, Any]]:
        """One JSON-ready answer for each record, in order."""
        ...

    def save_adapter(self, model: nn.Module, folder: Path) -> None:
        """Write the adapter in PEFT's form, and whatever the task needs besides."""
        ...

    def open_adapter(self, folder: Path, *, personal: Path | None = None) -> nn.Module:
        """Open what `save_adapter` wrote, for inference; with a site's own parts, if any are."""
        ...


def one_unit_each(records: int) -> list[NDArray[np.int64]]:
    """Every record its own unit."""
    return [np.array([i], dtype=np.int64) for i in range(records)]
