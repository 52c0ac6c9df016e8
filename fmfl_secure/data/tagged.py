"""Texts taken apart into words with a tag each: two columns of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.errors import UnknownLabelError, UnusableTagsError
from fmfl_secure.data.fields import Field, is_blank
from fmfl_secure.data.left_out import label_sort
from fmfl_secure.data.tag_schemes import scheme_of, to_bio
from fmfl_secure.settings.types import TagScheme

_T = TypeVar("_T")
_LIST = msgspec.json.Decoder(list[str])
_TAGS = msgspec.json.Decoder(list[str | int])
_HINT = 'write lists of strings, such as {"tokens": ["Anna", "fell"], "tags": ["B-NAME", "O"]}'


def words_field(argument: str, column: str) -> Field:
    """A list of words that are not empty, as a JSON list of strings."""

    def parse(value: str | None, column: str) -> list[str]:
        words = _decoded(value, column, _LIST)
        if not words or any(map(is_blank, words)):
            raise UnusableValue(
                UnusableTagsError, f"a word in column {column!r} is empty, or there is none", _HINT
            )
        return words

    return Field(argument, (column,), parse, takes=("list",))


def tags_field(
    argument: str,
    column: str,
    tags: Sequence[str],
    names: Sequence[str] = (),
    scheme: TagScheme = "bio",
) -> Field:
    """A list of tags, each as its index among those given.

    Args:
        argument: The setting that names the column.
        column: The column.
        tags: All tags in the order of their indices.
        names: What integers in the file stand for, by their value; none where it holds names.
        scheme: How the file writes entities; read as BIO.
    """
    index_of = {tag: index for index, tag in enumerate(tags)}

    def parse(value: str | None, column: str) -> list[int]:
        found = [
            names[tag] if isinstance(tag, int) and 0 <= tag < len(names) else tag
            for tag in _decoded(value, column, _TAGS)
        ]
        if any(isinstance(tag, int) for tag in found):
            raise UnusableValue(
                UnknownLabelError,
                f"a tag in column {column!r} is an integer without a name",
                "say in task.tag_names what 0, 1, 2, ... stand for",
                "integers for tags, without a name (see task.tag_names)",
            )
        read = to_bio([str(tag) for tag in found], scheme)
        if read is None:
            raise UnusableValue(
                UnusableTagsError,
                f"the tags in column {column!r} contradict task.tag_scheme = {scheme!r}",
                'mend the row or the setting, or set on_bad_row = "skip"',
                f"tags that contradict {scheme!r} (see task.tag_scheme)",
            )
        unknown = next((tag for tag in read if tag not in index_of), None)
        if unknown is not None:
            other = scheme_of(unknown)
            raise UnusableValue(
                UnknownLabelError,
                f"a tag in column {column!r} is not known; expected one of "
                f"{', '.join(map(repr, tags))}",
                f"set task.tag_scheme = {other!r}, if that is how the file writes entities"
                if other
                else 'complete the configured entities, or set on_bad_row = "skip"',
                f"tag of the scheme {other!r} (see task.tag_scheme)"
                if other
                else label_sort(unknown, tags).replace("label", "tag", 1),
            )
        return [index_of[tag] for tag in read]

    return Field(argument, (column,), parse, takes=("list", *(("numbers",) if names else ())))


def check_equally_many(values: Sequence[Any]) -> None:
    """Refuse a row with more words than tags, or fewer."""
    words, tags = values[:2]
    if len(words) != len(tags):
        raise UnusableValue(UnusableTagsError, "there are not as many tags as words", _HINT)


def _decoded(value: str | None, column: str, decoder: msgspec.json.Decoder[list[_T]]) -> list[_T]:
    found: list[_T] | None = None
    try:
        found = decoder.decode(str(value or ""))
    except (msgspec.DecodeError, RecursionError):
        found = None
    if found is None:
        raise UnusableValue(
            UnusableTagsError, f"column {column!r} does not hold a list of strings", _HINT
        )
    return found
