"""All forms of local data: one entry each, and which of them a file is of.

`data.fields` opens every file by `open_source`, and `data.headers` by `open_header` where no
record may be read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fmfl_secure.data._source import Source
from fmfl_secure.data.errors import DataError, UnreadableFileError, UnsupportedFormatError
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
from fmfl_secure.errors import ConfigError
from fmfl_secure.extensions import READERS_GROUP, is_extension, load_extension
from fmfl_secure.outside import is_file
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
    outside=lambda name: load_extension(READERS_GROUP, name, Format),  # type: ignore[type-abstract]
)


def suffixes(*, splits: bool = False) -> tuple[str, ...]:
    """All file extensions that are read.

    Args:
        splits: Of those alone that a part can be written of.
    """
    return tuple(
        suffix for kind in FORMATS if kind.splits or not splits for suffix in kind.suffixes
    )


def require_readers(readers: Collection[str]) -> None:
    """Import other packages' forms, and refuse one that takes files which are another's.

    Raises:
        ConfigError: One is not installed here, is no form, or has a suffix of another form.
    """
    taken = {suffix: kind.name for kind in FORMATS for suffix in kind.suffixes}
    for name in readers:
        for suffix in FORMATS.get(name).suffixes:
            if suffix in taken:
                raise ConfigError(
                    f"the form of data {name!r} takes files that end in {suffix}, which are "
                    f"{taken[suffix]}",
                    hint="Give those files another extension; whose package it is has to change "
                    "the one that it takes.",
                )
            taken[suffix] = name


def claimed(path: Path, readers: Collection[str] = ()) -> bool:
    """Whether data are of a form here, by their name: a folder of pictures is not."""
    return _claiming(path, readers) is not None


def read_as(path: Path, readers: Collection[str] = ()) -> str:
    """Says in words what data are read as; empty for a folder of pictures. Reads no record.

    Raises:
        DataError: They are not there, or not of their form.
    """
    kind = _claiming(path, readers)
    if kind is None:
        return ""
    with _told(kind, path):
        return kind.described(path)


def format_of(path: Path, readers: Collection[str] = ()) -> Format:
    """The form that data are of, by their name; nothing is guessed from their content.

    Args:
        path: The data.
        readers: Other packages' forms that are read besides, by name. Their code is imported.

    Raises:
        UnsupportedFormatError: No form claims them. Says what they are, where that can be seen.
        ConfigError: Another package's form is not there, or no such form.
    """
    kind = _claiming(path, readers)
    if kind is None:
        raise _unknown(path, readers)
    return kind


def open_source(path: Path, data: bytes | None = None, *, readers: Collection[str] = ()) -> Source:
    """Reads data whole, by the form that their name says.

    Args:
        path: The data; a file's suffix selects the form, upper or lower case, with .gz behind it
            where that is read.
        data: Their bytes, where the caller has read them already.
        readers: Other packages' forms that are read besides.

    Raises:
        DataError: One of its kinds.
    """
    kind = format_of(path, readers)
    with _told(kind, path):
        return kind.read(path, data)


def open_header(path: Path, readers: Collection[str] = ()) -> Source | None:
    """Opens data as far as is known before a record is read (`Format.header`).

    Raises:
        DataError: One of its kinds.
    """
    kind = format_of(path, readers)
    with _told(kind, path):
        return kind.header(path)


def _claiming(path: Path, readers: Collection[str]) -> Format | None:
    """The one form whose name data have; this project's own come first, and stay what they are."""
    own = next((kind for kind in FORMATS if kind.claims(path)), None)
    if own is not None:
        return own
    return next((kind for kind in map(FORMATS.get, readers) if kind.claims(path)), None)


@contextmanager
def _told(kind: Format, path: Path) -> Iterator[None]:
    """Of other packages' code every failure is the data's; its text could quote a record."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if not is_extension(kind.name):
            raise
        raise UnreadableFileError(
            f"{kind.name} failed: {type(error).__name__}",
            hint="ask whoever made it: a form refuses what it cannot read by a DataError",
            path=path,
        ) from None


def _unknown(path: Path, readers: Collection[str]) -> UnsupportedFormatError:
    suffix = path.suffix
    others = [s for name in readers for s in FORMATS.get(name).suffixes]
    packed = [s for kind in FORMATS if kind.compressible for s in kind.suffixes]
    seen = ""
    if is_file(path):
        with opened(path) as file:
            found = recognise(file.read(HEAD_BYTES))
        seen = f"; the file is {found.name}" if found else ""
    return UnsupportedFormatError(
        f"the extension is {suffix!r}{seen}; expected one of {', '.join((*suffixes(), *others))}, "
        f"or {', '.join(packed)} with {COMPRESSED} behind it",
        hint="convert the file, or give it the extension of what it is",
        path=path,
    )
