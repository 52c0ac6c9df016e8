"""Several labels a record: a column of lists, or of texts with a separator between the labels."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fmfl_secure.data._source import CellKind, UnusableValue
from fmfl_secure.data.errors import UnknownLabelError
from fmfl_secure.data.fields import Field
from fmfl_secure.data.left_out import label_sort
from fmfl_secure.data.stored import StoredText

_LIST = msgspec.json.Decoder(list[str | int])


def label_set_field(
    argument: str,
    column: str,
    labels: Sequence[str],
    aliases: Sequence[tuple[str, str]] = (),
    *,
    separator: str = "",
    none: str | None = None,
) -> Field:
    """All labels of a record, as their indices, ascending.

    An empty list says that none of them holds. A missing value, or an empty text, says nothing,
    unless it is what `none` is.

    Args:
        argument: The setting that names the column.
        column: The column.
        labels: All labels in order.
        aliases: Other spellings that a file may have, and the label that each means.
        separator: What stands between labels in a text; white space around it is of no account.
            Empty where the file holds lists.
        none: The text that stands for no label; None where there is none.
    """
    index_of = {label: index for index, label in enumerate(labels)}
    spelled = dict(aliases)

    def parse(value: str | None, column: str) -> list[int]:
        if value is not None and value == none:
            return []
        found = [spelled.get(name, name) for name in _names(value, column, separator)]
        for name in found:
            if name not in index_of:
                raise UnusableValue(
                    UnknownLabelError,
                    f"a label in column {column!r} is not known; expected some of "
                    f"{', '.join(map(repr, labels))}, exactly as written here",
                    "complete the configured labels, say in task.label_aliases which spelling "
                    'means which label, or set on_bad_row = "skip"',
                    label_sort(name, labels) if name else "no label between two separators",
                )
        return sorted({index_of[name] for name in found})

    texts: tuple[CellKind, ...] = ("text",) if separator or none is not None else ()
    return Field(argument, (column,), parse, takes=(*texts, "list", "numbers"))


def _named_twice(column: str) -> UnusableValue:
    """Of a 0 or 1 for each label, which reads as the labels 0 and 1."""
    return UnusableValue(
        UnknownLabelError,
        f"a list in column {column!r} names a label twice",
        "list the labels that hold, each once; a 0 or 1 for every label is no such list",
        "list that names a label twice",
    )


def _names(value: str | None, column: str, separator: str) -> list[str]:
    if value is None or not value.strip():
        raise UnusableValue(
            UnknownLabelError,
            f"the labels in column {column!r} are missing",
            "write an empty list where no label holds, or say in task.no_label what stands for "
            "that",
            "no list of labels",
        )
    if isinstance(value, StoredText) and value.held_as == "structure":
        try:
            found = _LIST.decode(str(value))
        except (msgspec.DecodeError, RecursionError):
            found = None
        if found is not None:
            if len(set(found)) < len(found):
                raise _named_twice(column)
            return [str(name) for name in found]
    elif not isinstance(value, StoredText) and separator:
        return [name.strip() for name in value.split(separator)]
    printed = not isinstance(value, StoredText) and value.lstrip().startswith(("[", "("))
    raise UnusableValue(
        UnknownLabelError,
        f"column {column!r} does not hold a list of labels",
        "a list that was printed as a text is none: export it as JSON Lines or Parquet"
        if printed
        else 'write lists, such as {"labels": ["a", "b"]}, or say in task.label_separator what '
        "stands between labels",
        "a text in place of a list of labels (see task.label_separator)",
    )
