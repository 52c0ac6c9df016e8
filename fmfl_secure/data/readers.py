"""Local tables into datasets: a file by its extension, columns and labels by the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import pyarrow as pa

from fmfl_secure.data._lines import read_csv, read_jsonl, read_tsv
from fmfl_secure.data._parquet import read_parquet
from fmfl_secure.data._source import Row, Source, read_bytes
from fmfl_secure.data.errors import (
    DataArgumentError,
    DataError,
    EmptyFileError,
    EmptyTextError,
    MissingColumnError,
    NullUnitError,
    UnknownLabelError,
    UnsupportedFormatError,
)
from fmfl_secure.data.records import TextDataset, grouped_units, record_units

RECORD_UNIT = "record"

_PARSERS: Mapping[str, Callable[[Path, bytes], Source]] = MappingProxyType(
    {".csv": read_csv, ".tsv": read_tsv, ".jsonl": read_jsonl, ".parquet": read_parquet}
)
SUFFIXES = tuple(_PARSERS)


def read_table(path: Path) -> pa.Table:
    """Reads a .csv, .tsv, .jsonl or .parquet file whole; the extension alone decides.

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
    on_bad_row: Literal["error", "skip"] = "error",
) -> TextDataset:
    """Reads labelled texts and groups them into privacy units.

    A bad row is one with an empty or null text, a null or unknown label, a null or empty unit,
    bytes that are not UTF-8, or not the header's columns. With `on_bad_row="error"` the first
    one is refused, which makes failing depend on a unit; private training takes "skip", where
    a bad row costs itself and nothing else. Broken quoting in a CSV file is an error either
    way, as the rows after it cannot be trusted.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file (see `read_table`).
        text_column: Column with the text, or several names of which the first one that is there
            is used: splits of one corpus disagree about it. The columns of a .jsonl file are
            all keys found in it, so name one column there when training privately.
        label_column: Column with the label.
        labels: Every label there may be, in the order of their indices, compared with the file
            as strings, exactly. None takes the distinct values found, sorted: only for data
            declared public, since it reveals them.
        unit: "record" for each row its own unit, or the column whose value names the unit.
        on_bad_row: Refuse the file, or leave the row out and count it in `dataset.skipped`.

    Returns:
        The rows in file order.

    Raises:
        DataError: One of its kinds, with file, row and line; never anything else.
    """
    names = (text_column,) if isinstance(text_column, str) else tuple(text_column)
    _check_arguments(names, labels, on_bad_row)
    source = open_source(path)
    columns = [
        choose_column(source, path, "text_column", names),
        choose_column(source, path, "label_column", (label_column,)),
    ]
    if unit != RECORD_UNIT:
        columns.append(choose_column(source, path, "unit", (unit,)))

    texts: list[str] = []
    label_values: list[str] = []
    unit_values: list[str] = []
    skipped = 0
    known = None if labels is None else frozenset(labels)
    for row in source.rows(columns):
        fault = row.fault or _fault_in(row, columns, known, path)
        if fault is not None:
            if on_bad_row == "error":
                raise fault
            skipped += 1
            continue
        for value, target in zip(row.values, (texts, label_values, unit_values), strict=False):
            target.append(value or "")  # never empty: _fault_in has seen it
    if not texts:
        raise EmptyFileError(
            "every row had to be skipped" if skipped else "the file has a header and no rows",
            hint='read it once with on_bad_row = "error" to see what is wrong with the first row'
            if skipped
            else "check that the export was complete",
            path=path,
        )
    label_names = tuple(sorted(set(label_values))) if labels is None else tuple(labels)
    index_of = {name: index for index, name in enumerate(label_names)}
    return TextDataset(
        texts=tuple(texts),
        labels=np.array([index_of[value] for value in label_values], dtype=np.int64),
        units=record_units(len(texts)) if unit == RECORD_UNIT else grouped_units(unit_values),
        label_names=label_names,
        skipped=skipped,
    )


def open_source(path: Path, data: bytes | None = None) -> Source:
    """Parses a file by its extension.

    Args:
        path: The file; its suffix selects the format, upper or lower case.
        data: Its bytes, where the caller has read them already.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise UnsupportedFormatError(
            f"the extension is {path.suffix!r}; expected one of {', '.join(SUFFIXES)}",
            hint="convert the file, or give it the extension of what it is",
            path=path,
        )
    return parse(path, read_bytes(path) if data is None else data)


def choose_column(source: Source, path: Path, argument: str, names: Sequence[str]) -> str:
    """Returns the first of `names` that is a column of the file."""
    for name in names:
        if name in source.columns:
            return name
    raise MissingColumnError(
        f"there is no column {' or '.join(map(repr, names))}; "
        f"the columns are {', '.join(map(repr, source.columns)) or 'none'}",
        hint=f"set {argument} to one of them",
        path=path,
    )


def _check_arguments(names: Sequence[str], labels: Sequence[str] | None, on_bad_row: str) -> None:
    if not names:
        raise DataArgumentError(
            "text_column names no column", hint="give one name, or several alternatives"
        )
    if on_bad_row not in {"error", "skip"}:
        raise DataArgumentError(f'on_bad_row is {on_bad_row!r}; expected "error" or "skip"')
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
            hint="each label's place in the list is its index",
        )


def _fault_in(
    row: Row, columns: Sequence[str], known: frozenset[str] | None, path: Path
) -> DataError | None:
    """What is wrong with the values of a row that parsed well; None for nothing."""
    text, label = row.values[:2]
    if text is None or not text.strip():
        return EmptyTextError(
            f"the text in column {columns[0]!r} is {'null' if text is None else 'empty'}",
            hint='remove the row, or set on_bad_row = "skip"',
            path=path,
            row=row.number,
            line=row.line,
        )
    if not label or (known is not None and label not in known):
        expected = "a label" if known is None else f"one of {', '.join(map(repr, sorted(known)))}"
        return UnknownLabelError(
            f"the label in column {columns[1]!r} is {'not known' if label else 'missing'}; "
            f"expected {expected}, exactly as written here",
            hint="check the row for shifted columns, spaces and case; complete the configured "
            'labels, or set on_bad_row = "skip"',
            path=path,
            row=row.number,
            line=row.line,
        )
    if len(columns) > 2 and not row.values[2]:
        return NullUnitError(
            f"the privacy unit in column {columns[2]!r} is missing",
            hint="every row must say whose it is, or the budget cannot protect that person; "
            'complete the column, or set on_bad_row = "skip"',
            path=path,
            row=row.number,
            line=row.line,
        )
    return None
