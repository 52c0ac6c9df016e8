"""CSV, TSV and JSON Lines: text formats whose rows are runs of whole lines.

Each row keeps the bytes it was read from, so that a part of a file can be written back without
re-encoding anything.

Lines end with LF, CRLF or CR, in any mixture; no other character ends a line (`str.splitlines`
would also cut at U+2028 and friends, which texts contain). A blank line is not a row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from fmfl_secure.data._source import Row, not_utf8, require_distinct
from fmfl_secure.data.errors import DataEncodingError, EmptyFileError, MalformedRowError
from fmfl_secure.data.unit_ids import StoredText

_BOM = b"\xef\xbb\xbf"
_QUOTING_HINT = (
    'a field with separators, quotes or line breaks is written as "...", with "" for each quote '
    "inside; the row may have begun earlier than it should. Where texts are long or hostile, use "
    ".jsonl or .parquet, which have no such rule"
)


class LineSource:
    """A text file taken apart into rows, with the bytes of each (see `Source`)."""

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

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, names: Sequence[str]) -> Iterator[Row]:
        """Yields every row in file order with the values of the columns `names`."""
        places = [self._columns.index(name) for name in names]
        for row in self._rows:
            if row.fault is None:
                yield Row(row.number, row.line, tuple(row.values[place] for place in places))
            else:
                yield row

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
        ending = _ending(self._header or (self._raw_rows[0] if self._raw_rows else b"")) or b"\n"
        for index in indices:
            raw = self._raw_rows[index]
            # Only a file's last row can lack its terminator, and it need not be last any more.
            parts.append(raw if _ending(raw) else raw + ending)
        return b"".join(parts)


def read_csv(path: Path, data: bytes) -> LineSource:
    """Parses comma-separated values, RFC 4180 quoting, header in the first line."""
    return _read_delimited(path, data, ",", quoted=True)


def read_tsv(path: Path, data: bytes) -> LineSource:
    """Parses tab-separated values, header in the first line.

    A TSV file is quoted if its header's first field is. Otherwise a quotation mark is a
    character like any other, as in most corpora, and a field can hold neither tab nor line
    break. The header decides, not the rows: else one row could change how all others read.
    """
    quoted = data.removeprefix(_BOM).startswith(b'"')
    return _read_delimited(path, data, "\t", quoted=quoted)


def _read_delimited(path: Path, data: bytes, delimiter: str, *, quoted: bool) -> LineSource:
    _refuse_utf16(path, data)
    lines = data.splitlines(keepends=True)  # bytes: only LF, CRLF and CR
    not_text: set[int] = set()  # line numbers
    decoded = _decode_all(lines, not_text)
    records = (
        _quoted_records(path, decoded, delimiter, size=len(data))
        if quoted
        else _plain_records(decoded, delimiter)
    )
    columns: tuple[str, ...] | None = None
    header = b""
    rows: list[Row] = []
    raw_rows: list[bytes] = []
    for first, last, fields in records:
        if not fields:
            continue
        raw = b"".join(lines[first - 1 : last])
        is_text = not_text.isdisjoint(range(first, last + 1)) if not_text else True
        if columns is None:
            if not is_text:
                raise not_utf8(path, line=first)
            columns = require_distinct(fields, path)
            header = raw if _ending(raw) else raw + b"\n"
            continue
        number = len(rows) + 1
        fault: MalformedRowError | DataEncodingError | None = None
        if not is_text:
            fault = not_utf8(path, row=number, line=first)
        elif len(fields) != len(columns):
            fault = MalformedRowError(
                f"the row has {len(fields)} column(s), the header has {len(columns)}",
                hint="mend or remove the row; "
                + (
                    _QUOTING_HINT
                    if quoted
                    else "a .tsv file is read as quoted only if its header's first field is quoted"
                ),
                path=path,
                row=number,
                line=first,
            )
        rows.append(Row(number, first, () if fault else tuple(fields), fault))
        raw_rows.append(raw)
    if columns is None:
        raise EmptyFileError(
            "the file is empty; expected a header line with column names, then one row per record",
            hint="check that this is the right file and that its export was complete",
            path=path,
        )
    return LineSource(columns, rows, raw_rows, header)


def read_jsonl(path: Path, data: bytes) -> LineSource:
    """Parses JSON Lines: one object per line.

    The columns are the keys of all objects, in order of first appearance; a key that an object
    lacks is null there. A string is itself; any other value is its own JSON text, unchanged
    (`1`, `1.0`, `true`), so that labels compare as they are written.
    """
    _refuse_utf16(path, data)
    columns: dict[str, None] = {}
    parsed: list[tuple[int, dict[str, str | None] | DataEncodingError | MalformedRowError]] = []
    raw_rows: list[bytes] = []
    for line, raw in enumerate(data.removeprefix(_BOM).splitlines(keepends=True), start=1):
        if not raw.strip():
            continue
        number = len(parsed) + 1
        cells = _json_row(path, raw, number, line)
        if isinstance(cells, dict):
            columns.update(dict.fromkeys(cells))
        parsed.append((line, cells))
        raw_rows.append(raw)
    if not parsed:
        raise EmptyFileError(
            "the file is empty; expected one JSON object per line",
            hint="check that this is the right file and that its export was complete",
            path=path,
        )
    rows = [
        Row(number, line, tuple(map(cells.get, columns)))
        if isinstance(cells, dict)
        else Row(number, line, (), cells)
        for number, (line, cells) in enumerate(parsed, start=1)
    ]
    return LineSource(tuple(columns), rows, raw_rows, header=b"")


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)


def _json_row(
    path: Path, raw: bytes, number: int, line: int
) -> dict[str, str | None] | DataEncodingError | MalformedRowError:
    try:
        raw.decode()
        return {key: _json_value(bytes(value)) for key, value in _OBJECT.decode(raw).items()}
    except UnicodeDecodeError:
        return not_utf8(path, row=number, line=line)
    # The decoder's messages give a position and a kind, never the text.
    except msgspec.DecodeError as error:
        reason = str(error)
    except RecursionError:
        reason = "nested too deeply"
    return MalformedRowError(
        f"the line is not one valid JSON object: {reason}",
        hint='each line is one complete object, such as {"text": "...", "label": "..."}',
        path=path,
        row=number,
        line=line,
    )


def _json_value(raw: bytes) -> str | None:
    if raw.startswith(b'"'):
        return _STRING.decode(raw)
    if raw == b"null":
        return None
    text = raw.decode()
    if raw in {b"true", b"false"}:
        return StoredText.of(text, "truth")
    if raw.startswith((b"{", b"[")):
        return StoredText.of(text, "structure")
    return StoredText.of(text, "float" if set(raw) & set(b".eE") else "number")


def _decode_all(lines: Iterable[bytes], not_text: set[int]) -> Iterator[str]:
    """Decodes line by line, noting the numbers of those that are not UTF-8.

    Their bad bytes become surrogates: separators and quotes stay where they are, so one such
    line costs its own row and no other.
    """
    for number, raw in enumerate(lines, start=1):
        line = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            yield line.decode()
        except UnicodeDecodeError:
            not_text.add(number)
            yield line.decode(errors="surrogateescape")


def _plain_records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yields (first line, last line, fields) where a line is a record and a quote is a quote."""
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r\n")
        yield number, number, text.split(delimiter) if text else []


def _quoted_records(
    path: Path, lines: Iterable[str], delimiter: str, *, size: int
) -> Iterator[tuple[int, int, list[str]]]:
    """Yields (first line, last line, fields); a quoted field may span lines.

    The standard library's parser, because it knows the line a record began on and refuses an
    unclosed quote. Broken quoting raises at once, whatever `on_bad_row` says: where the next
    record begins is a guess from there on, and a wrong guess would damage other people's rows.

    A field may be as long as the file, of `size` bytes. The parser's own limit, 128 KiB, would
    fail the whole file for one person's long text.
    """
    limit = csv.field_size_limit()
    csv.field_size_limit(max(limit, size))
    try:
        yield from _parsed_records(path, lines, delimiter)
    finally:
        csv.field_size_limit(limit)


def _parsed_records(
    path: Path, lines: Iterable[str], delimiter: str
) -> Iterator[tuple[int, int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    first, row = 1, 0  # row 0 is the header
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise MalformedRowError(
                f"the quoting is broken: {error}",
                hint=_QUOTING_HINT,
                path=path,
                row=row or None,
                line=first,
            ) from None
        yield first, reader.line_num, fields
        first = reader.line_num + 1
        row += bool(fields)


def _refuse_utf16(path: Path, data: bytes) -> None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataEncodingError(
            "the file is UTF-16; expected UTF-8",
            hint="convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW",
            path=path,
        )


def _ending(raw: bytes) -> bytes:
    if raw.endswith(b"\r\n"):
        return b"\r\n"
    return raw[-1:] if raw.endswith((b"\n", b"\r")) else b""
