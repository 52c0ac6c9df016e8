"""The forms of `report.json` and `dataset.json` as published JSON Schemas, for other programs.

Made from the records' own types, with what each field means, so that they cannot say otherwise.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from fmfl_secure.report.dataset.record import UNBOUNDED, DatasetRecord
from fmfl_secure.run.record import RunRecord
from fmfl_secure.run.statement import EPSILONS, INSIDER_EPSILONS

_NULLABLE = EPSILONS | INSIDER_EPSILONS


def report_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `report.json`."""
    return _schema(RunRecord, "FMFL Secure privacy-budget report", _NULLABLE)


def dataset_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `dataset.json`."""
    return _schema(DatasetRecord, "FMFL Secure dataset report", _NULLABLE | UNBOUNDED)


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as it is published."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _schema(record: type[msgspec.Struct], title: str, nullable: frozenset[str]) -> dict[str, Any]:
    schema = msgspec.json.schema(record)
    with_meanings(schema["$defs"], may_be_null=nullable.__contains__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **schema,
    }


def with_meanings(
    definitions: dict[str, dict[str, Any]], *, may_be_null: Callable[[str], bool]
) -> None:
    """Say of each field what its type's docstring says of it.

    Args:
        definitions: The types' schemas, which are changed.
        may_be_null: Of a field's name, whether a number in it may have no bound.
    """
    for definition in definitions.values():
        words, meanings = _taken_apart(definition.get("description", ""))
        definition["description"] = words
        for name, field in definition.get("properties", {}).items():
            if name in meanings:
                field["description"] = meanings[name]
            if may_be_null(name):
                _allow_null(field)


def _allow_null(field: dict[str, Any]) -> None:
    """An epsilon without a bound is null: JSON knows no infinity."""
    inner = field.get("items", field)
    if inner.get("type") == "number":
        inner["type"] = ["number", "null"]


def _taken_apart(docstring: str) -> tuple[str, dict[str, str]]:
    """Splits a docstring into its words and the meanings of its attributes."""
    words, _, listed = inspect.cleandoc(docstring).partition("Attributes:")
    meanings = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", listed, flags=re.MULTILINE)
    return _joined(words), {name: _joined(text) for name, text in meanings}


def _joined(text: str) -> str:
    return " ".join(text.split())
