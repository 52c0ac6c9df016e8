"""Apache Parquet as rows of strings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fmfl_secure.data._source import CellKind, Row, not_utf8, require_distinct
from fmfl_secure.data.errors import MalformedRowError, UnreadableFileError
from fmfl_secure.data.formats._parquet_lists import is_list, list_cells
from fmfl_secure.data.formats.base import Format, compressed
from fmfl_secure.data.unit_ids import StoredText

# Bits of a float's significand, by its width.
_SIGNIFICANDS: Mapping[int, int] = MappingProxyType({16: 11, 32: 24, 64: 53})


class ParquetSource:
    """A Parquet file read whole (see `Source`)."""

    def __init__(self, path: Path, table: pa.Table) -> None:
        """Takes a table that was read from `path`."""
        self._path = path
        self._table = table
        self._columns = require_distinct(table.column_names, path)

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, distinct, in file order."""
        return self._columns

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Yields every row in file order with the values of the columns `names`.

        Numbers, booleans and dates become their usual text: 1 is "1", and so is 1.0.
        """
        cells = [self._bytes_of(name) for name in names]
        texts = [self._text_of(name) for name in names]
        for number in range(1, len(self) + 1):
            raw = [column[number - 1] for column in cells]
            try:
                values = tuple(
                    None if cell is None else text(cell.decode())
                    for cell, text in zip(raw, texts, strict=True)
                )
            except UnicodeDecodeError:
                yield Row(number, None, (), not_utf8(self._path, row=number))
            else:
                yield Row(number, None, values)

    def table(self) -> pa.Table:
        """Returns the file's table, its types unchanged."""
        return self._table

    def kind_of(self, name: str) -> CellKind:
        """What the cells of a column hold, by the schema."""
        return "list" if is_list(self._table.column(name).type) else "value"

    def select(self, indices: Sequence[int]) -> bytes:
        """Returns a Parquet file of the same schema with only these rows."""
        sink = pa.BufferOutputStream()
        pq.write_table(self._table.take(pa.array(indices, pa.int64())), sink)
        return bytes(sink.getvalue().to_pybytes())

    def _text_of(self, name: str) -> Callable[[str], str]:
        """What a cell's text becomes: itself, or the text of a number."""
        kind = self._table.column(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if is_list(kind):
            return lambda text: StoredText.of(text, "structure")
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
            return lambda text: StoredText.of(text, "number")
        if pa.types.is_floating(kind):
            bits = _SIGNIFICANDS[kind.bit_width]
            return lambda text: StoredText.of(text, "float", bits)
        if pa.types.is_boolean(kind):
            return lambda text: StoredText.of(text, "truth")
        return str

    def _bytes_of(self, name: str) -> list[bytes | None]:
        """The column as UTF-8 bytes: strings in Parquet are not checked when they are read."""
        column = self._table.column(name)
        if pa.types.is_dictionary(column.type):
            column = pc.cast(column, column.type.value_type)
        kind = column.type
        if is_list(kind):
            return list_cells(self._table, name)
        try:
            if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                    column = pc.cast(column, pa.large_string())
                column = pc.cast(column, pa.large_binary())
        except pa.ArrowException:
            raise MalformedRowError(
                f"column {name!r} has the type {kind}; expected text, numbers, booleans, or "
                "lists of texts or integers",
                hint="name another column, or store this one as text",
                path=self._path,
            ) from None
        values: list[bytes | None] = column.to_pylist()
        return values


class Parquet(Format):
    """Apache Parquet."""

    name: ClassVar[str] = "Parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)
    compressible: ClassVar[bool] = True
    splits: ClassVar[bool] = True
    known_by: ClassVar[str] = "`PAR1` at its beginning"
    columns_from: ClassVar[str] = "the schema"
    refuses: ClassVar[tuple[str, ...]] = (
        "columns of other types than text, numbers, booleans, and lists of texts or integers",
    )

    def begins(self, head: bytes) -> bool:
        """See `Format`."""
        return head.startswith(b"PAR1")

    def header(self, path: Path) -> ParquetSource | None:
        """See `Format`; a compressed file has its schema at the end, behind the records."""
        head = self.head(path)
        if compressed(path):
            return None
        self.require_own(path, head)
        try:
            schema = pq.read_schema(path)
        except (pa.ArrowException, OSError):
            raise _not_parquet(path) from None
        return ParquetSource(path, schema.empty_table())

    def read(self, path: Path, data: bytes | None = None) -> ParquetSource:
        """See `Format`."""
        content = self.content(path, data)
        try:
            # Not `read_table(path)`: that reads columns out of directory names (hive=1/...).
            with pq.ParquetFile(pa.BufferReader(content)) as file:
                table = file.read()
        except (pa.ArrowException, OSError):
            raise _not_parquet(path) from None
        return ParquetSource(path, table)


def _not_parquet(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        "the file is not readable as Parquet",
        hint="check that the file is complete and that its extension is the right one",
        path=path,
    )
