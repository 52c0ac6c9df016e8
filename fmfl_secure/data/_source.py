"""A tabular file as rows of strings, whatever its format, and the way back to a file.

Each form's module makes a `Source`; `data.headers` asks it for its columns before a charge, and
`data.fields` for its rows behind it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias

import pyarrow as pa

from fmfl_secure.data.errors import (
    DataEncodingError,
    DataError,
    MissingColumnError,
    UnreadableFileError,
)
from fmfl_secure.outside import read_regular

UTF8_HINT = (
    "convert the file, for example: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW "
    "(a spreadsheet's 'CSV UTF-8' export does the same)"
)


# What the cells of a column hold, by the file's header: `any` where that says nothing, `numbers` a
# list of them, `nothing` where no row has a value, `volume` what no field takes.
CellKind: TypeAlias = Literal[
    "any",
    "text",
    "number",
    "truth",
    "time",
    "list",
    "numbers",
    "messages",
    "bytes",
    "picture",
    "nothing",
    "volume",
]
SCALARS: Final[tuple[CellKind, ...]] = ("text", "number", "truth", "time")


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """One data row.

    Attributes:
        number: From 1, header and blank lines not counted.
        line: Line of the file on which the row begins, from 1; None where there are no lines.
        values: One value per column asked for; None is null. Empty where there is a fault.
        fault: What is wrong with the row itself, not raised yet; None for a good row.
    """

    number: int
    line: int | None
    values: tuple[str | None, ...]
    fault: DataError | None = None


class UnusableValue(Exception):
    """A fault of a value, before anyone knows where it stands. Never quotes the value.

    Args:
        kind: What to raise of it.
        problem: What is wrong.
        hint: What to do.
        sort: What it is called where faults are counted; empty for what its kind is called.
    """

    def __init__(self, kind: type[DataError], problem: str, hint: str, sort: str = "") -> None:
        super().__init__(problem)
        self.kind = kind
        self.problem = problem
        self.hint = hint
        self.sort = sort

    def at(self, path: Path, row: int, line: int | None = None) -> DataError:
        """Makes the error to raise, now that the place is known."""
        return self.kind(
            self.problem, hint=self.hint, path=path, row=row, line=line, sort=self.sort
        )


class Source(Protocol):
    """A parsed file.

    What a value reads as depends on that value and on the file's header or schema, never on
    other rows: nothing is inferred from the column. A type guessed from all rows would let one
    person's row change how everyone else's is read.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Column names, distinct, in file order."""

    @property
    def has_schema(self) -> bool:
        """Whether the file says by its form what the columns are, and not by a line among lines."""

    def __len__(self) -> int: ...

    def rows(self, names: Sequence[str], *, as_bytes: Collection[str] = ()) -> Iterator[Row]:
        """Yields every row in file order with the values of columns.

        Args:
            names: The columns.
            as_bytes: Those of them whose bytes are files, where the form has bytes: pictures, and
                no texts.
        """

    def kind_of(self, name: str) -> CellKind:
        """Returns what the cells of a column hold, by the header or schema alone."""

    def names_of(self, name: str) -> Sequence[str]:  # noqa: ARG002
        """Returns what the numbers of a column stand for, where the schema says it."""
        return ()

    def table(self) -> pa.Table:
        """Returns the whole file; raises the first fault there is."""

    def select(self, indices: Sequence[int]) -> bytes:
        """Returns a file of the same format and columns with only these rows, in this order."""


def read_bytes(path: Path) -> bytes:
    """Reads a whole file, with a typed refusal where that is not possible."""
    try:
        return read_regular(path)
    except OSError as error:
        raise UnreadableFileError(
            f"the file cannot be read: {error.strerror or type(error).__name__}",
            hint="check the path and that the account running this may read the file",
            path=path,
        ) from None


def require_distinct(columns: Sequence[str], path: Path) -> tuple[str, ...]:
    """Refuses a header that names a column twice: which one is meant cannot be known."""
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise MissingColumnError(
            f"column names must be distinct; {len(twice)} of the {len(set(columns))} in the first "
            "line are there more than once",
            hint="rename the columns in the file's header; is the first line a header?",
            path=path,
        )
    return tuple(columns)


def not_utf8(path: Path, *, row: int | None = None, line: int | None = None) -> DataEncodingError:
    """The refusal of bytes that are not UTF-8. Never carries the bytes."""
    return DataEncodingError("not valid UTF-8", hint=UTF8_HINT, path=path, row=row, line=line)
