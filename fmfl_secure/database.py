"""One way of opening the small SQLite files that a site and a run keep their state in."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fmfl_secure.errors import RunError

_BUSY_TIMEOUT_S = 60.0


@contextmanager
def durable_connection(path: Path, *, what: str) -> Iterator[sqlite3.Connection]:
    """A connection whose every statement is a transaction, durable when it returns.

    Args:
        path: The file, made if missing.
        what: What it holds, for the error's text.

    Raises:
        RunError: SQLite failed, or the file is not its own.
    """
    try:
        with closing(
            sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
    except sqlite3.Error as error:
        raise RunError(f"{what} in {path} failed: {error}") from error
