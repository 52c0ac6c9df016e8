"""Tab-separated values."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from fmfl_secure.data.formats._delimited import read_delimited
from fmfl_secure.data.formats._lines import BOM, LineSource
from fmfl_secure.data.formats.base import TextFormat


class TabSeparated(TextFormat):
    """Header in the first line, quoted if the header's first field is.

    Otherwise a quotation mark is a character like any other, as in most corpora, and a field can
    hold neither tab nor line break. The header decides, not the rows: else one row could change
    how all others read.
    """

    name: ClassVar[str] = "TSV"
    suffixes: ClassVar[tuple[str, ...]] = (".tsv",)
    known_by: ClassVar[str] = "nothing: the name decides"
    columns_from: ClassVar[str] = "the header line"
    refuses: ClassVar[tuple[str, ...]] = (
        "broken quoting, where the header's first field is quoted; else nothing is quoted",
    )

    @override
    def parse(self, path: Path, data: bytes) -> LineSource:
        return read_delimited(path, data, "\t", quoted=data.removeprefix(BOM).startswith(b'"'))
