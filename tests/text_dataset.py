"""Labelled texts by the product's readers, in one value that tests compare."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.data import OnBadRow, label_field, read_records, text_field
from fmfl_secure.settings.types import UnitRule


@dataclass(frozen=True)
class TextDataset:
    texts: tuple[str, ...]
    labels: NDArray[np.int64]  # indices into label_names
    units: tuple[NDArray[np.int64], ...]
    label_names: tuple[str, ...]
    skipped: int

    def __len__(self) -> int:
        return len(self.texts)


def read_text_dataset(
    path: Path,
    *,
    text_column: str | Sequence[str],
    label_column: str,
    labels: Sequence[str] | None,
    unit: str = "record",
    unit_rules: Collection[UnitRule] = (),
    on_bad_row: OnBadRow = "error",
) -> TextDataset:
    names = (text_column,) if isinstance(text_column, str) else tuple(text_column)
    fields = (
        text_field("text_column", names),
        label_field("label_column", label_column, labels),
    )
    records = read_records(path, fields, unit=unit, unit_rules=unit_rules, on_bad_row=on_bad_row)
    texts, found = records.columns
    known = tuple(sorted(set(found))) if labels is None else tuple(labels)
    indices = np.array([known.index(each) for each in found], dtype=np.int64)
    return TextDataset(tuple(texts), indices, records.units, known, records.left_out.count)
