"""Which rows of a site's data cannot be used, by sort: told at the site, and never outside it.

A count of rows is data. It is in no message of the protocol and in no report that leaves.

`data.fields` and `data.images` keep a `Tally` while they read; what it counted goes with the
records, to be shown where they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fmfl_secure.data.errors import (
    DataEncodingError,
    DataError,
    EmptyTextError,
    MalformedRowError,
    NullUnitError,
    UnknownLabelError,
    UnusableConversationError,
    UnusableImageError,
    UnusableTagsError,
)

_EXAMPLES = 5  # row numbers given for each sort
# What a fault is called in a count, unless it says more of itself.
SORTS: Mapping[type[DataError], str] = MappingProxyType(
    {
        DataEncodingError: "not UTF-8",
        MalformedRowError: "not the header's columns, or no row at all",
        EmptyTextError: "no text",
        UnknownLabelError: "label missing or not configured",
        NullUnitError: "no id of a privacy unit",
        UnusableImageError: "no image that can be read",
        UnusableConversationError: "no conversation of user and assistant in turns",
        UnusableTagsError: "words and tags that are no lists, or not equally many",
    }
)
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")
_TRUTH: Mapping[str, str] = MappingProxyType({"true": "1", "false": "0", "1": "true", "0": "false"})


@dataclass(frozen=True, slots=True, repr=False)
class LeftOut:
    """Rows that cannot be used. Private: has no useful repr.

    Attributes:
        read: Rows of the data, usable or not.
        rows: For each sort of fault, the numbers of its rows from 1, ascending.
        beside: Files that are no rows, such as a `.DS_Store`: how many by what they are.
    """

    read: int = 0
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    beside: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many rows are left out, of all sorts."""
        return sum(map(len, self.rows.values()))

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.rows or self.beside)

    @property
    def share(self) -> float:
        """Of all rows; 0 where there are none."""
        return self.count / self.read if self.read else 0.0

    def __str__(self) -> str:
        """The counts by sort with a few row numbers, in one line and without a value of any row."""
        told = f"{self.count} of {self.read} rows cannot be used"
        if self.count:
            told += ": " + "; ".join(
                f"{len(rows)} with {sort} ({_examples(rows)})"
                for sort, rows in sorted(self.rows.items(), key=lambda item: -len(item[1]))
            )
        return f"{told}. {self.passed_over}" if self.beside else told

    @property
    def passed_over(self) -> str:
        """Files that are no rows, in a sentence; empty where there are none."""
        if not self.beside:
            return ""
        return "Passed over as no rows: " + "; ".join(
            f"{count} times {what}" for what, count in sorted(self.beside.items())
        )

    def __repr__(self) -> str:
        return "LeftOut(<private>)"


class Tally:
    """Counts the rows of one file as they are read."""

    def __init__(self) -> None:
        self._read = 0
        self._rows: dict[str, list[int]] = {}
        self._beside: Counter[str] = Counter()
        self.first: DataError | None = None

    def row(self) -> None:
        """One more row was read."""
        self._read += 1

    def fault(self, error: DataError) -> None:
        """That row cannot be used."""
        self.first = self.first or error
        self._rows.setdefault(error.sort or SORTS[type(error)], []).append(self._read)

    def beside(self, what: str) -> None:
        """A file that is no row."""
        self._beside[what] += 1

    def left_out(self) -> LeftOut:
        """Returns the rows counted so far."""
        rows = {sort: tuple(rows) for sort, rows in self._rows.items()}
        return LeftOut(self._read, rows, dict(self._beside))

    def refuse(self) -> None:
        """Raise the first fault, which then tells of all the others.

        Raises:
            DataError: There was a fault.
        """
        if self.first is None:
            return
        left_out = self.left_out()
        if left_out.count > 1:
            self.first.args = (f"{self.first}. In all, {left_out}",)
        raise self.first


def pool_left_out(parts: Collection[LeftOut]) -> LeftOut:
    """Several files' rows in one count; row numbers are each of its own file."""
    rows: dict[str, tuple[int, ...]] = {}
    for part in parts:
        for sort, own in part.rows.items():
            rows[sort] = rows.get(sort, ()) + own
    beside = sum((Counter(part.beside) for part in parts), Counter[str]())
    return LeftOut(sum(part.read for part in parts), rows, dict(beside))


def label_sort(value: str, labels: Collection[str]) -> str:
    """Names the way in which a label that is not configured misses one that is.

    Args:
        value: The label, not among `labels`.
        labels: Those that are configured.
    """
    for difference, form in _DIFFERENCES.items():
        if form(value) in {form(label) for label in labels}:
            return f"label that differs from a configured one in {difference}"
    return "label that is not configured"


def _tidy(text: str) -> str:
    return " ".join(text.split())


def _number(text: str) -> str:
    whole = _WHOLE.fullmatch(_tidy(text))
    return whole[1] if whole else _tidy(text)


def _truth(text: str) -> str:
    word = _number(text).casefold()
    return min(word, _TRUTH.get(word, word))


def _tidy_case(text: str) -> str:
    return _tidy(text).casefold()


def _compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", _tidy(text)).casefold()


# From the least difference on; the first that explains a label is named.
_DIFFERENCES: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "white space alone": _tidy,
        "case alone": str.casefold,
        "case and white space": _tidy_case,
        "how a number is written (1.0 for 1)": _number,
        "how true and false are written (True for 1)": _truth,
        "how its characters are composed": _compatible,
    }
)


def _examples(rows: tuple[int, ...]) -> str:
    shown = ", ".join(map(str, rows[:_EXAMPLES]))
    return f"row{'s' * (len(rows) > 1)} {shown}{', ...' * (len(rows) > _EXAMPLES)}"
