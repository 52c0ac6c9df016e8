"""Proposes choices for a new federation from a table that anybody may see, or from a schema.

A table is read only where somebody declares that it is public or made up. Of people's data nothing
is read: which labels occur among them is itself private.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from fmfl_secure.data.formats.registry import open_source
from fmfl_secure.errors import ConfigError, os_failure
from fmfl_secure.outside import parse_json, read_settings
from fmfl_secure.settings.choices import Choice

Declared = Literal["public", "synthetic"]

# What columns are usually called, the likeliest first.
_USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "text_column": ("text", "note", "sentence", "abstract", "report", "content", "body", "caption"),
    "label_column": ("label", "labels", "category", "class", "target", "intent", "diagnosis"),
    "tokens_column": ("tokens", "words"),
    "tags_column": ("tags", "ner_tags", "labels"),
    "prompt_column": ("prompt", "instruction", "question", "input"),
    "response_column": ("response", "output", "answer", "completion"),
    "chosen_column": ("chosen", "preferred"),
    "rejected_column": ("rejected", "dispreferred"),
    "image_column": ("image", "picture", "image_path", "path", "file"),
    "unit": ("patient_id", "person_id", "subject_id", "customer_id", "client_id", "user_id"),
}
_VALUES_OF: Final = {"labels": "task.label_column", "entities": "task.tags_column"}
_MOST_LABELS: Final = 100  # more values than that are no labels that somebody would list


@dataclass(frozen=True, slots=True)
class Known:
    """Columns, and the values that may stand in them.

    Attributes:
        source: What says so, in words.
        columns: Their names, in order.
        values: Of some of them, all there may be.
        longest: The column with the longest texts; empty where that is not known.
    """

    source: str
    columns: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]
    longest: str = ""

    def proposal(self, choice: Choice, chosen: Mapping[str, Any]) -> str | None:
        """Returns what this proposes, as it would be typed; None for nothing.

        Args:
            choice: For what.
            chosen: What was said already, by key.
        """
        if choice.option in _VALUES_OF:
            found = self.values.get(chosen.get(_VALUES_OF[choice.option], ""), ())
            if choice.option == "entities":
                found = tuple(dict.fromkeys(tag[2:] for tag in found if tag[1:2] == "-"))
            return ",".join(found) if found and not any("," in each for each in found) else None
        usual = _USUAL.get(choice.option, ())
        by_name = {column.lower(): column for column in self.columns}
        named = [by_name[name] for name in usual if name in by_name]
        if named:
            return named[0]
        if choice.option == "text_column" and self.longest:
            return self.longest
        few = sorted(self.values, key=lambda column: len(self.values[column]))
        return few[0] if choice.option == "label_column" and few else None


def known_of_table(path: Path, declared: Declared) -> Known:
    """Reads a table's own columns and values, to propose from.

    Args:
        path: Of any form that sites' data may have.
        declared: What somebody says of it: that anybody may see it, or that it is made up.

    Raises:
        DataError: It cannot be read.
    """
    table = open_source(path).table()
    values: dict[str, tuple[str, ...]] = {}
    lengths: dict[str, int] = {}
    for name in table.column_names:
        cells = [each for each in table.column(name).to_pylist() if each is not None]
        listed = (cell if isinstance(cell, list) else [cell] for cell in cells)
        items = [str(item) for each in listed for item in each]
        counted = Counter(items)
        # A label comes again and again; what hardly does is an id, a text or a number.
        if 2 <= len(counted) <= _MOST_LABELS and len(items) >= 2 * len(counted):
            values[name] = tuple(sorted(counted))
        if cells and all(isinstance(cell, str) for cell in cells):
            lengths[name] = sum(map(len, cells))
    longest = max(lengths, key=lambda name: lengths[name], default="")
    return Known(f"{path.name}, declared {declared}", tuple(table.column_names), values, longest)


def known_of_schema(path: Path) -> Known:
    """Reads a JSON Schema of a row, or a Table Schema with its fields, to propose from.

    Raises:
        ConfigError: It is neither.
    """
    try:
        found = parse_json(read_settings(path))
    except OSError as error:
        raise os_failure(ConfigError, f"cannot read the schema {path}", error) from error
    except ValueError as error:  # no UTF-8, or no JSON
        raise ConfigError(f"cannot read the schema {path}: {error}") from error
    fields = found.get("fields") if isinstance(found, dict) else None
    rows = found.get("properties") if isinstance(found, dict) else None
    if isinstance(fields, list):
        rows = {
            str(each.get("name")): each | dict(each.get("constraints") or {})
            for each in fields
            if isinstance(each, dict)
        }
    if not isinstance(rows, dict) or not rows:
        raise ConfigError(
            f"{path} describes no columns: expected properties of a JSON Schema, or fields of a "
            "Table Schema",
            hint="Name the columns with options instead, such as --text-column.",
        )
    return Known(
        f"the schema {path.name}",
        tuple(rows),
        {name: one for name, each in rows.items() if (one := _allowed(each))},
    )


def _allowed(described: Any) -> tuple[str, ...]:
    """All values of a column, where its description lists them."""
    if not isinstance(described, dict):
        return ()
    listed: Sequence[Any] = described.get("enum") or ()
    if not listed and isinstance(described.get("items"), dict):
        listed = described["items"].get("enum") or ()
    return tuple(str(each) for each in listed) if isinstance(listed, list) else ()
