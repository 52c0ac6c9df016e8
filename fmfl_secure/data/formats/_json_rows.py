"""JSON objects as rows: what JSON Lines and arrays share."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fmfl_secure.data._source import Row, not_utf8
from fmfl_secure.data.errors import DataEncodingError, MalformedRowError
from fmfl_secure.data.formats._lines import LineSource
from fmfl_secure.data.stored import StoredText

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STRING = msgspec.json.Decoder(str)


class _KeyTwice(ValueError):
    """An object has a key twice, at any depth."""


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _KeyTwice


# Where a key ends, and perhaps elsewhere: as many as there are cells is one for each key.
_KEY_ENDS = re.compile(rb'"[ \t\r\n]*:')
# msgspec takes the last of two values without a word. Numbers stay texts: nothing here is kept.
_KEYS = json.JSONDecoder(object_pairs_hook=_once, parse_int=str, parse_float=str, strict=False)


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
        text = raw.decode()
        cells = {key: _json_value(bytes(value)) for key, value in _OBJECT.decode(raw).items()}
        if len(_KEY_ENDS.findall(raw)) != len(cells):
            _KEYS.decode(text)
    except UnicodeDecodeError:
        return not_utf8(path, row=number, line=line)
    except _KeyTwice:
        return MalformedRowError(
            "an object of the row has a key twice: which value is meant cannot be known",
            hint="write each key once; the program that wrote the row joined two columns of a name",
            path=path,
            row=number,
            line=line,
            sort="key that an object has twice",
        )
    # The decoder's messages give a position and a kind, never the text.
    except msgspec.DecodeError as error:
        reason = str(error)
    except RecursionError:
        reason = "nested too deeply"
    else:
        return cells
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
