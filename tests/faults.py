"""Surroundings that fail: statements to SQLite, by file and kind, on a clock that nobody waits for.

`Faults` stands between this project and `sqlite3`. It is asked before each statement, and answers
with what SQLite itself would say of a locked file, a full disk, a bad sector or missing
descriptors. Waiting between tries moves the virtual clock, and takes no time.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fmfl_secure.runtime.patience import Patience

MESSAGES = {
    "SQLITE_BUSY": "database is locked",
    "SQLITE_FULL": "database or disk is full",
    "SQLITE_IOERR": "disk I/O error",
    "SQLITE_CANTOPEN": "unable to open database file",
    "SQLITE_READONLY": "attempt to write a readonly database",
    "SQLITE_NOMEM": "out of memory",
}
WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE")
_CONNECT = sqlite3.connect


def failure(name: str) -> sqlite3.OperationalError:
    """What SQLite raises."""
    error = sqlite3.OperationalError(MESSAGES[name])
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    return error


class VirtualClock:
    """Seconds that pass when somebody waits between tries, and otherwise not."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def install(self, patch: pytest.MonkeyPatch) -> None:
        clock = self

        class Virtual(Patience):
            def __init__(self, *_: object) -> None:
                super().__init__(clock=clock)

            def pause_after(self, error: Exception) -> float:
                clock.now += super().pause_after(error)
                return 0.0

        patch.setattr("fmfl_secure.runtime.agents.base.Patience", Virtual)
        patch.setattr("fmfl_secure.runtime.run_driver.Patience", Virtual)
        patch.setattr("fmfl_secure.transports.flower.server.Patience", Virtual)


class Killed(BaseException):
    """The process is no more."""


Ask = Callable[[Path, str], str | None]


@dataclass
class Faults:
    """What is asked before each statement; `told` has what was said, by file and statement."""

    clock: Callable[[], float] = field(default_factory=VirtualClock)
    ask: Ask = lambda _path, _statement: None
    told: list[tuple[str, str, str]] = field(default_factory=list)
    kill_by: tuple[str, int] = ("", 0)  # a file, and the number of its statement that never comes

    def check(self, path: Path, statement: str) -> None:
        if path.name == self.kill_by[0]:
            self.kill_by = self.kill_by[0], self.kill_by[1] - 1
            if self.kill_by[1] == 0:
                raise Killed
        name = self.ask(path, statement)
        if name is not None:
            self.told.append((path.name, statement.split(maxsplit=1)[0], name))
            raise failure(name)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        if isinstance(self.clock, VirtualClock):
            self.clock.install(patch)
        faults = self

        class Connection(sqlite3.Connection):
            path = Path()

            def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:  # type: ignore[override]
                try:
                    faults.check(self.path, statement)
                except sqlite3.OperationalError:
                    if self.in_transaction:  # as a full disk leaves it
                        super().execute("ROLLBACK")
                    raise
                return super().execute(statement, *parameters)

        def connect(database: Any, **named: Any) -> sqlite3.Connection:
            text = str(database).removeprefix("file://").partition("?")[0]
            connection = _CONNECT(database, factory=Connection, **named)
            connection.path = Path(text)
            return connection

        patch.setattr(sqlite3, "connect", connect)

    # What `ask` can be.

    def for_a_while(self, name: str, seconds: float, *, code: str = "SQLITE_BUSY") -> Ask:
        """A file cannot be used, from its first statement on, for so long."""
        until: list[float] = []

        def ask(path: Path, _: str) -> str | None:
            if not _is(path, name):
                return None
            if not until:
                until.append(self.clock() + seconds)
            return code if self.clock() < until[0] else None

        return ask

    @staticmethod
    def once(name: str, statement: str, number: int, code: str = "SQLITE_FULL") -> Ask:
        """The Nth statement of a kind to a file fails."""
        seen = 0

        def ask(path: Path, asked: str) -> str | None:
            nonlocal seen
            if not _is(path, name) or not asked.startswith(statement):
                return None
            seen += 1
            return code if seen == number else None

        return ask

    def at_random(self, seed: int, *, one_in: int = 40, longest_s: float = 90.0) -> Ask:
        """Now and then a file fails once, or for a while; drawn from a seed."""
        drawn = random.Random(seed)
        until: dict[Path, tuple[float, str]] = {}

        def ask(path: Path, statement: str) -> str | None:
            end, code = until.get(path, (0.0, ""))
            if self.clock() < end:
                return code
            if drawn.randrange(one_in):
                return None
            code = drawn.choice(sorted(MESSAGES))
            if code == "SQLITE_READONLY" and not statement.startswith(WRITES):
                return None
            if drawn.random() < 0.3:
                until[path] = self.clock() + drawn.uniform(1, longest_s), code
            return code

        return ask


def _is(path: Path, name: str) -> bool:
    """Whether a path ends so: `ledger.sqlite`, or `site-2/ledger.sqlite`."""
    return path.as_posix().endswith(name)
