"""Keeps measurements for the next time, in the user's own cache folder, by digest.

For what one person sees again and again while settings are written (`fmfl-secure plan`, `check`).
What protects somebody is never taken from here: in a run each site measures its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fmfl_secure.storage.files import write_files

_KEPT = 256  # files; the oldest go
_LIBRARIES: Final = (
    "torch", "transformers", "tokenizers", "safetensors", "peft", "opacus", "numpy", "scipy",
)  # fmt: skip
_PACKAGE: Final = Path(__file__).parents[2]

Measured = TypeVar("Measured", bound=msgspec.Struct)


def measured_once(key: str, kind: type[Measured], measure: Callable[[], Measured]) -> Measured:
    """Returns an earlier measurement for the same key and code; measures where there is none.

    Args:
        key: Everything that the result depends on, but for code.
        kind: Type of the result; it holds no value that is not public.
        measure: Does it.
    """
    named = hashlib.sha256(f"{kind.__name__}\n{key}\n{code_digest()}".encode()).hexdigest()
    file = cache_folder() / f"{named}.json"
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(file.read_bytes(), type=kind)
    found = measure()
    with contextlib.suppress(OSError):  # a full or read-only disk: it is measured again
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in sorted(file.parent.glob("*.json"), key=_age)[_KEPT:]:
            old.unlink(missing_ok=True)
        write_files(file.parent, {file.name: msgspec.json.encode(found)})
    return found


def cache_folder() -> Path:
    """Where results are kept: `$XDG_CACHE_HOME/fmfl-secure`, or below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "fmfl-secure"


@cache
def code_digest() -> str:
    """Of Python, the libraries' versions, and source files by name, size and time of change."""
    found: list[tuple[object, ...]] = [(sys.version, platform.machine())]
    found += [(name, importlib.metadata.version(name)) for name in _LIBRARIES]
    for package in ("fmfl_secure", "privacy", "aggregation"):
        for file in sorted((_PACKAGE / package).rglob("*.py")):
            status = file.stat()
            found.append((str(file), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _age(file: Path) -> float:
    return -file.stat().st_mtime
