"""The common part of a party's stores: how their tables begin, and how failures are told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from fmfl_secure.errors import FmflError, RunDamaged, RunError, Unavailable
from privacy import StorageError, StorageExists, StorageUnusable
from privacy.storage import Store


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Tell of a store's failure in this package's words, its nature kept.

    Args:
        what: What could not be done, as the error's text begins.

    Raises:
        Unavailable: The store cannot be used now; it may be in a moment.
        RunDamaged: What it holds is not what was written, it is gone, or something else lies in
            its place.
        RunError: Something is there already.
    """
    try:
        yield
    except StorageError as error:
        kind = RunDamaged if isinstance(error, StorageUnusable) else _KINDS[error.nature]
        raise kind(f"{what}: {error}", hint=error.hint) from error


_KINDS: Final[Mapping[str, type[FmflError]]] = {
    "passing": Unavailable,
    "decided": RunError,
    "damage": RunDamaged,
}


def make_missing(store: Store, tables: Mapping[str, Sequence[str]]) -> None:
    """Create the tables of a store that holds none yet.

    Args:
        store: Where.
        tables: Definitions by dialect.

    Raises:
        StorageError: It cannot be known, or they cannot be made.
    """
    if not store.exists():
        # Another process may be first; it makes the same.
        with suppress(StorageExists), store.create(tables[store.dialect]):
            pass
