"""Looks at a table before a charge: that it is there, its form, its columns, that it opens whole.

Nothing that settings look for in a row has a say. Whoever writes them could ask otherwise, of every
site and uncharged, whether anybody has a label, a key or a value (docs/decisions/0001). Where a
form has a header or a schema, its entry in `FORMATS` says.

`tasks.adapter_task` calls `check_header`, then `check_rows`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fmfl_secure.data._source import SCALARS, CellKind, UnusableValue
from fmfl_secure.data.errors import (
    DataError,
    MalformedRowError,
    UnknownLabelError,
    UnreadableFileError,
)
from fmfl_secure.data.fields import RECORD_UNIT, Field, choose_column, no_rows
from fmfl_secure.data.formats.base import unreadable
from fmfl_secure.data.formats.registry import open_header, open_source
from fmfl_secure.data.images import require_folder_unit
from fmfl_secure.data.left_out import Tally

_HELD: Final[Mapping[CellKind, str]] = MappingProxyType(
    {
        "text": "texts",
        "number": "numbers",
        "truth": "true and false",
        "time": "dates or times",
        "list": "lists of texts",
        "numbers": "lists of numbers",
        "messages": "lists of messages",
        "bytes": "bytes",
        "picture": "pictures",
        "nothing": "no values",
        "volume": "arrays that are neither numbers, lists nor pictures",
    }
)


def check_header(
    path: Path,
    fields: Sequence[Field],
    *,
    unit: str = RECORD_UNIT,
    readers: Collection[str] = (),
) -> None:
    """Require that a table is there, is of a known form, and has the columns that are asked for.

    Args:
        path: A table of any form in `FORMATS`.
        fields: What will be read of it.
        unit: "record", or the column whose value names the unit.
        readers: Other packages' forms that are read besides.

    Raises:
        DataError: One of its kinds; names columns of the header, and no value of a record.
    """
    source = open_header(path, readers)
    if source is None:
        return
    names = [choose_column(source, path, field.argument, field.names) for field in fields]
    for field, name in zip(fields, names, strict=True):
        kind = source.kind_of(name)
        if kind not in {"any", *field.takes}:
            raise _other_kind(path, name, kind, field.takes, field.argument)
        if field.values is not None:
            _require_possible(path, name, kind, source.names_of(name), field)
    if unit != RECORD_UNIT:
        names.append(choose_column(source, path, "unit", (unit,)))
        kind = source.kind_of(names[-1])
        if kind not in {"any", "bytes", *SCALARS}:
            raise _other_kind(path, names[-1], kind, SCALARS, "unit")
    for _ in source.rows(names):  # there are none; a column's type is refused all the same
        pass


def check_rows(path: Path, fields: Sequence[Field], *, readers: Collection[str] = ()) -> None:
    """Require that a table opens as a whole, has a row, and pictures of a form that is read.

    A row counts unless its form is broken, whatever it holds. Of pictures, those that are there
    count, by their first bytes: where there are none, nothing is refused.

    Args:
        path: A table of any form in `FORMATS`.
        fields: What will be read of it.
        readers: Other packages' forms that are read besides.

    Raises:
        DataError: One of its kinds; of a single row alone, such as a CSV file's quoting that breaks
            in it, nothing is said.
    """
    try:
        _look(path, fields, readers)
    except DataError as error:
        if error.row is None:
            raise


def _look(path: Path, fields: Sequence[Field], readers: Collection[str]) -> None:
    source = open_source(path, readers=readers)
    held = set(source.columns)
    shown = {
        name: field.is_picture
        for field in fields
        for name in field.names
        if field.is_picture is not None and name in held
    }
    rows, pictures = Tally(), Tally()
    whole = False
    for row in source.rows(tuple(shown), as_bytes=tuple(shown)):
        rows.row()
        pictures.row()
        if row.fault is not None:
            rows.fault(row.fault)
            continue
        whole = True
        try:
            found = [looks(value) for looks, value in zip(shown.values(), row.values, strict=True)]
        except UnusableValue as error:
            pictures.fault(error.at(path, row.number, row.line))
            continue
        if any(found) or not found:
            return
    if not whole:
        raise no_rows(path, rows)
    if pictures.first is not None:
        raise no_rows(path, pictures, "no picture is of a form that is read here")


def _other_kind(
    path: Path, column: str, kind: CellKind, takes: Sequence[CellKind], argument: str
) -> MalformedRowError:
    return MalformedRowError(
        f"by the file's schema column {column!r} holds {_HELD[kind]}; "
        f"expected {' or '.join(_HELD[each] for each in takes)}",
        hint=f"name another column as {argument}, or store this one as what is expected",
        path=path,
    )


def _require_possible(
    path: Path, column: str, kind: CellKind, names: Sequence[str], field: Field
) -> None:
    """Refuse a column of which, by its type, no cell is any of the values that are looked for."""
    values = field.values or frozenset()
    if kind == "truth":
        possible = bool(values & {"true", "false"})
    elif kind == "number":
        possible = not values.isdisjoint(names) or any(map(_is_number, values))
    else:
        return
    if possible:
        return
    held = f"numbers that stand for {', '.join(map(repr, names))}" if names else _HELD[kind]
    raise UnknownLabelError(
        f"by the file's schema column {column!r} holds {held}; expected one of "
        f"{', '.join(map(repr, sorted(values)))}",
        hint=f"name another column as {field.argument}, or say in task.label_aliases which of them "
        "means which label",
        path=path,
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_image_folder(
    folder: Path,
    labels: Sequence[str],
    *,
    unit: str = RECORD_UNIT,
    aliases: Sequence[tuple[str, str]] = (),
) -> None:
    """Require that a folder can be listed and has a subfolder named after a label.

    Args:
        folder: Holds the subfolders.
        labels: Names that they may have.
        unit: See `read_image_folder`.
        aliases: Other names that they may have, and the label that each means.

    Raises:
        UnreadableFileError: It cannot, or has none.
        DataArgumentError: It cannot say whose a picture is.
    """
    require_folder_unit(folder, unit)
    try:
        names = {place.name for place in folder.iterdir() if place.is_dir()}
    except OSError as error:
        raise unreadable(folder, error) from None
    named = names & {*labels, *(alias for alias, _ in aliases)}
    if not named:
        raise UnreadableFileError(
            "the folder has no subfolder named after a label",
            hint=f"sort the images into subfolders: {', '.join(labels)}",
            path=folder,
        )
