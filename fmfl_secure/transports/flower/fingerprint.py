"""Which version of this project a process runs: part of the handshake between two of them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fmfl_secure._version import __version__

_PACKAGES: Final = ("aggregation", "fmfl_secure", "privacy")


@cache
def fingerprint() -> str:
    """`VERSION+sha256:DIGEST` over every source and data file of the three packages."""
    state = hashlib.sha256(b"fmfl-secure/package/v1")
    for package in _PACKAGES:
        _add(state, files(package), package)
    return f"{__version__}+sha256:{state.hexdigest()}"


def _add(state: hashlib._Hash, place: Traversable, name: str) -> None:
    for entry in sorted(place.iterdir(), key=lambda e: e.name):
        path = f"{name}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                _add(state, entry, path)
        elif not entry.name.endswith(".pyc"):
            data = entry.read_bytes()
            for part in (path.encode(), data):
                state.update(len(part).to_bytes(8, "big"))
                state.update(part)
