"""What a party must remember across crashes: each entry is written once and never changed.

A site records the keys it announced and the round it opened; the decryptor records what it
released. The rules "one opening per round" and "one release per round" are this record, so an
entry must be on the disk before the message it stands for leaves the party.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

from aggregation.errors import JournalError, RecordedError

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID
"""
_BUSY_TIMEOUT_S: Final = 30.0


class Journal(Protocol):
    """A durable, write-once map."""

    def record(self, kind: str, key: str, value: bytes) -> None:
        """Write an entry durably and atomically, also under concurrent writers.

        Raises:
            RecordedError: The entry exists, whatever its value.
            JournalError: It cannot be written; nothing was.
        """
        ...

    def lookup(self, kind: str, key: str) -> bytes | None:
        """Read an entry, or None.

        Raises:
            JournalError: It cannot be read.
        """
        ...


class MemoryJournal:
    """A journal that lives and dies with the process: for tests and simulations."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], bytes] = {}
        self._lock = threading.Lock()

    def record(self, kind: str, key: str, value: bytes) -> None:
        """Write an entry; see `Journal`."""
        with self._lock:
            if (kind, key) in self._entries:
                raise RecordedError(f"{kind} is recorded already for {key}")
            self._entries[kind, key] = bytes(value)

    def lookup(self, kind: str, key: str) -> bytes | None:
        """Read an entry; see `Journal`."""
        return self._entries.get((kind, key))


class SqliteJournal:
    """A journal in one SQLite file: WAL, `synchronous=FULL`, one transaction an entry.

    Every call opens its own connection, so one object may be used from several threads, and
    several processes may share the file. The directory must be on a local disk: WAL does not work
    over a network file system.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file, or create it readable by its owner only.

        Raises:
            JournalError: It cannot be opened, or is no journal.
        """
        self._path = Path(path)
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"cannot open the journal {self._path}: {error}") from error

    def record(self, kind: str, key: str, value: bytes) -> None:
        """Write an entry; see `Journal`."""
        try:
            with closing(self._connect()) as connection:
                connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (kind, key, value))
        except sqlite3.IntegrityError:
            raise RecordedError(f"{kind} is recorded already for {key}") from None
        except (sqlite3.Error, OverflowError) as error:
            raise JournalError(f"cannot write to the journal {self._path}: {error}") from error

    def lookup(self, kind: str, key: str) -> bytes | None:
        """Read an entry; see `Journal`."""
        query = "SELECT value FROM entries WHERE kind = ? AND key = ?"
        try:
            with closing(self._connect()) as connection:
                row = connection.execute(query, (kind, key)).fetchone()
        except sqlite3.Error as error:
            raise JournalError(f"cannot read the journal {self._path}: {error}") from error
        return None if row is None else bytes(row[0])

    def _connect(self) -> sqlite3.Connection:
        # isolation_level None: every statement is its own transaction, durable when it returns.
        connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
        return connection
