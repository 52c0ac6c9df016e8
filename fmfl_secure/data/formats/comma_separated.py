"""Comma-separated values, and those that spreadsheets separate otherwise under the same name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from fmfl_secure.data.errors import MalformedRowError
from fmfl_secure.data.formats._delimited import read_delimited
from fmfl_secure.data.formats._lines import BOM, LineSource
from fmfl_secure.data.formats.base import TextFormat

_OTHERS = {b";": "semicolons", b"\t": "tabs", b"|": "bars"}


class CommaSeparated(TextFormat):
    """RFC 4180 quoting, header in the first line.

    A header without a comma but with semicolons, tabs or bars is separated by those: so write
    spreadsheets where the comma is a decimal sign. The header decides, and no row: else one row
    could change how all others read.
    """

    name: ClassVar[str] = "CSV"
    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    known_by: ClassVar[str] = (
        "nothing: the name decides. Separated by commas; by semicolons, tabs or bars where the "
        "header has one sort of those and no comma, which `check` says"
    )
    columns_from: ClassVar[str] = "the header line"
    refuses: ClassVar[tuple[str, ...]] = (
        "broken quoting, wherever it stands: the rows behind it cannot be trusted",
        "a header without commas and with two of the other separators",
    )

    @override
    def parse(self, path: Path, data: bytes) -> LineSource:
        return read_delimited(path, data, separator_of(path, data).decode(), quoted=True)

    @override
    def described(self, path: Path) -> str:
        found = separator_of(path, self.first_row(path))
        return self.name if found == b"," else f"{self.name}, separated by {_OTHERS[found]}"


def separator_of(path: Path, data: bytes) -> bytes:
    """Finds the sign that stands between values, by the header.

    Args:
        path: The file, for refusals.
        data: Its bytes, of the header at least.

    Raises:
        MalformedRowError: Two could be meant.
    """
    bare = _unquoted(data)
    found = [sign for sign in (b",", *_OTHERS) if sign in bare]
    if b"," in found or not found:
        return b","
    if len(found) > 1:
        raise MalformedRowError(
            f"the header has no comma, and {' and '.join(_OTHERS[sign] for sign in found)}",
            hint="separate values by commas; quote a name that has a separator in it",
            path=path,
            line=1,
        )
    return found[0]


def _unquoted(data: bytes) -> bytes:
    """The header's first line without what stands in quotes, and nothing of any record."""
    bare, quoted = bytearray(), False
    for byte in data.removeprefix(BOM)[: 1 << 20]:
        if byte == ord('"'):
            quoted = not quoted
        elif not quoted:
            if byte in b"\r\n":
                if bare:
                    break
                continue
            bare.append(byte)
    return bytes(bare)
