"""What a command printed with `--json`, held against its published form."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema_rs

from fmfl_secure.cli.schema import answers_schema, command_forms


@functools.cache
def forms() -> dict[str, tuple[Any, ...]]:
    """Every command's."""
    return dict(command_forms())


def read_answer(command: str, printed: str) -> Any:
    """One document, of the command's form.

    Args:
        command: Its words.
        printed: All that is on standard output.
    """
    document = json.loads(printed)
    schema = answers_schema({command: forms()[command]})
    jsonschema_rs.validator_for(schema).validate(document)
    assert "error" not in document, document
    return document
