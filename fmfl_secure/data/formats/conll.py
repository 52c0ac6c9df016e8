"""CoNLL files: a word with its tag on each line, and an empty line after each sentence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
from typing_extensions import override

from fmfl_secure.data._source import Row, not_utf8
from fmfl_secure.data.errors import DataEncodingError, EmptyFileError, MalformedRowError
from fmfl_secure.data.formats._lines import BOM, LineSource
from fmfl_secure.data.formats.base import TextFormat
from fmfl_secure.data.stored import StoredText

TOKENS, TAGS, DOCUMENT = "tokens", "tags", "document"
_DOCUMENT_BEGINS = b"-DOCSTART-"
_SENTENCE = list[tuple[int, bytes]]  # each line with its number


class Conll(TextFormat):
    """A row is a sentence, of the columns `tokens`, `tags` and `document`.

    The first column of a line is the word, the last one its tag; what stands between, such as a
    part of speech, is not read. Columns are separated by tabs where the line has one, else by
    spaces. A line of `-DOCSTART-` begins a document, whose number is the sentence's `document`: a
    file without one says of no sentence which document it is of.
    """

    name: ClassVar[str] = "CoNLL"
    suffixes: ClassVar[tuple[str, ...]] = (".conll", ".bio", ".iob")
    splits: ClassVar[bool] = False
    known_by: ClassVar[str] = "nothing: the name decides"
    columns_from: ClassVar[str] = (
        "the form: `tokens` and `tags` are a line's first and last column, `document` counts lines "
        "of `-DOCSTART-`"
    )
    refuses: ClassVar[tuple[str, ...]] = (
        "a sentence with a line of one column, or of another number than its others, as a bad row",
    )

    @override
    def header(self, path: Path) -> LineSource:
        """The columns are the form's."""
        head = self.head(path)
        self.require_own(path, head)
        if not head.strip():
            raise _empty(path)
        return LineSource((TOKENS, TAGS, DOCUMENT), [], [], header=b"")

    @override
    def parse(self, path: Path, data: bytes) -> LineSource:
        rows: list[Row] = []
        raw_rows: list[bytes] = []
        for document, lines in _sentences(data.removeprefix(BOM)):
            number, first = len(rows) + 1, lines[0][0]
            cells = _cells(path, lines, number)
            if isinstance(cells, tuple):
                rows.append(Row(number, first, (*cells, str(document) if document else None)))
            else:
                rows.append(Row(number, first, (), cells))
            raw_rows.append(b"\n".join(raw for _, raw in lines))
        if not rows:
            raise _empty(path)
        return LineSource((TOKENS, TAGS, DOCUMENT), rows, raw_rows, header=b"")


def _sentences(data: bytes) -> Iterator[tuple[int, _SENTENCE]]:
    """Each sentence's lines, and the number of its document; 0 before the first."""
    document, lines = 0, list[tuple[int, bytes]]()
    for number, raw in enumerate((*data.splitlines(), b""), start=1):
        begins = raw.startswith(_DOCUMENT_BEGINS)
        if raw.strip() and not begins:
            lines.append((number, raw))
            continue
        if lines:
            yield document, lines
            lines = []
        document += begins


def _cells(
    path: Path, lines: _SENTENCE, row: int
) -> tuple[str, str] | DataEncodingError | MalformedRowError:
    """Words and tags, as the texts of lists."""
    words, tags, widths = [], [], set()
    for line, raw in lines:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return not_utf8(path, row=row, line=line)
        # A no-break space is part of a word, and separates nothing.
        columns = text.split("\t") if "\t" in text else [c for c in text.split(" ") if c]
        columns = [column.strip() for column in columns]
        words.append(columns[0])
        tags.append(columns[-1])
        widths.add(len(columns))
        if len(columns) < 2 or len(widths) > 1:
            return MalformedRowError(
                f"the sentence has a line of {len(columns)} column(s) "
                f"{'and others of more or fewer' if len(widths) > 1 else ''}".rstrip(),
                hint="write each line as a word, its tag, and the same between; an empty line "
                "ends a sentence",
                path=path,
                row=row,
                line=line,
            )
    return _list(words), _list(tags)


def _list(items: list[str]) -> StoredText:
    return StoredText.of(msgspec.json.encode(items).decode(), "structure")


def _empty(path: Path) -> EmptyFileError:
    return EmptyFileError(
        "the file is empty; expected a word and its tag on each line",
        hint="check that this is the right file and that its export was complete",
        path=path,
    )
