"""Text formats whose rows are runs of whole lines.

Each row keeps the bytes it was read from, so that a part of a file can be written back without
re-encoding anything.

Lines end with LF, CRLF or CR, in any mixture; no other character ends a line (`str.splitlines`
would also cut at U+2028 and friends, which texts contain). A blank line is not a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
from typing_extensions import override

from fmfl_secure.data._source import CellKind, Row, Source

BOM = b"\xef\xbb\xbf"


class LineSource(Source):
    """A text file taken apart into rows, with the bytes of each."""

    def __init__(
        self,
        columns: tuple[str, ...],
        rows: Sequence[Row],
        raw_rows: Sequence[bytes],
        header: bytes,
    ) -> None:
        """Takes the parts over.

        Args:
            columns: Names in file order.
            rows: All rows, each with a value for every column.
            raw_rows: The bytes of each row, line terminators included.
            header: The bytes of the header line, terminator included; empty for none.
        """
        self._columns = columns
        self._rows = rows
        self._raw_rows = raw_rows
        self._header = header

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, distinct, in file order."""
        return self._columns

    @property
    @override
    def has_schema(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, names: Sequence[str], *, as_bytes: Collection[str] = ()) -> Iterator[Row]:  # noqa: ARG002
        """Yields every row in file order with the values of the columns `names`."""
        places = [self._columns.index(name) for name in names]
        for row in self._rows:
            if row.fault is None:
                yield Row(row.number, row.line, tuple(row.values[place] for place in places))
            else:
                yield row

    def kind_of(self, name: str) -> CellKind:  # noqa: ARG002
        """Says nothing: a cell of a text format may hold anything."""
        return "any"

    def table(self) -> pa.Table:
        """Returns the whole file, every column a string; raises the first fault there is."""
        for row in self._rows:
            if row.fault is not None:
                raise row.fault
        return pa.table(
            [
                pa.array([row.values[place] for row in self._rows], pa.string())
                for place in range(len(self._columns))
            ],
            names=list(self._columns),
        )

    def select(self, indices: Sequence[int]) -> bytes:
        """Returns a file with the same header and only these rows, byte for byte."""
        parts = [self._header]
        ending = ending_of(self._header or (self._raw_rows[0] if self._raw_rows else b"")) or b"\n"
        for index in indices:
            raw = self._raw_rows[index]
            # Only a file's last row can lack its terminator, and it need not be last any more.
            parts.append(raw if ending_of(raw) else raw + ending)
        return b"".join(parts)


def ending_of(raw: bytes) -> bytes:
    if raw.endswith(b"\r\n"):
        return b"\r\n"
    return raw[-1:] if raw.endswith((b"\n", b"\r")) else b""
