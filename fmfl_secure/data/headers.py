"""Reads what a table tells before any record: that it is there, its form, its columns.

None of it depends on a person, so a site asks before it is charged (docs/decisions/0001). Where a
form has a header or a schema, its entry in `FORMATS` says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from fmfl_secure.data.errors import MalformedRowError, UnreadableFileError
from fmfl_secure.data.fields import RECORD_UNIT, Field, choose_column
from fmfl_secure.data.formats.base import unreadable
from fmfl_secure.data.formats.registry import open_header
from fmfl_secure.data.images import require_folder_unit


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
            raise MalformedRowError(
                f"column {name!r} has the type {kind}; "
                f"expected {' or '.join(field.takes)} in each row",
                hint=f"name another column as {field.argument}",
                path=path,
            )
    if unit != RECORD_UNIT:
        names.append(choose_column(source, path, "unit", (unit,)))
    for _ in source.rows(names):  # there are none; a column's type is refused all the same
        pass


def check_image_folder(folder: Path, labels: Sequence[str], *, unit: str = RECORD_UNIT) -> None:
    """Require that a folder can be listed and has a subfolder named after a label.

    Raises:
        UnreadableFileError: It cannot, or has none.
        DataArgumentError: It cannot say whose a picture is.
    """
    require_folder_unit(folder, unit)
    try:
        names = {place.name for place in folder.iterdir() if place.is_dir()}
    except OSError as error:
        raise unreadable(folder, error) from None
    if not names & set(labels):
        raise UnreadableFileError(
            "the folder has no subfolder named after a label",
            hint=f"sort the images into subfolders: {', '.join(labels)}",
            path=folder,
        )
