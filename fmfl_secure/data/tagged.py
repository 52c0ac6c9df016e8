"""Texts taken apart into words with a tag each: two columns of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.errors import UnknownLabelError, UnusableTagsError
from fmfl_secure.data.fields import Field

_LIST = msgspec.json.Decoder(list[str])
_HINT = 'write lists of strings, such as {"tokens": ["Anna", "fell"], "tags": ["B-NAME", "O"]}'


def words_field(argument: str, column: str) -> Field:
    """A list of words that are not empty, as a JSON list of strings."""

    def parse(value: str | None, column: str) -> list[str]:
        words = _strings(value, column)
        if not words or not all(word.strip() for word in words):
            raise UnusableValue(
                UnusableTagsError, f"a word in column {column!r} is empty, or there is none", _HINT
            )
        return words

    return Field(argument, (column,), parse)


def tags_field(argument: str, column: str, tags: Sequence[str]) -> Field:
    """A list of tags, each as its index among those given."""
    index_of = {tag: index for index, tag in enumerate(tags)}

    def parse(value: str | None, column: str) -> list[int]:
        found = _strings(value, column)
        if not all(tag in index_of for tag in found):
            raise UnusableValue(
                UnknownLabelError,
                f"a tag in column {column!r} is not known; expected one of "
                f"{', '.join(map(repr, tags))}",
                'complete the configured entities, or set on_bad_row = "skip"',
            )
        return [index_of[tag] for tag in found]

    return Field(argument, (column,), parse)


def check_equally_many(values: Sequence[Any]) -> None:
    """Refuse a row with more words than tags, or fewer."""
    words, tags = values[:2]
    if len(words) != len(tags):
        raise UnusableValue(UnusableTagsError, "there are not as many tags as words", _HINT)


def _strings(value: str | None, column: str) -> list[str]:
    found: list[str] | None = None
    try:
        found = _LIST.decode(str(value or ""))
    except (msgspec.DecodeError, RecursionError):
        found = None
    if found is None:
        raise UnusableValue(
            UnusableTagsError, f"column {column!r} does not hold a list of strings", _HINT
        )
    return found
