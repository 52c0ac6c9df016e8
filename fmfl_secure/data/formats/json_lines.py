"""JSON Lines: one object per line."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec

from fmfl_secure.data._source import Row, not_utf8
from fmfl_secure.data.errors import DataEncodingError, EmptyFileError, MalformedRowError
from fmfl_secure.data.formats._lines import BOM, LineSource
from fmfl_secure.data.formats.base import TextFormat
from fmfl_secure.data.stored import StoredText


class JsonLines(TextFormat):
    """One object per line.

    The columns are the keys of all objects, in order of first appearance; a key that an object
    lacks is null there. A string is itself; any other value is its own JSON text, unchanged
    (`1`, `1.0`, `true`), so that labels compare as they are written.
    """

    name: ClassVar[str] = "JSON Lines"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)
    known_by: ClassVar[str] = "nothing: the name decides"
    columns_from: ClassVar[str] = (
        "the records alone, so that a wrong name is found once they are read"
    )
    refuses: ClassVar[tuple[str, ...]] = ("a line that is not one whole object, as a bad row",)

    def header(self, path: Path) -> None:
        """See `Format`; there is none, but there must be something."""
        head = self.head(path)
        self.require_own(path, head)
        if not head:
            raise _empty(path)

    def parse(self, path: Path, data: bytes) -> LineSource:
        """See `TextFormat`."""
        columns: dict[str, None] = {}
        parsed: list[tuple[int, dict[str, str | None] | DataEncodingError | MalformedRowError]] = []
        raw_rows: list[bytes] = []
        for line, raw in enumerate(data.removeprefix(BOM).splitlines(keepends=True), start=1):
            if not raw.strip():
                continue
            number = len(parsed) + 1
            cells = _json_row(path, raw, number, line)
            if isinstance(cells, dict):
                columns.update(dict.fromkeys(cells))
            parsed.append((line, cells))
            raw_rows.append(raw)
        if not parsed:
            raise _empty(path)
        rows = [
            Row(number, line, tuple(map(cells.get, columns)))
            if isinstance(cells, dict)
            else Row(number, line, (), cells)
            for number, (line, cells) in enumerate(parsed, start=1)
        ]
        return LineSource(tuple(columns), rows, raw_rows, header=b"")


def _empty(path: Path) -> EmptyFileError:
    return EmptyFileError(
        "the file is empty; expected one JSON object per line",
        hint="check that this is the right file and that its export was complete",
        path=path,
    )


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
