"""Cells that a file does not hold as a text."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

HeldAs: TypeAlias = Literal["number", "float", "structure", "truth", "time", "picture"]
DOUBLE = 53  # bits of a double's significand


class StoredText(str):
    """The text of a cell that the file does not hold as a string.

    Attributes:
        held_as: `number`, an integer or decimal, exact; `float`; `structure`, a list or
            object; `truth`, true or false; `time`, a date, a time or a duration; or `picture`.
        bits: Of a float's significand: whole numbers from 2^bits on stand for several.
        named: What a number stands for, where the file's schema says it; else empty.
    """

    held_as: HeldAs
    bits: int
    named: str
    __slots__ = ("bits", "held_as", "named")

    @classmethod
    def of(cls, text: str, held_as: HeldAs, bits: int = DOUBLE, *, named: str = "") -> StoredText:
        """The text with what it is held as."""
        stored = cls(text)
        stored.held_as, stored.bits, stored.named = held_as, bits, named
        return stored


class StoredPicture(StoredText):
    """A picture that lies in the table itself; as a text, its path where there is one.

    Attributes:
        content: The file's bytes, or numbers of shape (h, w) or (h, w, channels); None where there
            is a path alone.
    """

    content: bytes | NDArray[Any] | None
    __slots__ = ("content",)

    @classmethod
    def of_file(
        cls, content: bytes | NDArray[Any] | None, path: str | None = None
    ) -> StoredPicture:
        """A picture of a file's bytes, or of numbers."""
        stored = cls(path or "")
        stored.held_as, stored.bits, stored.named = "picture", DOUBLE, ""
        stored.content = content
        return stored
