"""What a kind of work (classification, language modelling, ...) has to provide.

Privacy and aggregation never see more of a task than this: per-record losses, batches by record
index, and units. A new task is a new file here and touches neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.models.base import BaseModel


@dataclass(frozen=True, slots=True, repr=False)
class TaskData:
    """One data set, ready to train on or to evaluate with. Private: has no useful repr.

    Attributes:
        collate: int64 record indices, shape (b,), to a batch the task's loss understands.
        units: Record indices of each unit.
        record_cost: int64, shape (records,): relative cost of each record, for batching.
        labels: int64, shape (records,), or empty where the task has none.
    """

    collate: Callable[[NDArray[np.int64]], Any]
    units: Sequence[NDArray[np.int64]]
    record_cost: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def records(self) -> int:
        """Number of records. Local only."""
        return len(self.record_cost)

    def __repr__(self) -> str:
        return "TaskData(<private>)"


class Task(Protocol):
    """One kind of work on one base model with one adapter."""

    @property
    def kind(self) -> str:
        """Its name in settings."""
        ...

    @property
    def base(self) -> BaseModel:
        """The base model, found and digested."""
        ...

    def build_model(self, *, seed: int) -> nn.Module:
        """A model with a fresh adapter from a public seed; trainable is what gets uploaded."""
        ...

    def load(
        self, path: Path, *, unit: str, on_bad_row: Literal["error", "skip"] = "error"
    ) -> TaskData:
        """Read and prepare a local file."""
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

    def save_adapter(self, model: nn.Module, folder: Path) -> None:
        """Write the adapter in PEFT's form, and whatever the task needs besides."""
        ...

    def open_adapter(self, folder: Path) -> nn.Module:
        """Open what `save_adapter` wrote, for inference."""
        ...
