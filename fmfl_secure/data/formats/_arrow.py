"""Tables of Arrow as rows of strings and pictures: what Parquet and folders of datasets share.

`data.formats.parquet` and `data.formats.dataset_folder` open an `ArrowSource` over the table that
each reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import override

from fmfl_secure.data._source import CellKind, Row, Source, not_utf8, require_distinct
from fmfl_secure.data.errors import MalformedRowError, UnreadableFileError
from fmfl_secure.data.formats._arrow_lists import (
    is_list,
    is_messages,
    list_cells,
    message_cells,
    names_of,
)
from fmfl_secure.data.stored import HeldAs, StoredPicture, StoredText

# What pyarrow raises on a file that is not what it should be; a name that is not UTF-8 among it.
ARROW_FAILURES = (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError)
# Bits of a float's significand, by its width.
_SIGNIFICANDS: Mapping[int, int] = MappingProxyType({16: 11, 32: 24, 64: 53})


class ArrowSource(Source):
    """A table that was read whole."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        """Takes a table that was read from `path`.

        Raises:
            DataError: Two columns have one name, or a name is not UTF-8.
        """
        self._path = path
        self._table = table
        try:
            names = table.column_names
        except UnicodeDecodeError:
            raise UnreadableFileError(
                "a column's name is not UTF-8", hint="rename the columns, or export anew", path=path
            ) from None
        self._columns = require_distinct(names, path)

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, distinct, in file order."""
        return self._columns

    @property
    @override
    def has_schema(self) -> bool:
        return True

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def rows(self, names: Sequence[str], *, as_bytes: Collection[str] = ()) -> Iterator[Row]:
        """Yields every row in file order with the values of the columns `names`.

        Numbers, booleans and dates become their usual text: 1 is "1", and so is 1.0.
        """
        readers = [
            self._pictures(name)
            if self.kind_of(name) == "picture"
            or (name in as_bytes and self.kind_of(name) == "bytes")
            else self._texts(name)
            for name in names
        ]
        for number in range(1, len(self) + 1):
            try:
                values = tuple(read(number - 1) for read in readers)
            except UnicodeDecodeError:
                yield Row(number, None, (), not_utf8(self._path, row=number))
            else:
                yield Row(number, None, values)

    def table(self) -> pa.Table:
        """Returns the file's table, its types unchanged."""
        return self._table

    @override
    def kind_of(self, name: str) -> CellKind:
        kind = _plain_type(self._table.column(name).type)
        if is_list(kind):
            named = not pa.types.is_integer(kind.value_type) or names_of(self._table.schema, name)
            return "list" if named else "numbers"
        return next((each for holds, each in _KINDS if holds(kind)), "text")

    @override
    def names_of(self, name: str) -> Sequence[str]:
        return names_of(self._table.schema, name)

    def select(self, indices: Sequence[int]) -> bytes:
        """Returns a Parquet file of the same schema with only these rows."""
        sink = pa.BufferOutputStream()
        pq.write_table(self._table.take(pa.array(indices, pa.int64())), sink)
        return bytes(sink.getvalue().to_pybytes())

    def _texts(self, name: str) -> Callable[[int], str | None]:
        cells, text = self._bytes_of(name), self._text_of(name)

        def read(row: int) -> str | None:
            cell = cells[row]
            return None if cell is None else text(cell.decode())

        return read

    def _pictures(self, name: str) -> Callable[[int], str | None]:
        cells = self._table.column(name).to_pylist()

        def read(row: int) -> str | None:
            cell = cells[row]
            if isinstance(cell, dict):
                return StoredPicture.of_file(cell["bytes"], cell["path"])
            return None if cell is None else StoredPicture.of_file(cell)

        return read

    def _text_of(self, name: str) -> Callable[[str], str]:
        """Returns how a cell becomes text: as it is, or as the text of a number."""
        kind = _plain_type(self._table.column(name).type)
        if is_list(kind) or is_messages(kind):
            return lambda text: StoredText.of(text, "structure")
        if pa.types.is_integer(kind):
            names = names_of(self._table.schema, name)
            return lambda text: StoredText.of(text, "number", named=_name(text, names))
        if pa.types.is_decimal(kind):
            return lambda text: StoredText.of(text, "number")
        if pa.types.is_floating(kind):
            bits = _SIGNIFICANDS[kind.bit_width]
            return lambda text: StoredText.of(text, "float", bits)
        if pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
            held: HeldAs = "truth" if pa.types.is_boolean(kind) else "time"
            return lambda text: StoredText.of(text, held)
        return str

    def _bytes_of(self, name: str) -> list[bytes | None]:
        """The column as UTF-8 bytes: strings in Parquet are not checked when they are read."""
        column = self._table.column(name)
        if pa.types.is_dictionary(column.type):
            column = pc.cast(column, column.type.value_type)
        kind = column.type
        if is_list(kind):
            return list_cells(self._table, name)
        if is_messages(kind):
            return message_cells(self._table, name)
        try:
            if not _is_binary(kind):
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                    column = pc.cast(column, pa.large_string())
                column = pc.cast(column, pa.large_binary())
        except pa.ArrowException:
            raise MalformedRowError(
                f"column {name!r} has the type {kind}; expected text, numbers, booleans, "
                "pictures, or lists of texts or integers",
                hint="name another column, or store this one as text",
                path=self._path,
            ) from None
        values: list[bytes | None] = column.to_pylist()
        return values


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of what a dictionary encodes; else the type itself."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: pa.DataType) -> bool:
    return any(
        test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    )


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_picture(kind: pa.DataType) -> bool:
    """Whether a column holds files, as Hugging Face's datasets do: {bytes, path}."""
    if not pa.types.is_struct(kind) or {field.name for field in kind} != {"bytes", "path"}:
        return False
    content, path = kind.field("bytes").type, kind.field("path").type
    # A writer that saw no path, or no bytes, gives that field no type.
    return (_is_binary(content) or pa.types.is_null(content)) and bool(
        pa.types.is_string(path) or pa.types.is_large_string(path) or pa.types.is_null(path)
    )


_KINDS: Final[Sequence[tuple[Callable[[pa.DataType], bool], CellKind]]] = (
    (is_messages, "messages"),
    (_is_picture, "picture"),
    (_is_binary, "bytes"),
    (_is_number, "number"),
    (pa.types.is_boolean, "truth"),
    (pa.types.is_temporal, "time"),
    (pa.types.is_null, "nothing"),
)


def _name(text: str, names: Sequence[str]) -> str:
    """Returns the name that an integer stands for; empty where nothing says."""
    index = int(text)
    return names[index] if 0 <= index < len(names) else ""
