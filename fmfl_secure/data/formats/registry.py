"""All forms of local data: one entry each, and which of them a file is of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fmfl_secure.data._source import Source
from fmfl_secure.data.errors import UnsupportedFormatError
from fmfl_secure.data.formats.base import COMPRESSED, Format, opened
from fmfl_secure.data.formats.comma_separated import CommaSeparated
from fmfl_secure.data.formats.conll import Conll
from fmfl_secure.data.formats.dataset_folder import DatasetFolder
from fmfl_secure.data.formats.foreign import HEAD_BYTES, recognise
from fmfl_secure.data.formats.json_array import JsonArray
from fmfl_secure.data.formats.json_lines import JsonLines
from fmfl_secure.data.formats.npz import Npz
from fmfl_secure.data.formats.parquet import Parquet
from fmfl_secure.data.formats.tab_separated import TabSeparated
from fmfl_secure.registry import Registry

FORMATS: Final[Registry[Format]] = Registry(
    "form of data",
    (
        CommaSeparated(),
        TabSeparated(),
        JsonLines(),
        JsonArray(),
        Conll(),
        Parquet(),
        Npz(),
        DatasetFolder(),
    ),
)


def suffixes(*, splits: bool = False) -> tuple[str, ...]:
    """All file extensions that are read.

    Args:
        splits: Of those alone that a part can be written of.
    """
    return tuple(
        suffix for kind in FORMATS if kind.splits or not splits for suffix in kind.suffixes
    )


def claimed(path: Path) -> bool:
    """Whether data are of a form here, by their name: a folder of pictures is not."""
    return any(kind.claims(path) for kind in FORMATS)


def read_as(path: Path) -> str:
    """What data are read as, in words; empty for a folder of pictures. Reads no record.

    Raises:
        DataError: They are not there, or not of their form.
    """
    return format_of(path).described(path) if claimed(path) else ""


def format_of(path: Path) -> Format:
    """The form that data are of, by their name; nothing is guessed from their content.

    Raises:
        UnsupportedFormatError: No form claims them. Says what they are, where that can be seen.
    """
    for kind in FORMATS:
        if kind.claims(path):
            return kind
    raise _unknown(path)


def open_source(path: Path, data: bytes | None = None) -> Source:
    """Reads data whole, by the form that their name says.

    Args:
        path: The data; a file's suffix selects the form, upper or lower case, with .gz behind it
            where that is read.
        data: Their bytes, where the caller has read them already.

    Raises:
        DataError: One of its kinds.
    """
    return format_of(path).read(path, data)


def open_header(path: Path) -> Source | None:
    """What is known of data before a record is read; see `Format.header`.

    Raises:
        DataError: One of its kinds.
    """
    return format_of(path).header(path)


def _unknown(path: Path) -> UnsupportedFormatError:
    suffix = path.suffix
    packed = [s for kind in FORMATS if kind.compressible for s in kind.suffixes]
    seen = ""
    if path.is_file():
        with opened(path) as file:
            found = recognise(file.read(HEAD_BYTES))
        seen = f"; the file is {found.name}" if found else ""
    return UnsupportedFormatError(
        f"the extension is {suffix!r}{seen}; expected one of {', '.join(suffixes())}, "
        f"or {', '.join(packed)} with {COMPRESSED} behind it",
        hint="convert the file, or give it the extension of what it is",
        path=path,
    )
