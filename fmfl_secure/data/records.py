"""Texts, labels and privacy units in memory: what a reader returns and training takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fmfl_secure.data.errors import DataArgumentError

IndexArray: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class TextDataset:
    """Labelled texts of one site, grouped into privacy units.

    Everything here is private: texts, labels, and how many there are of anything. `repr` shows
    none of it, and no value here belongs in a log line, a metric or a message.

    Attributes:
        texts: n texts, as in the file, not stripped and not normalised.
        labels: (n,) int64, read-only; each an index into `label_names`.
        units: One read-only int64 array of record indices per privacy unit. Together they hold
            every index in range(n) exactly once, and none is empty.
        label_names: The labels as the configuration orders them.
        skipped: Rows left out under `on_bad_row="skip"`. Stays at the site.
    """

    texts: tuple[str, ...]
    labels: IndexArray
    units: tuple[IndexArray, ...]
    label_names: tuple[str, ...]
    skipped: int = 0

    def __post_init__(self) -> None:
        n = len(self.texts)
        if self.labels.dtype != np.int64 or self.labels.shape != (n,):
            raise DataArgumentError(
                f"labels have dtype {self.labels.dtype} and {self.labels.ndim} dimension(s); "
                "expected int64, one per text"
            )
        if n and (int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.label_names)):
            raise DataArgumentError("a label is not an index into label_names")
        members = np.concatenate(self.units) if self.units else np.empty(0, dtype=np.int64)
        if (
            members.dtype != np.int64
            or not np.array_equal(np.sort(members), np.arange(n))
            or not all(unit.size for unit in self.units)
        ):
            raise DataArgumentError(
                "units must be non-empty int64 arrays that hold every record index exactly once"
            )
        # A changed label or unit would go unnoticed by whoever drew the sampling rate from them.
        self.labels.setflags(write=False)
        for unit in self.units:
            unit.setflags(write=False)

    def __len__(self) -> int:
        return len(self.texts)

    def __repr__(self) -> str:
        return "TextDataset(<private>)"


def record_units(n: int) -> tuple[IndexArray, ...]:
    """Returns n units of one record each."""
    return tuple(np.arange(n, dtype=np.int64).reshape(n, 1))


def grouped_units(values: Sequence[str]) -> tuple[IndexArray, ...]:
    """Groups record indices by value.

    Args:
        values: The unit column, one value per record.

    Returns:
        One int64 array of ascending indices per distinct value, in order of first appearance.
    """
    groups: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return tuple(np.array(indices, dtype=np.int64) for indices in groups.values())
