"""The same tests for every store of ledgers: where to put them, and how to tamper with them.

A test that asks for the fixture `places` runs twice, with SQLite and with PostgreSQL.
"""

from __future__ import annotations

import itertools
import re
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Protocol

from postgres import SITE, Cluster


class Places(Protocol):
    """Makes places for ledgers, and reaches past the product into what is kept there."""

    kind: str

    def new(self, name: str = "ledger") -> Path | str:
        """A place of that name with nothing there; the same again for the same name."""
        ...

    def copy(self, place: Path | str, name: str) -> Path | str:
        """The same records at another place."""
        ...

    def lines(self, place: Path | str) -> list[str]:
        """What is stored, as it is."""
        ...

    def replace(self, place: Path | str, lines: Iterable[str]) -> None:
        """Put other records there: triggers stop nobody who can drop them."""
        ...

    def remove(self, place: Path | str) -> None:
        """Delete all of it."""
        ...

    def try_to(self, place: Path | str, statement: str) -> None:
        """Run a statement as an honest tool would, triggers and all."""
        ...


class SqlitePlaces:
    kind = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self, name: str = "ledger") -> Path:
        return self._folder / "deep" / f"{name}.sqlite"

    def copy(self, place: Path, name: str) -> Path:
        with closing(sqlite3.connect(place)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copy(place, self.new(name))
        return self.new(name)

    def lines(self, place: Path) -> list[str]:
        with closing(sqlite3.connect(place)) as connection:
            rows = connection.execute("SELECT line FROM records ORDER BY sequence").fetchall()
        return [row[0] for row in rows]

    def replace(self, place: Path, lines: Iterable[str]) -> None:
        with closing(sqlite3.connect(place, isolation_level=None)) as connection:
            triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            for (trigger,) in triggers.fetchall():
                connection.execute(f"DROP TRIGGER {trigger}")
            connection.execute("DELETE FROM records")
            connection.executemany("INSERT INTO records VALUES (?, ?)", enumerate(lines, start=1))

    def remove(self, place: Path) -> None:
        for suffix in ("", "-wal", "-shm"):
            place.with_name(place.name + suffix).unlink(missing_ok=True)

    def try_to(self, place: Path, statement: str) -> None:
        with closing(sqlite3.connect(place, isolation_level=None)) as connection:
            connection.execute(statement)


class PostgresPlaces:
    kind = "postgresql"
    _test = itertools.count(1)

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._prefix = f"t{next(self._test)}"

    def new(self, name: str = "ledger") -> str:
        return self.cluster.url(f"{self._prefix}_{re.sub('[^a-z0-9]', '_', name.lower())}")

    def copy(self, place: str, name: str) -> str:
        copied, old = self.new(name), self._schema(place)
        new = self._schema(copied)
        with self.cluster.connect(user=SITE) as connection, connection.transaction():
            connection.execute(f"CREATE SCHEMA {new}")
            connection.execute(f"CREATE TABLE {new}.records (LIKE {old}.records INCLUDING ALL)")
            connection.execute(f"INSERT INTO {new}.records SELECT * FROM {old}.records")
        return copied

    def lines(self, place: str) -> list[str]:
        with self.cluster.connect() as connection:
            schema = self._schema(place)
            rows = connection.execute(f"SELECT line FROM {schema}.records ORDER BY sequence")
            return [row[0] for row in rows.fetchall()]

    def replace(self, place: str, lines: Iterable[str]) -> None:
        schema = self._schema(place)
        with self.cluster.connect() as connection, connection.transaction():
            connection.execute(f"ALTER TABLE {schema}.records DISABLE TRIGGER USER")
            connection.execute(f"DELETE FROM {schema}.records")
            for row in enumerate(lines, start=1):
                connection.execute(f"INSERT INTO {schema}.records VALUES (%s, %s)", row)

    def remove(self, place: str) -> None:
        with self.cluster.connect() as connection:
            connection.execute(f"DROP SCHEMA {self._schema(place)} CASCADE")

    def try_to(self, place: str, statement: str) -> None:
        with self.cluster.connect() as connection:
            connection.execute(f"SET search_path = {self._schema(place)}")
            connection.execute(statement)

    @staticmethod
    def _schema(place: str) -> str:
        return place.rpartition("schema=")[2]
