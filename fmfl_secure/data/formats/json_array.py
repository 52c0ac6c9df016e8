"""A JSON file with one array of objects, as pandas and APIs write records."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec
from typing_extensions import override

from fmfl_secure.data._source import not_utf8
from fmfl_secure.data.errors import EmptyFileError, UnreadableFileError
from fmfl_secure.data.formats._json_rows import json_source
from fmfl_secure.data.formats._lines import BOM, LineSource
from fmfl_secure.data.formats.base import TextFormat

_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])


class JsonArray(TextFormat):
    """One array in one file; each of its objects is a row, read as one of JSON Lines is."""

    name: ClassVar[str] = "JSON array"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    splits: ClassVar[bool] = False
    known_by: ClassVar[str] = "`[` at its beginning"
    columns_from: ClassVar[str] = "the records alone: a name that none of them has is not there"
    refuses: ClassVar[tuple[str, ...]] = (
        "an object in place of the array, such as one of columns or of splits",
        "JSON Lines under this name",
        "broken JSON, wherever it stands: the rows behind it cannot be trusted",
    )

    @override
    def header(self, path: Path) -> None:
        """There is none, but the file must begin as an array."""
        head = self.head(path)
        self.require_own(path, head)
        _require_array(path, head)

    @override
    def parse(self, path: Path, data: bytes) -> LineSource:
        text = data.removeprefix(BOM)
        _require_array(path, text)
        try:
            items = [bytes(item) for item in _ITEMS.decode(text)]
        except UnicodeDecodeError:
            raise not_utf8(path) from None
        except (msgspec.DecodeError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise UnreadableFileError(
                f"the file is not one JSON array: {reason}",
                hint="write it again, whole; or as .jsonl, where a broken line costs itself alone",
                path=path,
            ) from None
        if not items:
            raise _empty(path)
        return json_source(path, [(None, item) for item in items])


def _require_array(path: Path, data: bytes) -> None:
    begins = data.removeprefix(BOM).lstrip()[:1]
    if begins == b"[":
        return
    if not begins:
        raise _empty(path)
    first, _, rest = data.removeprefix(BOM).lstrip().partition(b"\n")
    lines = first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")
    raise UnreadableFileError(
        "the file is JSON Lines, with an object on each line"
        if lines
        else "the file is no array of objects: it begins with an object"
        if begins == b"{"
        else "the file does not begin with an array",
        hint="give it the extension .jsonl"
        if lines
        else 'write one array, such as [{"text": "...", "label": "..."}]; with pandas: '
        "to_json(orient='records')",
        path=path,
    )


def _empty(path: Path) -> EmptyFileError:
    return EmptyFileError(
        "the file is empty; expected an array of objects",
        hint="check that this is the right file and that its export was complete",
        path=path,
    )
