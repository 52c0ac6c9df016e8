"""Whose folder it is: the key of the one party that a kit, or a federation's folder, is of."""

from __future__ import annotations

from pathlib import Path

from aggregation import Identity
from fmfl_secure.parties.workspace import COORDINATOR

_FILE = "identity.pem"


def own_folder(folder: Path) -> Path:
    """Where a party's own key is: of a server's kit or a federation's folder the coordinator's."""
    return folder / COORDINATOR if (folder / COORDINATOR / _FILE).is_file() else folder


def has_key(folder: Path) -> bool:
    """Whether a party's key is here."""
    return (own_folder(folder) / _FILE).is_file()


def own_identity(folder: Path) -> Identity:
    """The key in a party's folder.

    Raises:
        AggregationError: There is none, or it cannot be read.
    """
    found = own_folder(folder)
    name = COORDINATOR if found != folder or found.name == COORDINATOR else None
    return Identity.load(found / _FILE, name)
