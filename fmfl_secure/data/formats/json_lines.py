"""JSON Lines: one object per line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from fmfl_secure.data.errors import EmptyFileError, UnreadableFileError
from fmfl_secure.data.formats._json_rows import json_source
from fmfl_secure.data.formats._lines import BOM, LineSource
from fmfl_secure.data.formats.base import TextFormat


class JsonLines(TextFormat):
    """One object per line.

    The columns are the keys of all objects, in order of first appearance; a key that an object
    lacks is null there. A string is itself; any other value is its own JSON text, unchanged
    (`1`, `1.0`, `true`), so that labels compare as they are written.
    """

    name: ClassVar[str] = "JSON Lines"
    suffixes: ClassVar[tuple[str, ...]] = (".jsonl",)
    known_by: ClassVar[str] = "nothing: the name decides"
    columns_from: ClassVar[str] = "the records alone: a name that none of them has is not there"
    refuses: ClassVar[tuple[str, ...]] = (
        "a line that is not one whole object, or has a key twice, as a bad row",
        "a file that begins with an array of objects: it is a JSON array",
    )

    @override
    def header(self, path: Path) -> None:
        """There is none, but there must be something."""
        head = self.head(path)
        self.require_own(path, head)
        if not head:
            raise _empty(path)

    @override
    def parse(self, path: Path, data: bytes) -> LineSource:
        lines = enumerate(data.removeprefix(BOM).splitlines(keepends=True), start=1)
        found = [(line, raw) for line, raw in lines if raw.strip()]
        if not found:
            raise _empty(path)
        return json_source(path, found)

    @override
    def require_own(self, path: Path, head: bytes) -> None:
        """An array of objects, on one line or many, is another form."""
        super().require_own(path, head)
        if _ARRAY.match(head.removeprefix(BOM)):
            raise UnreadableFileError(
                "the file is a JSON array, and not an object on each line",
                hint="give it the extension .json",
                path=path,
            )


# An array of objects, on its first line or on those below; a list of anything else is a bad row.
_ARRAY = re.compile(rb"\s*\[\s*(\{|$|\]\s*$)")


def _empty(path: Path) -> EmptyFileError:
    return EmptyFileError(
        "the file is empty; expected one JSON object per line",
        hint="check that this is the right file and that its export was complete",
        path=path,
    )
