"""Values with a separator between them: what comma- and tab-separated files share."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from fmfl_secure.data._source import Row, not_utf8, require_distinct
from fmfl_secure.data.errors import DataEncodingError, EmptyFileError, MalformedRowError
from fmfl_secure.data.formats._lines import BOM, LineSource, ending_of

_QUOTING_HINT = (
    'a field with separators, quotes or line breaks is written as "...", with "" for each quote '
    "inside; the row may have begun earlier than it should. Where texts are long or hostile, use "
    ".jsonl or .parquet, which have no such rule"
)


def read_delimited(path: Path, data: bytes, delimiter: str, *, quoted: bool) -> LineSource:
    """Parses values with a separator between them, the header in the first line.

    Args:
        path: The file, for refusals.
        data: Its bytes.
        delimiter: One character.
        quoted: Whether a field may be quoted, RFC 4180; else a quotation mark is a character.
    """
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
            header = raw if ending_of(raw) else raw + b"\n"
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


def _decode_all(lines: Iterable[bytes], not_text: set[int]) -> Iterator[str]:
    """Decodes line by line, noting the numbers of those that are not UTF-8.

    Their bad bytes become surrogates: separators and quotes stay where they are, so one such
    line costs its own row and no other.
    """
    for number, raw in enumerate(lines, start=1):
        line = raw.removeprefix(BOM) if number == 1 else raw
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
