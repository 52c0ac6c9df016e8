"""Durable tables behind one small interface: SQLite by default, PostgreSQL by URL.

What is kept here must not be lost or half written, and several processes may write it. Both
stores promise the same, and pass the same tests:

- one writer at a time, and a change is all there or not there at all;
- durable when `write` or `create` ends without an error, or refused before anything is written;
- never created by opening: what was deleted is missed, and not begun anew, empty;
- `StorageMissing`, `StorageExists`, `StorageUnavailable` and `StorageDamaged` tell apart what is
  wrong, and no message, name or `repr` holds a password.

Statements are the caller's own SQL, in the subset that both understand: `?` marks a parameter and
stands for nothing else. Only table definitions differ; `Store.dialect` says which are needed.

Not SQLAlchemy: what matters here (transaction modes, locks, synchronous commits, triggers, error
codes) is where the two databases differ and where SQLAlchemy Core leaves one to the driver, and
the three statements in between need no generator.
"""

from __future__ import annotations

from pathlib import Path

from privacy.storage.sqlite import SqliteStore
from privacy.storage.store import Dialect, Store, Transaction
from privacy.storage.urls import split_schema, with_schema, without_password

__all__ = [
    "Dialect",
    "Store",
    "Transaction",
    "is_url",
    "open_store",
    "split_schema",
    "with_schema",
    "without_password",
    "without_secrets",
]

_URL_SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_TIMEOUT_S = 60.0


def is_url(location: str) -> bool:
    """Whether a setting names a PostgreSQL database and not a file."""
    return location.startswith(_URL_SCHEMES)


def without_secrets(location: str) -> str:
    """A setting as it may be shown; of a URL only that it is one."""
    return f"{location.partition('://')[0]}://***" if is_url(location) else location


def open_store(
    location: Path | str,
    *,
    schema: str = "fmfl",
    application_id: int = 0,
    timeout_s: float | None = None,
    keep_open: bool = False,
) -> Store:
    """The store at a place. Touches nothing.

    Args:
        location: A path, or `postgresql://USER@HOST/DATABASE?schema=NAME` with any parameters that
            libpq knows besides.
        schema: PostgreSQL schema where the URL names none.
        application_id: For SQLite's header, at creation.
        timeout_s: How long to wait for another writer; a minute by default.
        keep_open: Whether calls share one connection, one at a time, until `Store.close`: for a
            process that writes often. Not across a fork.

    Raises:
        StorageUnavailable: The URL cannot be read, or PostgreSQL's driver is not installed.
    """
    timeout_s = _TIMEOUT_S if timeout_s is None else timeout_s
    if isinstance(location, str) and is_url(location):
        from privacy.storage.postgresql import PostgresStore  # noqa: PLC0415 (an extra)

        return PostgresStore(location, schema=schema, timeout_s=timeout_s, keep_open=keep_open)
    return SqliteStore(
        Path(location), application_id=application_id, timeout_s=timeout_s, keep_open=keep_open
    )
