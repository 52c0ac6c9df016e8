"""Columns of a table as fields of records: read, checked one value at a time, grouped into units.

A field says what a good value is; everything else, from the row's number in a refusal to what
happens with a bad row, is the same for every kind of data.

Tasks call `read_records` with the fields that they need (`tasks.adapter_task`): the form of the
data opens the file, columns are chosen by name, every row is read and counted, and what is left is
grouped into units.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from fmfl_secure.data._source import SCALARS, CellKind, Row, Source, UnusableValue
from fmfl_secure.data.errors import (
    DataArgumentError,
    DataError,
    EmptyFileError,
    EmptyTextError,
    MissingColumnError,
    UnknownLabelError,
)
from fmfl_secure.data.formats.registry import open_source
from fmfl_secure.data.left_out import LeftOut, Tally, label_sort, pool_left_out
from fmfl_secure.data.records import IndexArray, grouped_units, record_units
from fmfl_secure.data.stored import HeldAs, StoredText
from fmfl_secure.data.unit_ids import unit_id
from fmfl_secure.outside import is_folder
from fmfl_secure.settings.types import UnitRule
from privacy import plain

RECORD_UNIT = "record"
MAX_TEXT = 1 << 24  # characters; a model reads some thousands, and what it is cut from takes memory
OnBadRow = Literal["error", "skip"]
_OR_SKIP = ', or set on_bad_row = "skip"'  # which is of no use where every row was skipped
# What the file holds in place of a text.
_HELD: Mapping[HeldAs, str] = MappingProxyType(
    {
        "number": "number",
        "float": "number",
        "structure": "list or object",
        "truth": "true or false",
        "time": "date or time",
        "picture": "picture",
    }
)
# What programs write of a missing text; a note may well say "none" among other words.
_NO_TEXT = frozenset({"nan", "<na>", "null", "(null)", "none", "nat"})


@dataclass(frozen=True, slots=True)
class Field:
    """One thing to know of every record.

    Attributes:
        argument: The setting that names its column, for refusals.
        names: Names the column may have, the first one present is read.
        parse: A value, None for null, and its column's name to what the record holds. Raises
            `UnusableValue`.
        takes: What the column's cells may hold, where the file's header says it.
        values: All that a good cell may read as; None where that is no list.
        is_picture: Whether a cell holds a picture, by what it holds alone; raises `UnusableValue`
            for one of a form that is not read here. None where the column holds something else.
    """

    argument: str
    names: tuple[str, ...]
    parse: Callable[[str | None, str], Any]
    takes: tuple[CellKind, ...] = SCALARS
    values: frozenset[str] | None = None
    is_picture: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Records:
    """A site's records. Private: has no useful repr.

    Attributes:
        columns: For each field, one parsed value a record.
        units: One int64 array of record indices per privacy unit.
        left_out: Rows left out under `on_bad_row="skip"`. Stays at the site.
        ids: Of the units, in their order, as `unit_id` gives them; empty where a record is one.
        beside: One parsed value a record of a field that was read beside; empty without one.
    """

    columns: tuple[list[Any], ...]
    units: tuple[IndexArray, ...]
    left_out: LeftOut
    ids: tuple[str, ...] = ()
    beside: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return sum(len(unit) for unit in self.units)

    def __repr__(self) -> str:
        return "Records(<private>)"


def read_records(
    path: Path,
    fields: Sequence[Field],
    *,
    unit: str = RECORD_UNIT,
    unit_rules: Collection[UnitRule] = (),
    on_bad_row: OnBadRow = "error",
    check: Callable[[Sequence[Any]], None] | None = None,
    beside: Field | None = None,
    readers: Collection[str] = (),
) -> Records:
    """Reads fields of every row of a table and groups the rows into privacy units.

    A bad row has a value that its field refuses, a unit that names nobody (`unit_ids`), bytes that
    are not UTF-8, or not the header's columns. With `on_bad_row="error"` the first one is refused
    once all have been read, so that the refusal counts the others too; that makes failing depend on
    a unit, so private training takes "skip", where a bad row costs itself and nothing else. Broken
    quoting in a CSV file is an error either way, as the rows after it cannot be trusted.

    Args:
        path: A table of any form in `FORMATS`.
        fields: What to read.
        unit: "record" for each row its own unit, or the column whose value names the unit.
        unit_rules: Which differences between units' ids are of no account besides.
        on_bad_row: Refuse the file, or leave the row out and count it.
        check: Whether a row's parsed values go together; raises `UnusableValue`.
        beside: A field that is no part of a record.
        readers: Other packages' forms that are read besides.

    Returns:
        The rows in file order.

    Raises:
        DataError: One of its kinds, with file, row and line; never anything else.
    """
    if on_bad_row not in {"error", "skip"}:
        raise DataArgumentError(f'on_bad_row is {on_bad_row!r}; expected "error" or "skip"')
    source = open_source(path, readers=readers)
    tally = Tally()
    if not source.columns:
        _refuse_rows(path, source, tally)
    read = [*fields, *([] if beside is None else [beside])]
    names = [choose_column(source, path, field.argument, field.names) for field in read]
    parsers = [field.parse for field in read]
    if unit != RECORD_UNIT:
        names.append(choose_column(source, path, "unit", (unit,)))
        parsers.append(lambda value, column: unit_id(value, unit_rules, column=column))
    columns: tuple[list[Any], ...] = tuple([] for _ in names)
    pictures = [n for n, field in zip(names, read, strict=False) if "picture" in field.takes]
    for row in source.rows(names, as_bytes=pictures):
        tally.row()
        try:
            values = _read_row(row, names, parsers, check, path)
        except DataError as error:
            tally.fault(error)
            continue
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    if on_bad_row == "error":
        tally.refuse()
    if not columns[0]:
        raise no_rows(path, tally)
    count = len(columns[0])
    return Records(
        columns=columns[: len(fields)],
        units=record_units(count) if unit == RECORD_UNIT else grouped_units(columns[-1]),
        left_out=tally.left_out(),
        ids=() if unit == RECORD_UNIT else tuple(dict.fromkeys(columns[-1])),
        beside=() if beside is None else tuple(columns[len(fields)]),
    )


def _refuse_rows(path: Path, source: Source, tally: Tally) -> None:
    """Of JSON without an object, say what its rows are: no column is looked for among none."""
    for row in source.rows(()):
        tally.row()
        if row.fault is not None:
            tally.fault(row.fault)
    if tally.first is not None:
        raise no_rows(path, tally)


def pool_records(parts: Sequence[Records]) -> Records:
    """Several sites' records in one. Units stay as they are: no unit joins two sites' records.

    Args:
        parts: At least one, with the same columns.
    """
    units: list[IndexArray] = []
    before = 0
    for part in parts:
        units += [unit + before for unit in part.units]
        before += len(part)
    columns = zip(*(part.columns for part in parts), strict=True)
    return Records(
        columns=tuple([value for values in column for value in values] for column in columns),
        units=tuple(units),
        left_out=pool_left_out([part.left_out for part in parts]),
        ids=tuple(name for part in parts for name in part.ids),
        beside=tuple(value for part in parts for value in part.beside),
    )


def no_rows(
    path: Path, tally: Tally, problem: str = "every row had to be skipped"
) -> EmptyFileError:
    """The refusal of data that hold no usable row, with what to do about the one fault of all."""
    left_out = tally.left_out()
    hint = "check that the export was complete"
    if tally.first is not None:
        hint = "mend the rows, or the settings that they do not go with"
        if len(left_out.rows) == 1:
            hint = tally.first.hint.removesuffix(_OR_SKIP)
    return EmptyFileError(
        f"{problem}: {left_out}"
        if left_out.count
        else "the folder holds no records"
        if is_folder(path)
        else "the file has a header and no rows",
        hint=hint,
        path=path,
    )


def text_field(argument: str, names: tuple[str, ...]) -> Field:
    """A text that is not empty, as it stands in the file."""
    return Field(argument, names, parse_text, takes=("text", "bytes"))


def group_field(argument: str, column: str, values: Sequence[str]) -> Field:
    """Which of some declared values a cell has, by its place; -1 for any other, or none.

    No row is bad by it: a person is in no declared group, and nobody is told.
    """
    places = {value: place for place, value in enumerate(values)}

    def parse(value: str | None, column: str) -> int:  # noqa: ARG001
        return places.get("" if value is None else plain(str(value)), -1)

    return Field(argument, (column,), parse)


def label_field(
    argument: str,
    column: str,
    labels: Sequence[str] | None,
    aliases: Sequence[tuple[str, str]] = (),
) -> Field:
    """A label as a string, exactly one of those given; any for None.

    Args:
        argument: The setting that names the column.
        column: The column.
        labels: All labels there may be.
        aliases: Other spellings that a file may have, and the label that each means.
    """
    known = None if labels is None else frozenset(labels)
    spelled = dict(aliases)
    values = None if known is None else known | spelled.keys()

    def parse(value: str | None, column: str) -> str:
        value = _label_of(value, values, column)
        value = spelled.get(value, value) if value else value
        if value and (known is None or value in known):
            return value
        expected = "a label" if known is None else f"one of {', '.join(map(repr, sorted(known)))}"
        sort = label_sort(value, known) if value and known else "no label"
        raise UnusableValue(
            UnknownLabelError,
            f"the label in column {column!r} is {'not known' if value else 'missing'}; "
            f"expected {expected}, exactly as written here",
            "check the row for shifted columns, spaces and case; complete the configured "
            "labels, say in task.label_aliases which spelling means which label, or set "
            'on_bad_row = "skip"',
            sort,
        )

    return Field(argument, (column,), parse, values=values)


def _label_of(value: str | None, known: Collection[str] | None, column: str) -> str | None:
    """A label as the settings have it, where the file holds a number that its schema names."""
    named = value.named if isinstance(value, StoredText) else ""
    if not named or known is None or named == value or named not in known:
        return value
    if value in known:
        raise UnusableValue(
            UnknownLabelError,
            f"a number in column {column!r} is a configured label, and so is the name that the "
            "file's schema has for it, which is another",
            "configure the names or the numbers as labels, and not both",
            "number that is a label and stands for another",
        )
    return named


def parse_text(value: str | None, column: str) -> str:
    """A text that is not empty, and that the file holds as one."""
    if isinstance(value, StoredText):
        raise UnusableValue(
            EmptyTextError,
            f"column {column!r} holds a {_HELD[value.held_as]} and no text",
            "name a column of texts; conversations are for causal-lm with task.messages_column",
            f"a {_HELD[value.held_as]} in place of a text",
        )
    if value is not None and len(value) > MAX_TEXT:
        raise UnusableValue(
            EmptyTextError,
            f"the text in column {column!r} has more than {MAX_TEXT} characters",
            "no model reads so much: is a quotation mark missing, or a line's end?",
            "text of more characters than any model reads",
        )
    if value is not None and value.strip().casefold() in _NO_TEXT:
        raise UnusableValue(
            EmptyTextError,
            f"the text in column {column!r} is what a program writes where there is none",
            "export such a row without a value, or remove it",
            "nan, null or none in place of a text",
        )
    if value is None or is_blank(value):
        raise UnusableValue(
            EmptyTextError,
            f"the text in column {column!r} is {'null' if value is None else 'empty'}",
            'remove the row, or set on_bad_row = "skip"',
        )
    return value


def is_blank(text: str) -> bool:
    """Whether nothing of a text can be seen: it is empty, white, zero-width, or controls."""
    return not plain(text)


def choose_column(source: Source, path: Path, argument: str, names: Sequence[str]) -> str:
    """Returns the first of `names` that is a column of the file."""
    for name in names:
        if name in source.columns:
            return name
    # Where a text file lacks its header they are somebody's record, so none is quoted.
    alike = sorted({name for name in names if any(_alike(name, c) for c in source.columns)})
    hint = f"set {argument} to the name of one of them; the file's first line has them"
    if alike:
        hint = (
            f"one differs from {' or '.join(map(repr, alike))} in case, spaces or marks alone: "
            f"set {argument} to the name as it stands in the file"
        )
    wanted = " or ".join(map(repr, names))
    if source.has_schema:
        raise MissingColumnError(
            f"there is no column {wanted}; "
            f"the columns are {', '.join(map(repr, source.columns)) or 'none'}",
            hint=f"set {argument} to one of them",
            path=path,
        )
    raise MissingColumnError(
        f"there is no column {wanted} among the {len(source.columns)} of the file",
        hint=hint,
        path=path,
    )


def _alike(name: str, column: str) -> bool:
    def letters(text: str) -> str:
        return "".join(c for c in plain(text).casefold() if c.isalnum())

    return letters(name) == letters(column) != ""


def _read_row(
    row: Row,
    names: Sequence[str],
    parsers: Sequence[Callable[[str | None, str], Any]],
    check: Callable[[Sequence[Any]], None] | None,
    path: Path,
) -> list[Any]:
    if row.fault is not None:
        raise row.fault
    try:
        values = [
            parse(value, name)
            for parse, value, name in zip(parsers, row.values, names, strict=True)
        ]
        if check is not None:
            check(values)
    except UnusableValue as error:
        fault = error
    else:
        return values
    # Raised out here: what went before would be told along with it.
    raise fault.at(path, row.number, row.line)
