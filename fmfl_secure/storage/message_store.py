"""The server's durable store: messages that came in, whole or in part, and parties' words.

A request is answered only once what it brought is in here, so a server that was killed goes on
where it was: it rebuilds an attempt from its messages. One transaction a call, durable when the
call returns, in SQLite or PostgreSQL alike: `privacy.storage` is the layer below, as for ledgers.

`runtime.inbox` puts a message in by `append`, part by part, and `accept`; `runtime.round_driver`
reads all that were `accepted` when an attempt goes on, and forgets a round that is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from typing_extensions import override

from fmfl_secure.errors import Problem, RunDamaged, RunError, Unavailable
from fmfl_secure.storage.errors import make_missing, storage_errors
from privacy.storage import Store, Transaction, is_url, split_schema, with_schema
from privacy.storage import open_store as open_tables

_SCHEMA: Final = "fmfl_service"  # in PostgreSQL, where the URL names none
_TABLES: Final = {
    "sqlite": (
        """CREATE TABLE messages (
             id INTEGER PRIMARY KEY, run TEXT NOT NULL, round INTEGER NOT NULL,
             attempt INTEGER NOT NULL, party TEXT NOT NULL, kind TEXT NOT NULL,
             sha256 TEXT NOT NULL, size INTEGER NOT NULL, received INTEGER NOT NULL,
             whole INTEGER NOT NULL, UNIQUE (run, round, attempt, party, kind)) STRICT""",
        """CREATE TABLE parts (
             message INTEGER NOT NULL REFERENCES messages (id), start INTEGER NOT NULL,
             data BLOB NOT NULL, PRIMARY KEY (message, start)) STRICT""",
        """CREATE TABLE notes (
             run TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
             PRIMARY KEY (run, kind, key)) STRICT""",
    ),
    "postgresql": (
        """CREATE TABLE messages (
             id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run TEXT NOT NULL,
             round BIGINT NOT NULL, attempt BIGINT NOT NULL, party TEXT NOT NULL,
             kind TEXT NOT NULL, sha256 TEXT NOT NULL, size BIGINT NOT NULL,
             received BIGINT NOT NULL, whole INTEGER NOT NULL,
             UNIQUE (run, round, attempt, party, kind))""",
        """CREATE TABLE parts (
             message BIGINT NOT NULL REFERENCES messages (id), start BIGINT NOT NULL,
             data BYTEA NOT NULL, PRIMARY KEY (message, start))""",
        """CREATE TABLE notes (
             run TEXT NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value BYTEA NOT NULL,
             PRIMARY KEY (run, kind, key))""",
    ),
}
_KEY: Final = "run = ? AND round = ? AND attempt = ? AND party = ? AND kind = ?"
_FIND: Final = f"SELECT id, sha256, size, received, whole FROM messages WHERE {_KEY}"  # noqa: S608


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


class Messages(Protocol):
    """A store of a run's messages and notes: durable (`MessageStore`), or in memory."""

    def receipt(self, key: MessageKey) -> Receipt | None:
        """How much of a message is here; None if nothing was declared."""
        ...

    def append(
        self, key: MessageKey, *, sha256: str, size: int, offset: int, data: bytes
    ) -> Receipt:
        """Add a part; see `following_receipt` for what is refused."""
        ...

    def put(self, key: MessageKey, *, sha256: str, data: bytes) -> Receipt:
        """Keep a whole message that was checked, in place of what had come of it."""
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
        """Returns all notes of a kind, by key."""
        ...

    def drop_note(self, run: str, kind: str, key: str) -> None:
        """Deletes a note, if it is there."""
        ...

    def healthy(self) -> bool:
        """Whether it can be written to."""
        ...

    def close(self) -> None:
        """Releases files and connections; nothing may follow."""
        ...


class MessageStore(Messages):
    """Messages and notes. Durable when a call returns; safe to use from several threads.

    Args:
        tables: Where they are kept; made if missing.

    Raises:
        RunError: It cannot be opened, is of another kind, or would not survive a crash.
    """

    def __init__(self, tables: Store) -> None:
        self._tables = tables
        with storage_errors("cannot open the server's store"):
            make_missing(tables, _TABLES)
            with tables.write() as transaction:
                transaction.execute("SELECT key FROM notes WHERE run = ?", "")

    def receipt(self, key: MessageKey) -> Receipt | None:
        """How much of a message is here; None if nothing was declared."""
        with self._read() as transaction:
            found = _find(transaction, key)
        return None if found is None else found[1]

    def append(
        self, key: MessageKey, *, sha256: str, size: int, offset: int, data: bytes
    ) -> Receipt:
        """Add a part. A part that is here already changes nothing.

        Another digest or size than before starts an unfinished message anew.

        Raises:
            Problem: 409 for a gap, for another message after a whole one, or for too many bytes.
        """
        with self._write() as transaction:
            found = _find(transaction, key)
            known = None if found is None else found[1]
            before, after = following_receipt(
                known, sha256=sha256, size=size, offset=offset, length=len(data)
            )
            if found is not None and before is not known:
                _delete(transaction, found[0])
                found = None
            if found is None:
                ((number,),) = transaction.execute(
                    "INSERT INTO messages (run, round, attempt, party, kind, sha256, size, "
                    "received, whole) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0) RETURNING id",
                    *_columns(key),
                    sha256,
                    size,
                )
            else:
                number = found[0]
            if after is not before:
                transaction.execute("INSERT INTO parts VALUES (?, ?, ?)", number, offset, data)
                transaction.execute(
                    "UPDATE messages SET received = ? WHERE id = ?", after.received, number
                )
            return after

    def put(self, key: MessageKey, *, sha256: str, data: bytes) -> Receipt:
        """Keep a whole message that was checked, in place of what had come of it."""
        with self._write() as transaction:
            found = _find(transaction, key)
            if found is not None:
                _delete(transaction, found[0])
            ((number,),) = transaction.execute(
                "INSERT INTO messages (run, round, attempt, party, kind, sha256, size, "
                "received, whole) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) RETURNING id",
                *_columns(key),
                sha256,
                len(data),
                len(data),
            )
            transaction.execute("INSERT INTO parts VALUES (?, 0, ?)", number, data)
        return Receipt(sha256, len(data), len(data), whole=True)

    def discard(self, key: MessageKey) -> None:
        """Forget a message that was not accepted."""
        with self._write() as transaction:
            found = _find(transaction, key)
            if found is not None and not found[1].whole:
                _delete(transaction, found[0])

    def accept(self, key: MessageKey) -> Receipt:
        """Mark a message as whole, once its digest and content were checked."""
        with self._write() as transaction:
            transaction.execute(f"UPDATE messages SET whole = 1 WHERE {_KEY}", *_columns(key))  # noqa: S608
            found = _find(transaction, key)
        if found is None:
            raise RunDamaged("a message vanished from the store before it was accepted")
        return found[1]

    def read(self, key: MessageKey) -> Iterator[bytes]:
        """The bytes of a message, part by part; nothing if it is not here."""
        start = 0
        while True:
            with self._read() as transaction:
                found = _find(transaction, key)
                rows = []
                if found is not None:
                    rows = transaction.execute(
                        "SELECT data FROM parts WHERE message = ? AND start = ?", found[0], start
                    )
            if not rows:
                return
            data = bytes(rows[0][0])
            start += len(data)
            yield data

    def accepted(self, run: str, round_number: int, attempt: int) -> list[MessageKey]:
        """Every accepted message of an attempt, in the order they were begun."""
        query = (
            "SELECT run, round, attempt, party, kind FROM messages "
            "WHERE run = ? AND round = ? AND attempt = ? AND whole = 1 ORDER BY id"
        )
        with self._read() as transaction:
            rows = transaction.execute(query, run, round_number, attempt)
        return [MessageKey(*row) for row in rows]

    def forget(self, run: str, round_number: int) -> None:
        """Delete all messages of rounds up to this one."""
        which = "run = ? AND round <= ?"
        with self._write() as transaction:
            transaction.execute(
                f"DELETE FROM parts WHERE message IN (SELECT id FROM messages WHERE {which})",  # noqa: S608
                run,
                round_number,
            )
            transaction.execute(f"DELETE FROM messages WHERE {which}", run, round_number)  # noqa: S608

    def note(self, run: str, kind: str, key: str, value: bytes) -> None:
        """Keep a party's word, or the server's own, in place of an earlier one."""
        with self._write() as transaction:
            transaction.execute(
                "INSERT INTO notes VALUES (?, ?, ?, ?) "
                "ON CONFLICT (run, kind, key) DO UPDATE SET value = excluded.value",
                run,
                kind,
                key,
                value,
            )

    @override
    def notes(self, run: str, kind: str) -> dict[str, bytes]:
        with self._read() as transaction:
            rows = transaction.execute(
                "SELECT key, value FROM notes WHERE run = ? AND kind = ?", run, kind
            )
        return {key: bytes(value) for key, value in sorted(rows)}

    @override
    def drop_note(self, run: str, kind: str, key: str) -> None:
        with self._write() as transaction:
            transaction.execute(
                "DELETE FROM notes WHERE run = ? AND kind = ? AND key = ?", run, kind, key
            )

    def healthy(self) -> bool:
        """Whether it can be written to."""
        try:
            self.note("", "health", "", b"")
        except (Unavailable, RunDamaged):
            return False
        return True

    @override
    def close(self) -> None:
        self._tables.close()

    @contextmanager
    def _write(self) -> Iterator[Transaction]:
        with storage_errors("cannot write to the server's store"), self._tables.write() as change:
            yield change

    @contextmanager
    def _read(self) -> Iterator[Transaction]:
        with storage_errors("cannot read the server's store"), self._tables.read() as transaction:
            yield transaction


def following_receipt(
    known: Receipt | None, *, sha256: str, size: int, offset: int, length: int
) -> tuple[Receipt, Receipt]:
    """Computes the receipts before and after a part; the same where it is here already.

    Another digest or size than before starts an unfinished message anew.

    Args:
        known: How much of the message is here; None for nothing.
        sha256: Digest that is declared.
        size: Bytes that are declared.
        offset: Where the part starts.
        length: Its bytes.

    Raises:
        Problem: 409 for a gap, for another message after a whole one, or for too many bytes.
    """
    before = known
    if before is not None and (before.sha256, before.size) != (sha256, size):
        if before.whole:
            raise Problem(409, "conflict", "another message of this kind was accepted")
        before = None
    if before is None:
        before = Receipt(sha256, size, 0, whole=False)
    end = offset + length
    if before.whole or end <= before.received:
        return before, before
    if offset != before.received:
        text = "this part does not follow on what is here"
        raise Problem(409, "gap", text, received=before.received)
    if end > size:
        raise Problem(409, "conflict", "more bytes than the message was declared with")
    return before, Receipt(sha256, size, end, whole=False)


def is_intact(store: Messages, key: MessageKey, receipt: Receipt) -> bool:
    """Whether all bytes are here and have the digest that was declared."""
    if receipt.received != receipt.size:
        return False
    state = hashlib.sha256()
    for part in store.read(key):
        state.update(part)
    return state.hexdigest() == receipt.sha256


def _find(transaction: Transaction, key: MessageKey) -> tuple[int, Receipt] | None:
    rows = transaction.execute(_FIND, *_columns(key))
    if not rows:
        return None
    number, sha256, size, received, whole = rows[0]
    return number, Receipt(sha256, size, received, whole=bool(whole))


def _delete(transaction: Transaction, number: int) -> None:
    transaction.execute("DELETE FROM parts WHERE message = ?", number)
    transaction.execute("DELETE FROM messages WHERE id = ?", number)


def _columns(key: MessageKey) -> tuple[str, int, int, str, str]:
    return key.run, key.round, key.attempt, key.party, key.kind


def open_store(url: str, *, relative_to: Path) -> MessageStore:
    """Open the store that the settings name.

    Args:
        url: `sqlite:FILE`, or `postgresql://USER@HOST/DATABASE?schema=NAME`.
        relative_to: Folder that a file's path starts from.

    Raises:
        RunError: There is no such kind, or it cannot be opened.
    """
    with storage_errors("cannot open the server's store"):
        if is_url(url):
            return MessageStore(open_tables(url, schema=_SCHEMA, keep_open=True))
        kind, _, rest = url.partition(":")
        if kind == "sqlite" and rest:
            path = relative_to / rest
            store = MessageStore(open_tables(path, keep_open=True))
            path.chmod(0o600)
            return store
    # Not shown whole: it may hold a password.
    raise RunError(f"unknown store {kind!r}", hint="sqlite:FILE, or a PostgreSQL URL")


def heads_location(url: str, *, otherwise: Path) -> Path | str:
    """Where heads of ledgers are kept: in the same database as the messages, in a schema beside.

    Args:
        url: As for `open_store`.
        otherwise: The file to use where that is no database.
    """
    if not is_url(url):
        return otherwise
    return with_schema(url, f"{split_schema(url)[1] or _SCHEMA}_heads")


def run_location(url: str) -> str | None:
    """The database that runs keep their state in, each in a schema beside the messages'.

    Args:
        url: As for `open_store`.

    Returns:
        Its URL, whose schema begins that of each run; None where each run's folder holds its own.
    """
    if not is_url(url):
        return None
    return with_schema(url, f"{split_schema(url)[1] or _SCHEMA}_run")
