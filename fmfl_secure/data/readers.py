"""Local tables into datasets: a file by its extension, columns and labels by the configuration."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fmfl_secure.data.errors import DataArgumentError
from fmfl_secure.data.fields import (
    RECORD_UNIT,
    OnBadRow,
    label_field,
    read_records,
    text_field,
)
from fmfl_secure.data.formats.registry import open_source
from fmfl_secure.data.records import TextDataset
from fmfl_secure.settings.types import UnitRule


def read_table(path: Path) -> pa.Table:
    """Reads a table of any form in `FORMATS` whole; its name alone decides which.

    Columns of the text formats are all strings, as written: no type is inferred, an empty CSV
    or TSV field is the empty string, and a JSON value that is not a string is its JSON text.
    Parquet keeps its own types.

    A TSV file is quoted if its header's first field is quoted; otherwise a quotation mark in it
    is a character like any other.

    Args:
        path: The file; UTF-8, with or without a byte-order mark, any line terminators.

    Returns:
        The table, rows in file order.

    Raises:
        DataError: The file or one of its rows cannot be read.
    """
    return open_source(path).table()


def read_text_dataset(
    path: Path,
    *,
    text_column: str | Sequence[str],
    label_column: str,
    labels: Sequence[str] | None,
    unit: str = RECORD_UNIT,
    unit_rules: Collection[UnitRule] = (),
    on_bad_row: OnBadRow = "error",
) -> TextDataset:
    """Reads labelled texts and groups them into privacy units.

    A bad row is one with an empty or null text, a null or unknown label, a unit that names nobody,
    bytes that are not UTF-8, or not the header's columns. With `on_bad_row="error"` the first
    one is refused, which makes failing depend on a unit; private training takes "skip", where
    a bad row costs itself and nothing else. Broken quoting in a CSV file is an error either
    way, as the rows after it cannot be trusted.

    Args:
        path: A table (see `read_table`).
        text_column: Column with the text, or several names of which the first one that is there
            is used: splits of one corpus disagree about it. The columns of a .jsonl file are
            all keys found in it, so name one column there when training privately.
        label_column: Column with the label.
        labels: Every label there may be, in the order of their indices, compared with the file
            as strings, exactly. None takes the distinct values found, sorted: only for data
            declared public, since it reveals them.
        unit: "record" for each row its own unit, or the column whose value names the unit.
        unit_rules: Which differences between units' ids are of no account besides.
        on_bad_row: Refuse the file, or leave the row out and count it in `dataset.skipped`.

    Returns:
        The rows in file order.

    Raises:
        DataError: One of its kinds, with file, row and line; never anything else.
    """
    names = (text_column,) if isinstance(text_column, str) else tuple(text_column)
    _check_arguments(names, labels)
    fields = (
        text_field("text_column", names),
        label_field("label_column", label_column, labels),
    )
    records = read_records(path, fields, unit=unit, unit_rules=unit_rules, on_bad_row=on_bad_row)
    texts, label_values = records.columns
    label_names = tuple(sorted(set(label_values))) if labels is None else tuple(labels)
    index_of = {name: index for index, name in enumerate(label_names)}
    return TextDataset(
        texts=tuple(texts),
        labels=np.array([index_of[value] for value in label_values], dtype=np.int64),
        units=records.units,
        label_names=label_names,
        skipped=records.left_out.count,
    )


def _check_arguments(names: Sequence[str], labels: Sequence[str] | None) -> None:
    if not names:
        raise DataArgumentError(
            "text_column names no column", hint="give one name, or several alternatives"
        )
    if labels is None:
        return
    if (
        isinstance(labels, str)
        or not labels
        or not all(isinstance(label, str) and label for label in labels)
    ):
        raise DataArgumentError(
            f"labels is {labels!r}; expected a non-empty list of non-empty strings",
            hint='quote numbers: labels = ["0", "1"]',
        )
    if len(set(labels)) != len(labels):
        raise DataArgumentError(
            f"labels is {list(labels)!r}; expected no label twice",
            hint="name each label once: its place in the list is its index",
        )
