"""Comma-separated values."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fmfl_secure.data.formats._delimited import read_delimited
from fmfl_secure.data.formats._lines import LineSource
from fmfl_secure.data.formats.base import TextFormat


class CommaSeparated(TextFormat):
    """RFC 4180 quoting, header in the first line."""

    name: ClassVar[str] = "CSV"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    known_by: ClassVar[str] = "nothing: the name decides"
    columns_from: ClassVar[str] = "the header line"
    refuses: ClassVar[tuple[str, ...]] = (
        "broken quoting, wherever it stands: the rows behind it cannot be trusted",
    )

    def parse(self, path: Path, data: bytes) -> LineSource:
        """See `TextFormat`."""
        return read_delimited(path, data, ",", quoted=True)
