"""Why local data cannot be used, as types.

    FmflError
      DataError                  code "failed", whatever the kind
        DataArgumentError        the caller asked for something that makes no sense
        UnreadableFileError      missing, not permitted, not a file of that format
        UnsupportedFormatError   an extension nobody here reads
        EmptyFileError           no rows, or none that can be used
        MissingColumnError       a named column is not there, or is there twice
        DataEncodingError        not UTF-8                      \
        MalformedRowError        not the header's columns        \
        EmptyTextError           nothing to read in the text       one row: `on_bad_row` decides
        UnknownLabelError        null, or not a configured label /
        NullUnitError            the privacy unit is not known  /
        UnusableImageError       missing, or no image            /
        UnusableTagsError        no list, or not a tag a word   /
        UnusableConversationError  no messages in turns         /
        PartitionError           a file cannot be split as asked
        OutputError              the result cannot be written

Messages name the file, the row and the line, and never quote what a row says: they end up in
logs and in screenshots, and a shifted column would put a patient's note there. (The one
exception is a split by column, of a public file, which lists that column's values.) All kinds
share the one `code` of every failure, since which check a row failed, and that it was a row, is
itself something read from the data.

Readers raise these, and `data.fields` turns those of a row into a count of rows that cannot be
used.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fmfl_secure.errors import FmflError, Nature


class DataError(FmflError):
    """Local data cannot be used as configured.

    Attributes:
        path: File concerned, where there is one.
        row: Number of the data row, from 1, the header and blank lines not counted.
        line: Line of the file on which that row begins, from 1, where it can be known.
        sort: What a row's fault is called where faults are counted; empty for what its type says.
    """

    nature: ClassVar[Nature] = "decided"

    def __init__(
        self,
        problem: str,
        *,
        hint: str = "",
        path: Path | None = None,
        row: int | None = None,
        line: int | None = None,
        sort: str = "",
    ) -> None:
        place = "" if path is None else str(path)
        if row is not None:
            place += f", row {row}"
        if line is not None:
            place += f" (line {line})" if row is not None else f", line {line}"
        super().__init__(f"{place}: {problem}" if place else problem, hint=hint)
        self.path = path
        self.row = row
        self.line = line
        self.sort = sort


class DataArgumentError(DataError):
    """An argument is out of range or contradicts another."""

    nature: ClassVar[Nature] = "decided"


class UnreadableFileError(DataError):
    """The file is missing, may not be read, or is not of the format its name says."""

    nature: ClassVar[Nature] = "decided"


class UnsupportedFormatError(DataError):
    """The data are of no form that is read here (`fmfl_secure.data.formats`)."""

    nature: ClassVar[Nature] = "decided"


class EmptyFileError(DataError):
    """There is no row, or every row had to be skipped."""

    nature: ClassVar[Nature] = "decided"


class MissingColumnError(DataError):
    """A column is not in the file, or its name is there more than once."""

    nature: ClassVar[Nature] = "decided"


class DataEncodingError(DataError):
    """Bytes that are not UTF-8."""

    nature: ClassVar[Nature] = "decided"


class MalformedRowError(DataError):
    """A row does not have the header's columns, or cannot be parsed."""

    nature: ClassVar[Nature] = "decided"


class EmptyTextError(DataError):
    """A text is null, empty, or only white space."""

    nature: ClassVar[Nature] = "decided"


class UnknownLabelError(DataError):
    """A label is null or empty, or not one of the configured labels."""

    nature: ClassVar[Nature] = "decided"


class NullUnitError(DataError):
    """A row does not say to which privacy unit it belongs."""

    nature: ClassVar[Nature] = "decided"


class UnusableImageError(DataError):
    """A row's image is not there, or is no image that can be decoded."""

    nature: ClassVar[Nature] = "decided"


class UnusableTagsError(DataError):
    """A row's words or tags are no list, or are not equally many."""

    nature: ClassVar[Nature] = "decided"


class UnusableConversationError(DataError):
    """A row's conversation is no list of messages, or not one of user and assistant in turns."""

    nature: ClassVar[Nature] = "decided"


class PartitionError(DataError):
    """The rows cannot be split as asked."""

    nature: ClassVar[Nature] = "decided"


class OutputError(DataError):
    """A result exists already, or cannot be written."""

    nature: ClassVar[Nature] = "decided"
