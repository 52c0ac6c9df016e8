"""The interface of a form of local data: one entry of the registry each.

Each form subclasses `Format`, or `TextFormat` if its rows are lines (`data.formats.json_lines`),
and `data.formats.registry` asks an instance whether data are its own, then for the header or for
all.
"""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar, cast

from typing_extensions import override

from fmfl_secure.data._source import Source, read_bytes
from fmfl_secure.data.errors import UnreadableFileError, UnsupportedFormatError
from fmfl_secure.data.formats._compressed import decompress
from fmfl_secure.data.formats.foreign import HEAD_BYTES, refuse_foreign
from fmfl_secure.outside import is_folder, open_regular

COMPRESSED = ".gz"
_LONGEST_HEADER = 1 << 20  # bytes


class Format(ABC):
    """One form that local data may have.

    Attributes:
        name: How a refusal and the documents name it.
        suffixes: File names that end so are of this form, in lower case; none for a folder.
        compressible: Whether `.gz` may stand behind the suffix.
        splits: Whether `fmfl-secure partition` can write a part of it.
        known_by: How its content is recognised, for `docs/data.md`.
        columns_from: Where the columns are known from before a record is read, for
            `docs/data.md`.
        refuses: What is refused and not guessed, for `docs/data.md`.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]] = ()
    compressible: ClassVar[bool] = False
    splits: ClassVar[bool] = False
    known_by: ClassVar[str]
    columns_from: ClassVar[str]
    refuses: ClassVar[tuple[str, ...]]

    def claims(self, path: Path) -> bool:
        """Whether data of this name are of this form, before any of their content is looked at."""
        return table_suffix(path) in self.suffixes

    def begins(self, head: bytes) -> bool:  # noqa: ARG002
        """Whether a file that begins so is of this form and of no other.

        Args:
            head: The first `HEAD_BYTES` of a file. Where nothing marks a form, the answer is no.
        """
        return False

    def described(self, path: Path) -> str:  # noqa: ARG002
        """Returns in words what data of this form are read as, for `check`; reads no record.

        Raises:
            DataError: They are not there, or not of this form.
        """
        return self.name

    @abstractmethod
    def header(self, path: Path) -> Source | None:
        """Columns without rows; None where they are known from records alone.

        Reads nothing that depends on a person (docs/decisions/0001).

        Raises:
            DataError: The data are not there, or not of this form.
        """

    @abstractmethod
    def read(self, path: Path, data: bytes | None = None) -> Source:
        """Everything, in memory.

        Args:
            path: The data.
            data: Their bytes, where the caller has read them already.

        Raises:
            DataError: The data are not there, or not of this form.
        """

    def content(self, path: Path, data: bytes | None = None) -> bytes:
        """A file's bytes, unpacked, once they are no other form's.

        Raises:
            DataError: It cannot be read, or is of another form.
        """
        found = read_bytes(path) if data is None else data
        if compressed(path):
            self._require_compressible(path)
            found = decompress(path, found)
        self.require_own(path, found[:HEAD_BYTES])
        return found

    def head(self, path: Path) -> bytes:
        """The first `HEAD_BYTES` of a file, once its name may be one of this form.

        Raises:
            DataError: It cannot be read, or is compressed where that is not read.
        """
        if compressed(path):
            self._require_compressible(path)
        with opened(path) as file:
            return file.read(HEAD_BYTES)

    def require_own(self, path: Path, head: bytes) -> None:
        """Refuse a file that begins as something else, and say as what."""
        if not self.begins(head):
            refuse_foreign(path, head)

    def _require_compressible(self, path: Path) -> None:
        if not self.compressible:
            raise UnsupportedFormatError(
                f"{self.name} is not read with {COMPRESSED} behind it",
                hint="unpack it: gunzip FILE",
                path=path,
            )


class TextFormat(Format):
    """A form whose rows are lines of text in UTF-8."""

    compressible = True
    splits = True

    @abstractmethod
    def parse(self, path: Path, data: bytes) -> Source:
        """The rows of a file's bytes."""

    @override
    def read(self, path: Path, data: bytes | None = None) -> Source:
        return self.parse(path, self.content(path, data))

    @override
    def header(self, path: Path) -> Source | None:
        """Of the lines of the header."""
        self.require_own(path, self.head(path))
        return self.parse(path, self.first_row(path))

    def first_row(self, path: Path) -> bytes:
        """The line of the header, and those that a quoted name with a line's end goes on in."""
        with opened(path) as file:
            return _first_row(file.readline(_LONGEST_HEADER), file)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes from the first on, unpacked as they are read.

    Raises:
        UnreadableFileError: It cannot be read, or is not compressed as its name says.
    """
    try:
        with open_regular(path) as raw:
            if not compressed(path):
                yield raw
                return
            with gzip.GzipFile(fileobj=raw) as file:
                yield cast("BinaryIO", file)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UnreadableFileError(
            "the file is not readable as gzip",
            hint="check that it is complete, and that its extension is the right one",
            path=path,
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None


def compressed(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix.lower() == COMPRESSED


def table_suffix(path: Path) -> str:
    """The extension that selects a format, in lower case and without that of a compression."""
    return Path(path.stem if compressed(path) else path.name).suffix.lower()


def unreadable(path: Path, error: OSError) -> UnreadableFileError:
    """The refusal of a place that the system does not let be read."""
    return UnreadableFileError(
        f"the {'folder' if is_folder(path) else 'file'} cannot be read: "
        f"{error.strerror or type(error).__name__}",
        hint="check the path and that the account running this may read it",
        path=path,
    )


def _first_row(first: bytes, lines: Iterable[bytes]) -> bytes:
    for line in lines:
        if first.count(b'"') % 2 == 0 or len(first) > _LONGEST_HEADER:
            break
        first += line
    return first
