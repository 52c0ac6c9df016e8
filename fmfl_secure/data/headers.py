"""What can be known of a table before any record is read: that it is there, its form, its columns.

None of it depends on a person, so a site asks before it is charged (docs/decisions/0001). Of a
delimited file the header line is read, of Parquet the schema. JSON Lines has no header: which
keys there are is known from its records alone.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fmfl_secure.data._parquet import ParquetSource
from fmfl_secure.data._source import Source
from fmfl_secure.data.errors import EmptyFileError, MalformedRowError, UnreadableFileError
from fmfl_secure.data.fields import (
    COMPRESSED,
    RECORD_UNIT,
    Field,
    choose_column,
    open_source,
    table_suffix,
)

_LONGEST_HEADER = 1 << 20  # bytes


def check_header(path: Path, fields: Sequence[Field], *, unit: str = RECORD_UNIT) -> None:
    """Require that a table is there, is of a known form, and has the columns that are asked for.

    Args:
        path: A .csv, .tsv, .jsonl or .parquet file.
        fields: What will be read of it.
        unit: "record", or the column whose value names the unit.

    Raises:
        DataError: One of its kinds; names columns of the header, and no value of a record.
    """
    source = _open_header(path)
    if source is None:
        return
    names = [choose_column(source, path, field.argument, field.names) for field in fields]
    for field, name in zip(fields, names, strict=True):
        if isinstance(source, ParquetSource) and source.holds_lists(name) and not field.lists:
            raise MalformedRowError(
                f"column {name!r} has the type list; expected one value in each row",
                hint="name another column, or store one text, number or boolean in each row",
                path=path,
            )
    if unit != RECORD_UNIT:
        names.append(choose_column(source, path, "unit", (unit,)))
    for _ in source.rows(names):  # there are none; a column's type is refused all the same
        pass


def check_image_folder(folder: Path, labels: Sequence[str]) -> None:
    """Require that a folder can be listed and has a subfolder named after a label.

    Raises:
        UnreadableFileError: It cannot, or has none.
    """
    try:
        names = {place.name for place in folder.iterdir() if place.is_dir()}
    except OSError as error:
        raise _unreadable(folder, error) from None
    if not names & set(labels):
        raise UnreadableFileError(
            "the folder has no subfolder named after a label",
            hint=f"sort the images into subfolders: {', '.join(labels)}",
            path=folder,
        )


def _open_header(path: Path) -> Source | None:
    suffix, compressed = table_suffix(path), path.suffix.lower() == COMPRESSED
    opened = gzip.open if compressed else open
    try:
        with opened(path, "rb") as file:
            first = _first_row(file.readline(_LONGEST_HEADER), file)
    except (EOFError, zlib.error):
        raise UnreadableFileError(
            "the file is not readable as gzip",
            hint="check that it is complete, and that its extension is the right one",
            path=path,
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if suffix == ".parquet":
        return None if compressed else _open_schema(path)
    if suffix != ".jsonl":
        return open_source(path.with_name(path.stem) if compressed else path, first)
    if not first:
        raise EmptyFileError(
            "the file is empty; expected one JSON object per line",
            hint="check that this is the right file and that its export was complete",
            path=path,
        )
    return None


def _first_row(first: bytes, lines: Iterable[bytes]) -> bytes:
    """The line of the header, and those that a quoted name with a line's end goes on in."""
    for line in lines:
        if first.count(b'"') % 2 == 0 or len(first) > _LONGEST_HEADER:
            break
        first += line
    return first


def _open_schema(path: Path) -> ParquetSource:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        raise UnreadableFileError(
            "the file is not readable as Parquet",
            hint="check that the file is complete and that its extension is the right one",
            path=path,
        ) from None
    return ParquetSource(path, schema.empty_table())


def _unreadable(path: Path, error: OSError) -> UnreadableFileError:
    return UnreadableFileError(
        f"the {'folder' if path.is_dir() else 'file'} cannot be read: "
        f"{error.strerror or type(error).__name__}",
        hint="check the path and that the account running this may read it",
        path=path,
    )
