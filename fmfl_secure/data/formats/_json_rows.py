"""JSON objects as rows: what JSON Lines and arrays share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from fmfl_secure.data._source import Row, not_utf8
from fmfl_secure.data.errors import DataEncodingError, MalformedRowError
from fmfl_secure.data.formats._lines import LineSource
from fmfl_secure.data.stored import StoredText

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)


def json_source(path: Path, objects: Sequence[tuple[int | None, bytes]]) -> LineSource:
    """Rows of JSON texts.

    The columns are the keys of all objects, in order of first appearance.

    Args:
        path: The file, for refusals.
        objects: The line of each, where lines tell, and its text.
    """
    parsed = [
        (line, _json_row(path, raw, number, line))
        for number, (line, raw) in enumerate(objects, start=1)
    ]
    columns = dict.fromkeys(key for _, cells in parsed if isinstance(cells, dict) for key in cells)
    rows = [
        Row(number, line, tuple(map(cells.get, columns)))
        if isinstance(cells, dict)
        else Row(number, line, (), cells)
        for number, (line, cells) in enumerate(parsed, start=1)
    ]
    return LineSource(tuple(columns), rows, [raw for _, raw in objects], header=b"")


def _json_row(
    path: Path, raw: bytes, number: int, line: int | None
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
        f"the row is not one valid JSON object: {reason}",
        hint='each row is one complete object, such as {"text": "...", "label": "..."}',
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
