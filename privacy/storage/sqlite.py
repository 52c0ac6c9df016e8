"""The SQLite store: WAL, `synchronous=FULL`, one `BEGIN IMMEDIATE` for each change.

The file must be on a local disk: WAL does not work over a network file system.

`privacy.storage` opens it for a path. What is written goes through `write`, one transaction a
call; `create` first fills a file beside and then gives it its name, so that a crash leaves no half
of a store.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from typing_extensions import override

from privacy.errors import (
    StorageDamaged,
    StorageExists,
    StorageMissing,
    StorageUnavailable,
    StorageUnusable,
)
from privacy.storage.kept import Connections
from privacy.storage.store import Store

# Primary SQLite codes that speak of the surroundings and not of what the file holds.
_NO_ACCESS = {
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


def _file(path: Path) -> tuple[int, int] | None:
    """Which file is there: another one may be put in its place while a connection is kept."""
    try:
        there = path.stat()
    except OSError:
        return None
    return there.st_dev, there.st_ino


class SqliteTransaction:
    """A transaction on an open connection; see `privacy.storage.Transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement; returns its rows."""
        return self._connection.execute(statement, parameters).fetchall()


_ANOTHER: Final = "Name a file, or move away what lies in its place."
_BACK: Final = "Put the latest whole copy of it back."


class SqliteStore(Store):
    """Tables in one file, which threads and processes may share.

    Args:
        path: The file.
        application_id: For the file's header, at creation; 0 for none.
        timeout_s: How long to wait for another writer.
        keep_open: Whether calls share one connection; else each opens its own.
    """

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(
        self, path: Path, *, application_id: int, timeout_s: float, keep_open: bool = False
    ) -> None:
        self._path, self.name = path, str(path)
        self._application_id = application_id
        self._timeout_s = timeout_s
        self._connections = Connections[sqlite3.Connection](
            keep_open=keep_open, source=partial(_file, path)
        )

    def __repr__(self) -> str:
        return f"SqliteStore({self.name!r})"

    def exists(self) -> bool:
        """Whether there is a file; see `privacy.storage.Store`."""
        try:
            is_file = stat.S_ISREG(self._path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except ValueError as error:  # of a name with a NUL character
            raise StorageUnusable(f"no file can be named {self.name!r}", hint=_ANOTHER) from error
        except OSError as error:  # of a disk or a folder that does not answer, nothing is known
            raise StorageUnavailable(
                f"cannot look for {self.name}: {error.strerror or error}"
            ) from error
        if not is_file:
            raise StorageUnusable(f"{self.name} is a folder or the like, no file", hint=_ANOTHER)
        return True

    @contextmanager
    def create(self, tables: Sequence[str]) -> Iterator[SqliteTransaction]:
        """Make the file and its folder; see `privacy.storage.Store`.

        Built aside, so that others find a whole file or none, and so does who comes after a crash.
        """
        if self._path.exists():
            raise StorageExists(f"{self.name} exists already")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnavailable(f"cannot make the folder of {self.name}: {error}") from error
        beside = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}.new")
        try:
            with self._errors(), closing(self._connect(beside, "rwc")) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id={self._application_id:d}")
                for statement in tables:
                    connection.execute(statement)
                yield SqliteTransaction(connection)
                connection.execute("COMMIT")
            self._publish(beside)
        finally:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{beside}{suffix}").unlink(missing_ok=True)

    def _publish(self, beside: Path) -> None:
        """Give a file, closed and on the disk, its name; durable when this returns."""
        try:
            os.link(beside, self._path)  # never over what is there
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError:
            raise StorageExists(f"{self.name} exists already: another process was first") from None
        except OSError as error:
            raise StorageUnavailable(f"cannot make {self.name}: {error}") from error

    @contextmanager
    @override
    def read(self) -> Iterator[SqliteTransaction]:
        with self._connection() as connection:
            connection.execute("BEGIN")
            yield SqliteTransaction(connection)

    @contextmanager
    @override
    def write(self) -> Iterator[SqliteTransaction]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield SqliteTransaction(connection)
            connection.execute("COMMIT")

    @override
    def kept_open(self) -> AbstractContextManager[None]:
        return self._connections.kept_open()

    @override
    def close(self) -> None:
        self._connections.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # Mode rw never creates. What is open when a connection closes is rolled back.
        if not self.exists():
            raise StorageMissing(f"nothing is at {self.name}")
        connect = partial(self._connect, self._path, "rw")
        with self._errors(), self._connections.get(connect) as connection:
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The low byte of an extended code is the primary one.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ACCESS:
                raise StorageUnavailable(
                    f"cannot use {self.name}: {error}",
                    hint="Check that it is there, writable, on a disk with room, and not held by "
                    "another process.",
                ) from error
            raise StorageDamaged(f"{self.name} is not readable: {error}", hint=_BACK) from error
        except UnicodeDecodeError as error:  # SQLite quotes a damaged schema, not in UTF-8
            raise StorageDamaged(f"{self.name} is not readable: {error}", hint=_BACK) from error

    def _connect(self, path: Path, mode: Literal["rw", "rwc"]) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._timeout_s,
            isolation_level=None,
            check_same_thread=False,  # one that is kept is used by one thread at a time
        )
        try:
            connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection
