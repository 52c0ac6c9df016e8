"""What the server must not forget: messages that came in, whole or in part, and parties' words.

A request is answered only once what it brought is in here, so a server that was killed goes on
where it was: it rebuilds an attempt from its messages. `MessageStore` is all that the server knows
of its storage; `SqliteStore` is one file, WAL, `synchronous=FULL`, one transaction a call.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fmfl_secure.errors import RunError
from fmfl_secure.service.errors import Problem

_BUSY_TIMEOUT_S = 60.0

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS messages (
         id INTEGER PRIMARY KEY, run TEXT NOT NULL, round INTEGER NOT NULL,
         attempt INTEGER NOT NULL, party TEXT NOT NULL, kind TEXT NOT NULL, sha256 TEXT NOT NULL,
         size INTEGER NOT NULL, received INTEGER NOT NULL, whole INTEGER NOT NULL,
         UNIQUE (run, round, attempt, party, kind)) STRICT""",
    """CREATE TABLE IF NOT EXISTS parts (
         message INTEGER NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
         start INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (message, start)) STRICT""",
    """CREATE TABLE IF NOT EXISTS notes (
         run TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
         PRIMARY KEY (run, kind, key)) STRICT""",
)


@dataclass(frozen=True, slots=True)
class MessageKey:
    """Which message of an attempt: at most one of each kind from each party.

    Attributes:
        run: Run id.
        round: Round.
        attempt: Attempt.
        party: Who sends it.
        kind: What it is.
    """

    run: str
    round: int
    attempt: int
    party: str
    kind: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """How much of a message is here.

    Attributes:
        sha256: Digest that was declared, hexadecimal.
        size: Bytes that were declared.
        received: Bytes from the start that are here, durably.
        whole: All are here, the digest is right, and the message was accepted.
    """

    sha256: str
    size: int
    received: int
    whole: bool


class MessageStore(Protocol):
    """Durable when a call returns; safe to use from several threads."""

    def receipt(self, key: MessageKey) -> Receipt | None:
        """How much of a message is here; None if nothing was declared."""
        ...

    def append(
        self, key: MessageKey, *, sha256: str, size: int, offset: int, data: bytes
    ) -> Receipt:
        """Add a part. A part that is here already changes nothing.

        Another digest or size than before starts an unfinished message anew.

        Raises:
            Problem: 409 for a gap, for another message after a whole one, or for too many bytes.
        """
        ...

    def discard(self, key: MessageKey) -> None:
        """Forget a message that was not accepted."""
        ...

    def accept(self, key: MessageKey) -> Receipt:
        """Mark a message as whole, once its digest and content were checked."""
        ...

    def read(self, key: MessageKey) -> Iterator[bytes]:
        """The bytes of a message, part by part; nothing if it is not here."""
        ...

    def accepted(self, run: str, round_number: int, attempt: int) -> list[MessageKey]:
        """Every accepted message of an attempt, in the order they were begun."""
        ...

    def forget(self, run: str, round_number: int) -> None:
        """Delete all messages of rounds up to this one."""
        ...

    def note(self, run: str, kind: str, key: str, value: bytes) -> None:
        """Keep a party's word, or the server's own, in place of an earlier one."""
        ...

    def notes(self, run: str, kind: str) -> dict[str, bytes]:
        """What was noted, by key."""
        ...

    def drop_note(self, run: str, kind: str, key: str) -> None:
        """Delete a note."""
        ...

    def healthy(self) -> bool:
        """Whether it can be written to."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def is_intact(store: MessageStore, key: MessageKey, receipt: Receipt) -> bool:
    """Whether all bytes are here and have the digest that was declared."""
    if receipt.received != receipt.size:
        return False
    state = hashlib.sha256()
    for part in store.read(key):
        state.update(part)
    return state.hexdigest() == receipt.sha256


class SqliteStore:
    """A `MessageStore` in one SQLite file, on a local disk.

    Args:
        path: The file, made if missing.

    Raises:
        RunError: It cannot be opened, or is another kind of file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            path.chmod(0o600)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._connection.execute(f"PRAGMA {pragma}")
            for statement in _SCHEMA:
                self._connection.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"cannot open the server's store {path}: {error}") from error

    def receipt(self, key: MessageKey) -> Receipt | None:
        """See `MessageStore`."""
        with self._transaction() as connection:
            found = self._find(connection, key)
        return None if found is None else found[1]

    def append(
        self, key: MessageKey, *, sha256: str, size: int, offset: int, data: bytes
    ) -> Receipt:
        """See `MessageStore`."""
        with self._transaction() as connection:
            found = self._find(connection, key)
            if found is not None and (found[1].sha256, found[1].size) != (sha256, size):
                if found[1].whole:
                    raise Problem(409, "conflict", "another message of this kind was accepted")
                connection.execute("DELETE FROM messages WHERE id = ?", (found[0],))
                found = None
            if found is None:
                cursor = connection.execute(
                    "INSERT INTO messages (run, round, attempt, party, kind, sha256, size, "
                    "received, whole) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0)",
                    (key.run, key.round, key.attempt, key.party, key.kind, sha256, size),
                )
                found = cursor.lastrowid or 0, Receipt(sha256, size, 0, whole=False)
            number, receipt = found
            end = offset + len(data)
            if receipt.whole or end <= receipt.received:
                return receipt
            if offset != receipt.received:
                text = "this part does not follow on what is here"
                raise Problem(409, "gap", text, received=receipt.received)
            if end > size:
                raise Problem(409, "conflict", "more bytes than the message was declared with")
            connection.execute("INSERT INTO parts VALUES (?, ?, ?)", (number, offset, data))
            connection.execute("UPDATE messages SET received = ? WHERE id = ?", (end, number))
            return Receipt(sha256, size, end, whole=False)

    def discard(self, key: MessageKey) -> None:
        """See `MessageStore`."""
        with self._transaction() as connection:
            connection.execute(f"DELETE FROM messages WHERE {_KEY} AND whole = 0", _columns(key))  # noqa: S608

    def accept(self, key: MessageKey) -> Receipt:
        """See `MessageStore`."""
        with self._transaction() as connection:
            connection.execute(f"UPDATE messages SET whole = 1 WHERE {_KEY}", _columns(key))  # noqa: S608
            found = self._find(connection, key)
        if found is None:
            raise RunError("a message vanished from the store before it was accepted")
        return found[1]

    def read(self, key: MessageKey) -> Iterator[bytes]:
        """See `MessageStore`."""
        start = 0
        while True:
            with self._transaction() as connection:
                found = self._find(connection, key)
                row = None
                if found is not None:
                    row = connection.execute(
                        "SELECT data FROM parts WHERE message = ? AND start = ?", (found[0], start)
                    ).fetchone()
            if row is None:
                return
            data = bytes(row[0])
            start += len(data)
            yield data

    def accepted(self, run: str, round_number: int, attempt: int) -> list[MessageKey]:
        """See `MessageStore`."""
        query = (
            "SELECT run, round, attempt, party, kind FROM messages "
            "WHERE run = ? AND round = ? AND attempt = ? AND whole = 1 ORDER BY id"
        )
        with self._transaction() as connection:
            rows = connection.execute(query, (run, round_number, attempt)).fetchall()
        return [MessageKey(*row) for row in rows]

    def forget(self, run: str, round_number: int) -> None:
        """See `MessageStore`."""
        with self._transaction() as connection:
            connection.execute(
                "DELETE FROM messages WHERE run = ? AND round <= ?", (run, round_number)
            )

    def note(self, run: str, kind: str, key: str, value: bytes) -> None:
        """See `MessageStore`."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO notes VALUES (?, ?, ?, ?)", (run, kind, key, value)
            )

    def notes(self, run: str, kind: str) -> dict[str, bytes]:
        """See `MessageStore`."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT key, value FROM notes WHERE run = ? AND kind = ? ORDER BY key", (run, kind)
            ).fetchall()
        return {key: bytes(value) for key, value in rows}

    def drop_note(self, run: str, kind: str, key: str) -> None:
        """See `MessageStore`."""
        with self._transaction() as connection:
            connection.execute(
                "DELETE FROM notes WHERE run = ? AND kind = ? AND key = ?", (run, kind, key)
            )

    def healthy(self) -> bool:
        """See `MessageStore`."""
        try:
            self.note("", "health", "", b"")
        except RunError:
            return False
        return True

    def close(self) -> None:
        """See `MessageStore`."""
        with self._lock:
            self._connection.close()

    def _find(self, connection: sqlite3.Connection, key: MessageKey) -> tuple[int, Receipt] | None:
        row = connection.execute(
            f"SELECT id, sha256, size, received, whole FROM messages WHERE {_KEY}",  # noqa: S608
            _columns(key),
        ).fetchone()
        return None if row is None else (row[0], Receipt(row[1], row[2], row[3], bool(row[4])))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise RunError(f"the server's store {self._path} failed: {error}") from error


_KEY = "run = ? AND round = ? AND attempt = ? AND party = ? AND kind = ?"


def _columns(key: MessageKey) -> tuple[str, int, int, str, str]:
    return key.run, key.round, key.attempt, key.party, key.kind


def open_store(url: str, *, relative_to: Path) -> MessageStore:
    """Open the store that the settings name.

    Raises:
        RunError: There is no such kind, or it cannot be opened.
    """
    kind, _, rest = url.partition(":")
    if kind == "sqlite" and rest:
        return SqliteStore(relative_to / rest)
    raise RunError(f"unknown store {url!r}", hint="sqlite:FILE")
