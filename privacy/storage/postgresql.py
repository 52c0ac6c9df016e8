"""The PostgreSQL store: one schema of a database, by URL. The only file that knows psycopg.

Each change is one `READ COMMITTED` transaction whose first statement takes an advisory lock of
the schema's name: writers queue, and what they then read is what the one before them committed.
That role needs no more than SELECT and INSERT, so that a database's owner can make "append-only"
a matter of rights. A writer that ignores the lock runs into the primary key.

Before it writes, every transaction checks that what it commits survives a crash: `fsync` is on,
the tables are not UNLOGGED, and `synchronous_commit` is on, or set so for the transaction.

`privacy.storage` opens it for a URL that begins as one of PostgreSQL's does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Literal

from typing_extensions import override

from privacy.errors import (
    StorageDamaged,
    StorageError,
    StorageExists,
    StorageMissing,
    StorageUnavailable,
    StorageUnusable,
)
from privacy.storage.kept import Connections
from privacy.storage.store import Store
from privacy.storage.urls import split_schema

try:
    import psycopg
    from psycopg import errors as failures
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as error:
    raise StorageUnusable(
        f"PostgreSQL needs the driver psycopg: {error}",
        hint="pip install 'psycopg[binary]>=3.2,<4'",
    ) from error

# Strict, so that a password with a bare @ / ? or # is refused here, where nothing is quoted, and
# its rest is not taken for a host whose name an error message would show.
_URL = re.compile(r"[a-z+]+://(?:[^@/?#]*@)?[^@/?#]*(?:/[^@/?#]*)?(?:\?[^#]*)?", re.ASCII)
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}", re.ASCII)
_SURVIVES = {"on", "remote_apply"}  # values of synchronous_commit; the latter waits for even more

_RIGHTS = "Its role needs USAGE on the schema and SELECT and INSERT on its tables."

# Of these SQLSTATE classes, and of errors without any, the surroundings are the cause.
_NO_ACCESS_CLASSES = {
    "08",  # connection
    "25",  # a server that is read-only
    "28",  # authorisation
    "3D",  # no such database
    "40",  # rolled back for another's sake
    "53",  # no room, no memory, too many connections
    "55",  # a lock was not to be had
    "57",  # the server is starting, stopping or was told to cancel
    "58",  # the system below the server
}


class PostgresTransaction:
    """A transaction on an open connection; see `privacy.storage.Transaction`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement; returns its rows."""
        cursor = self._connection.execute(statement.replace("?", "%s").encode(), parameters or None)
        return cursor.fetchall() if cursor.description is not None else []


class PostgresStore(Store):
    """Tables in one schema, which threads and processes may share.

    Args:
        url: `postgresql://USER@HOST/DATABASE?schema=NAME`, further parameters as libpq knows them.
            A password is better kept in a password file (`PGPASSFILE`) than here.
        schema: Schema where the URL names none.
        timeout_s: How long to wait for another writer, and for a server that does not answer.
        keep_open: Whether calls share one connection; else each opens its own.

    Raises:
        StorageUnavailable: The URL cannot be read.
    """

    dialect: Literal["postgresql"] = "postgresql"

    def __init__(self, url: str, *, schema: str, timeout_s: float, keep_open: bool = False) -> None:
        parameters, named = _parse(url)
        self.schema = named or schema
        if not _SCHEMA.fullmatch(self.schema) or self.schema.startswith("pg_"):
            raise StorageUnusable(
                "the schema in the PostgreSQL URL is not a name of small letters, digits and _"
            )
        self._timeout_s = timeout_s
        self._connections = Connections[psycopg.Connection[Any]](
            keep_open=keep_open, usable=_answers
        )
        self._password = str(parameters.get("password") or "")
        self.name = _shown(parameters, self.schema)
        waiting = {"connect_timeout": 10, "keepalives_idle": 30, "tcp_user_timeout": 60_000}
        fixed = {"client_encoding": "utf8", "application_name": "fmfl-secure"}
        self._conninfo = make_conninfo("", **{**waiting, **parameters, **fixed})
        # Locks are the database's, by number: the same for all who use the schema, and no others.
        digest = hashlib.sha256(b"fmfl-secure/schema/" + self.schema.encode()).digest()
        self._lock = int.from_bytes(digest[:8], "big", signed=True)

    def __repr__(self) -> str:
        return f"PostgresStore({self.name!r})"

    def exists(self) -> bool:
        """Whether the schema holds a table; see `privacy.storage.Store`."""
        with self._connection() as connection:
            return self._holds_tables(connection)

    @contextmanager
    def create(self, tables: Sequence[str]) -> Iterator[PostgresTransaction]:
        """Make the schema, if its owner has not, and the tables; see `privacy.storage.Store`."""
        with self._transaction("READ WRITE") as connection:
            if self._holds_tables(connection):
                raise StorageExists(f"{self.name} exists already")
            present = "SELECT to_regnamespace(%s) IS NOT NULL"
            row = connection.execute(present, (self.schema,)).fetchone()
            if row is None or not row[0]:
                connection.execute(f'CREATE SCHEMA "{self.schema}"'.encode())
            for statement in tables:
                connection.execute(statement.encode())
            self._require_durable(connection)
            yield PostgresTransaction(connection)

    @contextmanager
    @override
    def read(self) -> Iterator[PostgresTransaction]:
        with self._transaction("READ ONLY") as connection:
            yield PostgresTransaction(connection)

    @contextmanager
    @override
    def write(self) -> Iterator[PostgresTransaction]:
        with self._transaction("READ WRITE") as connection:
            self._require_durable(connection)
            yield PostgresTransaction(connection)

    @contextmanager
    def _transaction(
        self, access: Literal["READ ONLY", "READ WRITE"]
    ) -> Iterator[psycopg.Connection[Any]]:
        with self._connection() as connection:
            # Spelled out, since a server's defaults may be others: under a stricter level the
            # snapshot would be older than the lock that was waited for.
            connection.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED {access}".encode())
            row = connection.execute(
                "SELECT set_config('search_path', %s, true), set_config('lock_timeout', %s, true), "
                "has_schema_privilege(to_regnamespace(%s)::oid, 'USAGE')",
                (f'"{self.schema}", pg_temp', f"{round(self._timeout_s * 1000)}ms", self.schema),
            ).fetchone()
            # Without that right the schema is passed over in silence; None where there is none.
            if row is None or row[2] is False:
                raise StorageUnavailable(
                    f"cannot use {self.name}: permission denied for its schema", hint=_RIGHTS
                )
            if access == "READ WRITE":
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._lock,))
            yield connection
            # The server answers ROLLBACK, and no error, where a statement failed before.
            if connection.execute("COMMIT").statusmessage != "COMMIT":
                raise StorageUnavailable(f"{self.name} did not keep the change")

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        # What is open when a connection closes, or when its process dies, is rolled back.
        try:
            with self._connections.get(self._connect) as connection:
                yield connection
        except psycopg.Error as error:
            raise self._explain(error) from error
        except UnicodeDecodeError as error:
            raise StorageDamaged(f"{self.name} is not readable: {error}") from error

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)

    @override
    def kept_open(self) -> AbstractContextManager[None]:
        return self._connections.kept_open()

    @override
    def close(self) -> None:
        self._connections.close()

    def _explain(self, error: psycopg.Error) -> StorageError:
        text = " ".join(str(error).split()) or type(error).__name__
        if self._password:
            text = text.replace(self._password, "***")
        if isinstance(error, failures.UndefinedTable | failures.InvalidSchemaName):
            return StorageMissing(f"nothing is at {self.name}")
        if isinstance(error, failures.InsufficientPrivilege):
            return StorageUnavailable(
                f"cannot use {self.name}: {text}",
                hint=_RIGHTS,
            )
        if isinstance(error, failures.UniqueViolation):
            return StorageUnavailable(
                f"{self.name} was written by someone who did not wait for the lock: {text}",
                hint="Nothing was changed. Try again.",
            )
        state = error.sqlstate
        if state is None or state[:2] in _NO_ACCESS_CLASSES:
            return StorageUnavailable(
                f"cannot use {self.name}: {text}",
                hint="Check that the server runs and is reachable, that the password is right, and "
                "that no other process holds the lock.",
            )
        return StorageDamaged(f"{self.name} is not readable: {text}")

    def _holds_tables(self, connection: psycopg.Connection[Any]) -> bool:
        query = (
            "SELECT count(*) FROM pg_catalog.pg_class "
            "WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p')"
        )
        row = connection.execute(query, (self.schema,)).fetchone()
        return row is not None and bool(row[0])

    def _require_durable(self, connection: psycopg.Connection[Any]) -> None:
        query = (
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'), "
            "(SELECT count(*) FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace(%s) "
            "AND relkind IN ('r', 'p') AND relpersistence <> 'p')"
        )
        fsync, synchronous, unlogged = (
            connection.execute(query, (self.schema,)).fetchone() or ("",) * 3
        )
        if fsync != "on":
            raise StorageUnavailable(
                f"{self.name} would not survive a crash: the server runs with fsync = {fsync}",
                hint="Set fsync = on in postgresql.conf and reload.",
            )
        if unlogged:
            raise StorageUnavailable(
                f"{self.name} would be emptied by a crash: a table of it is UNLOGGED",
                hint="ALTER TABLE ... SET LOGGED",
            )
        if synchronous not in _SURVIVES:
            connection.execute("SET LOCAL synchronous_commit = on")
            row = connection.execute("SELECT current_setting('synchronous_commit')").fetchone()
            if row is None or row[0] not in _SURVIVES:
                raise StorageUnavailable(
                    f"{self.name} would not survive a crash: its server will "
                    "not commit synchronously"
                )


def _answers(connection: psycopg.Connection[Any]) -> bool:
    """Whether a kept connection still reaches its server, which may have been restarted."""
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


def _parse(url: str) -> tuple[dict[str, Any], str]:
    """A URL's parameters as libpq knows them, and the schema that it names."""
    schema, parameters = "", None
    if _URL.fullmatch(url) is not None:
        plain, schema = split_schema(url)
        with suppress(psycopg.Error):  # whose text quotes the URL, password and all
            parameters = conninfo_to_dict(f"postgresql://{plain.partition('://')[2]}")
    if parameters is None:
        raise StorageUnusable(
            "the PostgreSQL URL cannot be read (it is not shown: it may hold a password)",
            hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME, with % and two digits "
            "for each of : / ? # @ % in a password. Better, leave it to a password file.",
        )
    return parameters, schema


def _shown(parameters: dict[str, Any], schema: str) -> str:
    user, host, port, database = (
        str(parameters.get(name) or "") for name in ("user", "host", "port", "dbname")
    )
    return (
        f"postgresql://{user + '@' if user else ''}{host}{':' + port if port else ''}"
        f"/{database}?schema={schema}"
    )
