"""Holds the sizes in a model's `config.json` to those that its weights can be of.

A library builds what a config describes before it looks at the weights. A line that says a billion
layers, or a billion labels, takes all of a machine's memory and days.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import safetensors

from fmfl_secure.errors import ModelError

_MOST: Final = 1 << 24  # no vocabulary has so many entries
_MOST_LABELS: Final = 1 << 20
_FEW: Final = 128  # layers that cost nothing, whatever the weights are
_DEEPEST: Final = 32  # lists and tables in each other
_COUNTS: Final = re.compile(r"^(num|n)_|size|dim|heads|positions|channels|layers|depth")
# What a library makes a module or more of, for each.
_MODULES: Final = re.compile(r"layers?$|depths?$|blocks$|experts$|stages$")


def require_plausible(config: dict[str, Any], folder: Path) -> None:
    """Refuse a config that counts more than the weights beside it have tensors for.

    Raises:
        ModelError: It does, or its numbers are absurd.
    """
    most_modules = max(_tensors(folder), _FEW)
    for name, value in _numbers(config, "config.json", 0):
        key = name.rpartition(".")[2]
        most = _MOST_LABELS if key == "num_labels" else _MOST
        if _MODULES.search(key):
            most = most_modules
        elif not _COUNTS.search(key):
            continue
        if value > most:
            said = str(value) if value < 10**20 else "a number of more than 20 digits"
            raise ModelError(
                f"the model in {folder} says that {name} is {said}, expected at most {most}",
                hint="Fetch the files again, all of one version.",
            )


def require_files(folder: Path) -> None:
    """Refuse a folder with anything in it but files and folders: whoever read it would wait.

    Raises:
        ModelError: There is a pipe, a device, a socket, or a link to nowhere.
    """
    for path in sorted(folder.rglob("*")):
        if not path.is_file() and not path.is_dir():
            raise ModelError(
                f"{path} is no file but a pipe, a device, a socket or a link to nothing",
                hint="Fetch the model's files again.",
            )


def _tensors(folder: Path) -> int:
    found = 0
    for file in sorted(folder.glob("*.safetensors")):
        # What is wrong with one that cannot be read is told where it is loaded.
        with (
            suppress(OSError, ValueError, safetensors.SafetensorError),
            safetensors.safe_open(file, framework="numpy") as opened,
        ):
            found += len(opened.keys())
    return found


def _numbers(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _DEEPEST:
        raise ModelError(f"{name} is nested too deeply")
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}"[:200], depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name, depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value
