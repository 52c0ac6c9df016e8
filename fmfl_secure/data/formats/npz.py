"""NPZ: arrays of NumPy in a ZIP archive, as MedMNIST and many image benchmarks come.

`data.formats.registry` holds its one entry, `Npz`, which opens an `NpzSource`: headers are read at
once, within bounds, and an array when its column is asked for.
"""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from typing_extensions import override

from fmfl_secure.data._source import CellKind, Row, Source, not_utf8, require_distinct
from fmfl_secure.data.errors import (
    DataArgumentError,
    DataError,
    MalformedRowError,
    UnreadableFileError,
)
from fmfl_secure.data.formats._bounds import MAX_BYTES, require_bounded
from fmfl_secure.data.formats.base import Format, unreadable
from fmfl_secure.data.stored import StoredPicture, StoredText
from fmfl_secure.outside import is_file

_SUFFIX, _ARRAY = ".npz", ".npy"
_LONGEST_HEADER = 10_000  # bytes, NumPy's own bound
_MOST_ARRAYS = 10_000
_FAILURES = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError, ValueError, EOFError,
    RuntimeError, LookupError, OverflowError, TypeError, SyntaxError, MemoryError,
)  # fmt: skip
_CHANNELS = frozenset({1, 3, 4})
_Reader: TypeAlias = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class _Array:
    """An array by its header.

    Attributes:
        member: Its name in the archive.
        shape: Its shape; the first axis is that of records.
        dtype: What it holds.
    """

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        """Of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def kind(self) -> CellKind:
        """The kind of cell that a record's part of it is."""
        pictures = len(self.shape) == 3 or (len(self.shape) == 4 and self.shape[3] in _CHANNELS)
        if pictures and self.dtype.kind in "buif" and self.shape[1] > 1:
            return "picture"
        texts, truths = self.dtype.kind in "SU", self.dtype.kind == "b"
        if math.prod(self.shape[1:]) == 1:
            return "text" if texts else "truth" if truths else "number"
        if len(self.shape) != 2:
            return "volume"
        return "list" if texts else "numbers"


class Npz(Format):
    """One column for each array; a split of MedMNIST's form is named behind the file."""

    name: ClassVar[str] = "NPZ"
    suffixes: ClassVar[tuple[str, ...]] = (_SUFFIX,)
    known_by: ClassVar[str] = f"a ZIP archive whose first entry ends in `{_ARRAY}`"
    columns_from: ClassVar[str] = (
        "the arrays' names and headers. Of `train_images`, `train_labels`, `test_images`, ... the "
        "columns `images` and `labels` are those of one split: `data.npz/train`"
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "arrays of objects: they are pickles, which are programs and are never opened",
        "arrays of different lengths, used together",
        "what unpacks to more than 2 GiB and 16 times its size",
    )

    @override
    def claims(self, path: Path) -> bool:
        """`data.npz/train` is a split of a file."""
        return super().claims(path) or (super().claims(path.parent) and is_file(path.parent))

    @override
    def begins(self, head: bytes) -> bool:
        length = int.from_bytes(head[26:28], "little")
        return head.startswith(b"PK\x03\x04") and head[30 : 30 + length].endswith(b".npy")

    @override
    def header(self, path: Path) -> NpzSource:
        return self._open(path, header_alone=True)

    @override
    def read(self, path: Path, data: bytes | None = None) -> NpzSource:
        """Arrays are read when they are asked for."""
        del data
        return self._open(path, header_alone=False)

    def _open(self, path: Path, *, header_alone: bool) -> NpzSource:
        file, split = (path, "") if path.suffix.lower() == _SUFFIX else (path.parent, path.name)
        self.require_own(file, self.head(file))
        return NpzSource(file, _of_split(file, _arrays(file), split), header_alone=header_alone)


class NpzSource(Source):
    """The arrays of one file, read when they are asked for."""

    def __init__(self, path: Path, arrays: Mapping[str, _Array], *, header_alone: bool) -> None:
        """Takes headers over.

        Args:
            path: The file.
            arrays: Its arrays by their columns' names.
            header_alone: Whether there are to be no rows.
        """
        self._path = path
        self._arrays = arrays
        self._header_alone = header_alone

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the arrays, in the archive's order."""
        return tuple(self._arrays)

    @property
    @override
    def has_schema(self) -> bool:
        return True

    def __len__(self) -> int:
        return 0 if self._header_alone else self._length(self.columns)

    @override
    def kind_of(self, name: str) -> CellKind:
        return self._arrays[name].kind

    @override
    def rows(self, names: Sequence[str], *, as_bytes: Collection[str] = ()) -> Iterator[Row]:
        del as_bytes
        length = self._length(names)
        if self._header_alone:
            return
        readers = [self._reader(name) for name in names]
        for row in range(length):
            try:
                values = tuple(read(row) for read in readers)
            except UnicodeDecodeError:
                yield Row(row + 1, None, (), not_utf8(self._path, row=row + 1))
            else:
                yield Row(row + 1, None, values)

    @override
    def table(self) -> pa.Table:
        """Pictures are lists of numbers there."""
        self._length(self.columns)
        return pa.table({name: self._column(name) for name in self.columns})

    @override
    def select(self, indices: Sequence[int]) -> bytes:
        """Refuses: an archive of arrays is not split."""
        del indices
        raise DataArgumentError("NPZ is not split here", path=self._path)

    def _column(self, name: str) -> pa.Array:
        values = self._load(name)
        if values.dtype.kind not in "SU":
            return pa.array(values.tolist())
        read = self._reader(name)
        try:
            return pa.array([read(row) for row in range(self._length(self.columns))], pa.string())
        except UnicodeDecodeError:
            raise not_utf8(self._path) from None

    def _length(self, names: Sequence[str]) -> int:
        lengths = {name: self._arrays[name].shape[0] for name in names}
        if len(set(lengths.values())) > 1:
            raise MalformedRowError(
                f"the arrays {', '.join(map(repr, lengths))} are not equally long",
                hint=f"name a split behind the file, such as {self._path.name}/train",
                path=self._path,
            )
        return next(iter(lengths.values()), 0)

    def _load(self, name: str) -> np.ndarray[Any, np.dtype[Any]]:
        array = self._arrays[name]
        with _archive(self._path) as archive, archive.open(array.member) as file:
            found = npy.read_array(file, allow_pickle=False, max_header_size=_LONGEST_HEADER)
        return np.asarray(found)

    def _reader(self, name: str) -> _Reader:
        kind = self.kind_of(name)
        if kind == "volume":
            raise MalformedRowError(
                f"the array {name!r} holds neither numbers, lists nor pictures",
                hint="save pictures in the shape (n, height, width), or (n, height, width, "
                "channels) with 1, 3 or 4 channels",
                path=self._path,
            )
        values = self._load(name)
        if kind == "picture":
            return lambda row: StoredPicture.of_file(values[row])
        if kind in {"list", "numbers"}:
            return lambda row: StoredText.of(
                msgspec.json.encode(values[row].ravel().tolist()).decode(), "structure"
            )
        return _scalars(values.reshape(len(values)))


def _scalars(values: np.ndarray[Any, np.dtype[Any]]) -> _Reader:
    kind = values.dtype.kind
    if kind in "iu":
        return lambda row: StoredText.of(str(int(values[row])), "number")
    if kind == "b":
        return lambda row: StoredText.of(str(bool(values[row])).lower(), "truth")
    if kind == "f":
        bits = np.finfo(values.dtype).nmant + 1
        return lambda row: StoredText.of(repr(float(values[row])), "float", bits)
    if kind == "S":
        return lambda row: bytes(values[row]).decode()
    # Not `str(...)`: NumPy makes texts of numbers that are no characters, and Python crashes there.
    points = values.astype(values.dtype.newbyteorder("<"))
    return lambda row: points[row : row + 1].tobytes().decode("utf-32-le").rstrip("\0")


def _arrays(path: Path) -> dict[str, _Array]:
    """Headers of all arrays, within bounds."""
    found: dict[str, _Array] = {}
    total = 0
    with _archive(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(_ARRAY)]
        require_distinct([member.filename for member in members], path)
        if len(members) > _MOST_ARRAYS:
            raise UnreadableFileError(f"the file has more than {_MOST_ARRAYS} arrays", path=path)
        for member in members:
            with archive.open(member) as file:
                array = _Array(member.filename, *_shape(file))
                beside = file.tell()
            if array.dtype.hasobject or array.dtype.kind not in "buifSU":
                raise UnreadableFileError(
                    f"the array {member.filename!r} is of objects, or of what is no number and no "
                    "text",
                    hint="an array of objects is a pickle, which is a program and is never "
                    "opened; save numbers and texts",
                    path=path,
                )
            if not array.shape or beside + array.size_bytes != member.file_size:
                raise UnreadableFileError(
                    f"the array {member.filename!r} has no rows, or not as many as it says",
                    hint="save it once more",
                    path=path,
                )
            total += array.size_bytes
            found[member.filename.removesuffix(_ARRAY)] = array
    require_bounded(path, total, path.stat().st_size, max_bytes=MAX_BYTES)
    return found


def _shape(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Of an array's header, which NumPy reads as a literal and never runs."""
    version = npy.read_magic(file)
    read = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(file, max_header_size=_LONGEST_HEADER)
    return shape, dtype


def _of_split(path: Path, arrays: Mapping[str, _Array], split: str) -> Mapping[str, _Array]:
    """The arrays of a split, by their names without it."""
    if not split:
        return arrays
    found = {
        name.removeprefix(f"{split}_"): array
        for name, array in arrays.items()
        if name.startswith(f"{split}_")
    }
    if not found:
        raise UnreadableFileError(
            f"no array of {path.name} begins with {split + '_'!r}; "
            f"there are {', '.join(map(repr, arrays)) or 'none'}",
            hint="name the file alone, or a split that it has",
            path=path,
        )
    return found


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DataError:
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    except _FAILURES:
        raise UnreadableFileError(
            "the file is not readable as NPZ",
            hint="check that the file is complete and that its extension is the right one",
            path=path,
        ) from None
