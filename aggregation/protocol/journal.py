"""A party's memory across crashes: each entry is written once and never changed.

A site records the keys it announced and the round it opened; the decryptor records what it
released. The rules "one opening per round" and "one release per round" are this record, so an
entry must be on the disk before the message it stands for leaves the party.

A party that has forgotten what it opened opens it again. So a journal is a chain, like a ledger:
each entry's digest hangs on the one before, the last of them is the journal's head, and others who
kept a head of it notice one that was put back (`journal_heads`).
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from aggregation.errors import JournalError, JournalUnavailable, RecordedError

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID
"""
# Its first row is of no entry: its key is the journal's id, its digest holds what was adopted.
_CHAIN: Final = """
CREATE TABLE chain (
    sequence INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL
) STRICT
"""
_BEGUN: Final = "journal/begun"
FEDERATION: Final = "run/federation"  # key FINGERPRINT/RUN: the one federation that it is of
_DOMAIN: Final = b"fmfl-secure/aggregation/journal/v1"
_LOST: Final = "Where it is lost, fmfl-secure journal recover makes another that opens nothing old"
_BUSY_TIMEOUT_S: Final = 30.0
# Something else lies in its place, until somebody puts it back.
_NO_FILE: Final = {errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# Primary SQLite codes that speak of the surroundings and not of what the file holds.
_SURROUNDINGS: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}
_LOG = logging.getLogger("aggregation.protocol.journal")


class Journal(Protocol):
    """A durable map whose entries are written once."""

    def record(self, kind: str, key: str, value: bytes) -> None:
        """Write an entry durably and atomically, also under concurrent writers.

        Raises:
            RecordedError: The entry exists, whatever its value.
            JournalUnavailable: It cannot be written now; nothing was.
            JournalError: The journal is damaged.
        """
        ...

    def lookup(self, kind: str, key: str) -> bytes | None:
        """Read an entry, or None.

        Raises:
            JournalError: It cannot be read.
        """
        ...

    def kept_open(self) -> AbstractContextManager[None]:
        """Keeps the journal's file open for the calls inside."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a journal.

    Attributes:
        journal: Id of the journal, 32 hexadecimal digits, drawn when it was made.
        sequence: How many entries there are, the chain's beginning included.
        digest: Of the last one, 64 hexadecimal digits; all before hang on it.
    """

    journal: str
    sequence: int
    digest: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of a journal, and the value that stands there.

    Attributes:
        sequence: Its place; that of the chain's beginning is 1.
        kind: What it is.
        key: Of what.
        value: What was recorded.
    """

    sequence: int
    kind: str
    key: str
    value: bytes


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

    def kept_open(self) -> AbstractContextManager[None]:
        """Does nothing, for there is no file."""
        return nullcontext()


class SqliteJournal:
    """A journal in one SQLite file: WAL, `synchronous=FULL`, one transaction an entry.

    Every call opens its own connection, or inside `kept_open` takes the one that is open there, one
    call at a time: so one object may be used from several threads, and several processes may share
    the file. The directory must be on a local disk: WAL does not work over a network file system.

    It is made once. Beside it lies `NAME.made`, with its id, so that one that was lost is missed
    and not begun anew. A journal of 0.1.0 has no chain: it is taken over as it is, once, and said.
    """

    def __init__(self, path: str | os.PathLike[str], *, lost: str = _LOST) -> None:
        """Open a file, or create it readable by its owner only.

        Args:
            path: The file.
            lost: What to do where it is missing for good, as a sentence.

        Raises:
            JournalUnavailable: It cannot be opened now.
            JournalError: It is no journal, was changed, or is missing where one was.
        """
        self._path = Path(path)
        self._lost = lost
        self._mark = self._path.with_name(f"{self._path.name}.made")
        self._lock = threading.Lock()
        self._keepers = 0
        self._kept: tuple[sqlite3.Connection, tuple[int, int]] | None = None  # and of which file
        try:
            is_new = not _is_there(self._path)
            if is_new and self._mark.exists():
                raise self._missing()
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            with self._connection() as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                with _transaction(connection):
                    connection.execute(_SCHEMA)
                    if not _has_chain(connection):
                        self._begin(connection, is_new=is_new)
                    head = _verified(connection, self._path)
            self._make_mark(head.journal)
        except (OSError, sqlite3.Error) as error:
            raise _failure("open", self._path, error) from error

    @property
    def head(self) -> Head:
        """Its last entry.

        Raises:
            JournalError: It cannot be read.
        """
        with self._reading() as connection:
            (journal,) = connection.execute("SELECT key FROM chain WHERE sequence = 1").fetchone()
            sequence, digest = _last(connection)
        return Head(journal, sequence, digest.hex())

    def holds(self, head: Head) -> bool:
        """Whether an entry of this journal has that head.

        Raises:
            JournalError: It cannot be read.
        """
        query = "SELECT digest FROM chain WHERE sequence = ?"
        with self._reading() as connection:
            (journal,) = connection.execute("SELECT key FROM chain WHERE sequence = 1").fetchone()
            row = connection.execute(query, (head.sequence,)).fetchone()
        return journal == head.journal and row is not None and row[0].hex() == head.digest

    def record(self, kind: str, key: str, value: bytes, *, after: Head | None = None) -> None:
        """Write an entry; see `Journal`.

        Args:
            kind: What it is.
            key: Of what.
            value: What is recorded.
            after: The head that it is to follow; RecordedError where another entry has come since.
        """
        try:
            with self._connection() as connection, _transaction(connection):
                if after is not None and _last(connection) != (
                    after.sequence, bytes.fromhex(after.digest)
                ):  # fmt: skip
                    raise RecordedError(f"the journal has gone on since entry {after.sequence}")
                connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (kind, key, value))
                _extend(connection, kind, key, value)
        except sqlite3.IntegrityError:
            raise RecordedError(f"{kind} is recorded already for {key}") from None
        except (OSError, sqlite3.Error, OverflowError) as error:
            raise _failure("write to", self._path, error) from error

    def lookup(self, kind: str, key: str) -> bytes | None:
        """Read an entry; see `Journal`."""
        query = "SELECT value FROM entries WHERE kind = ? AND key = ?"
        with self._reading() as connection:
            row = connection.execute(query, (kind, key)).fetchone()
        return None if row is None else bytes(row[0])

    def entries(self) -> tuple[str, list[Entry]]:
        """The journal's id, and all entries as its chain has them, verified.

        Raises:
            JournalError: It cannot be read, or does not verify.
        """
        query = """SELECT sequence, kind, key, value FROM chain JOIN entries USING (kind, key)
                     ORDER BY sequence"""
        with self._reading() as connection, _transaction(connection):
            journal = _verified(connection, self._path).journal
            return journal, [Entry(*row) for row in connection.execute(query)]

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Calls inside share one connection, of whichever thread; closed at the end.

        Each entry is on the disk when `record` returns, as without: what stays open is the file,
        and never a transaction. A file that was put in its place meanwhile is noticed, and read.
        """
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                if not self._keepers:
                    self._close()

    def _missing(self) -> JournalError:
        return JournalError(
            f"the journal {self._path} is missing, and there was one: put it back. {self._lost}"
        )

    def _begin(self, connection: sqlite3.Connection, *, is_new: bool) -> None:
        if self._mark.exists():
            raise JournalError(f"the journal {self._path} has lost its chain: put it back")
        entries = connection.execute("SELECT kind, key, value FROM entries").fetchall()
        connection.execute(_CHAIN)
        identifier = secrets.token_hex(16)
        first = (1, _BEGUN, identifier, _beginning(identifier, entries))
        connection.execute("INSERT INTO chain VALUES (?, ?, ?, ?)", first)
        for key, federation in sorted(_federations(entries).items()):
            value = federation.encode()
            connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (FEDERATION, key, value))
            _extend(connection, FEDERATION, key, value)
        if entries and not is_new:
            _LOG.warning("took over the journal %s of 0.1.0: %d entries", self._path, len(entries))

    def _make_mark(self, identifier: str) -> None:
        if self._mark.exists():
            if self._mark.read_bytes().strip() != identifier.encode():
                raise JournalError(f"{self._path} is another journal than the one made here")
            return
        written = self._mark.with_name(f"{self._mark.name}.{os.getpid()}-{secrets.token_hex(4)}")
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{identifier}\n")
            file.flush()
            os.fsync(file.fileno())
        written.replace(self._mark)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            is_done = False
            try:
                yield self._opened()
                is_done = True
            finally:
                if not (is_done and self._keepers):
                    self._close()

    def _opened(self) -> sqlite3.Connection:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            if self._mark.exists():
                raise self._missing() from None
            raise
        file = (there.st_dev, there.st_ino)
        if self._kept is not None and self._kept[1] != file:
            self._close()
        if self._kept is None:
            # Mode rw never creates. isolation_level None: transactions are written out, durable
            # when they are committed.
            connection = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,  # used under the lock
            )
            self._kept = connection, file
            connection.execute("PRAGMA synchronous=FULL")
        return self._kept[0]

    def _close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[0].close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._connection() as connection:
                yield connection
        except (OSError, sqlite3.Error) as error:
            raise _failure("read", self._path, error) from error


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def _failure(what: str, path: Path, error: Exception) -> JournalError:
    """Makes a failure a `JournalError`: passing, unless SQLite blames the file itself."""
    text = f"cannot {what} the journal {path}: {error}"
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, OSError) and error.errno in _NO_FILE:
        return JournalError(text)
    if isinstance(error, OSError) or (code is not None and code & 0xFF in _SURROUNDINGS):
        return JournalUnavailable(text)
    return JournalError(text)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back by itself
            connection.execute("ROLLBACK")
        raise


def _has_chain(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'chain'"
    return connection.execute(query).fetchone() is not None


def heads_of(journal: str, entries: Iterable[Entry]) -> Iterator[tuple[Head, Entry]]:
    """Each entry of a journal that adopted none, with the head that it follows."""
    before = Head(journal, 1, _beginning(journal, ()).hex())
    for entry in entries:
        yield before, entry
        digest = _following(bytes.fromhex(before.digest), entry.kind, entry.key, entry.value)
        before = Head(journal, before.sequence + 1, digest.hex())


def _last(connection: sqlite3.Connection) -> tuple[int, bytes]:
    query = "SELECT sequence, digest FROM chain ORDER BY sequence DESC LIMIT 1"
    sequence, digest = connection.execute(query).fetchone()
    return int(sequence), bytes(digest)


def _extend(connection: sqlite3.Connection, kind: str, key: str, value: bytes) -> None:
    sequence, before = _last(connection)
    row = (sequence + 1, kind, key, _following(before, kind, key, value))
    connection.execute("INSERT INTO chain VALUES (?, ?, ?, ?)", row)


def _following(before: bytes, kind: str, key: str, value: bytes) -> bytes:
    return _hash(before, kind.encode(), key.encode(), hashlib.sha256(value).digest())


def _beginning(identifier: str, adopted: Iterable[tuple[str, str, bytes]]) -> bytes:
    parts = [identifier.encode()]
    for kind, key, value in sorted(adopted):
        parts += [kind.encode(), key.encode(), hashlib.sha256(value).digest()]
    return _hash(*parts)


def _hash(*parts: bytes) -> bytes:
    state = hashlib.sha256(_DOMAIN)
    for part in parts:
        state.update(len(part).to_bytes(8, "big") + part)
    return state.digest()


def _verified(connection: sqlite3.Connection, path: Path) -> Head:
    """Follow the chain from its beginning; its head."""
    entries = {
        (kind, key): bytes(value)
        for kind, key, value in connection.execute("SELECT kind, key, value FROM entries")
    }
    rows = connection.execute("SELECT sequence, kind, key, digest FROM chain ORDER BY sequence")
    chained = [(int(s), kind, key, bytes(digest)) for s, kind, key, digest in rows]
    wrong = JournalError(f"the journal {path} does not verify: it was changed. Put it back")
    if not chained or [row[0] for row in chained] != list(range(1, len(chained) + 1)):
        raise wrong
    _, begun, identifier, digest = chained[0]
    after = {(kind, key) for _, kind, key, _ in chained[1:]}
    adopted = [(kind, key, value) for (kind, key), value in entries.items()
               if (kind, key) not in after]  # fmt: skip
    if begun != _BEGUN or digest != _beginning(identifier, adopted):
        raise wrong
    for _, kind, key, following in chained[1:]:
        if (kind, key) not in entries:
            raise wrong
        digest = _following(digest, kind, key, entries[kind, key])
        if digest != following:
            raise wrong
    return Head(identifier, len(chained), digest.hex())


def _federations(entries: Iterable[tuple[str, str, bytes]]) -> dict[str, str]:
    """Of keys as 0.1.0 wrote them, FINGERPRINT/FEDERATION/RUN/...: the federation of each run.

    A run that was of two is of none: nothing more of it opens.
    """
    found: dict[str, str] = {}
    for _, key, _ in entries:
        parts = key.split("/")
        if len(parts) >= 4:
            fingerprint, federation, run = parts[:3]
            if found.setdefault(f"{fingerprint}/{run}", federation) != federation:
                found[f"{fingerprint}/{run}"] = ""
    return found
