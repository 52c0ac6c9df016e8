"""The coordinator's durable state of a run, and the transcript of what each role saw.

`state.sqlite` is what `--resume` goes on from: attempts are recorded before they start, the list
that sites open for before they open, and a release together with the adapter it gives.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fmfl_secure.database import durable_connection
from fmfl_secure.errors import RunError

_SCHEMA = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
    """CREATE TABLE attempts (round INTEGER, attempt INTEGER, plan BLOB NOT NULL, cohort BLOB,
         opening_list BLOB, PRIMARY KEY (round, attempt)) STRICT""",
    "CREATE TABLE rounds (round INTEGER PRIMARY KEY, record TEXT NOT NULL, adapter BLOB) STRICT",
)
# Messages up to this size stand in the transcript in full; of larger ones the digest does.
_FULL_MESSAGE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class OpenedAttempt:
    """An attempt that got as far as sites opening their masks.

    Attributes:
        plan: Signed plan.
        cohort: Signed cohort.
        opening_list: Signed list that the sites opened for.
    """

    plan: bytes
    cohort: bytes
    opening_list: bytes


@dataclass(frozen=True, slots=True)
class BegunAttempt:
    """An attempt as far as it got.

    Attributes:
        plan: Signed plan.
        cohort: Signed cohort, once it was fixed.
    """

    plan: bytes
    cohort: bytes | None


class RunFacts(msgspec.Struct, frozen=True):
    """What is fixed for the whole run, and public.

    Attributes:
        base_model: Name of the base model.
        base_model_digest: Its digest.
        layout_digest: Of the adapter's tensor layout.
        parameters: Length of the update.
        sites: Public key of each site, by name.
        roles: Fingerprint of each other role's, by name.
        initial_adapter: The adapter before the first round, as safetensors.
    """

    base_model: str
    base_model_digest: str
    layout_digest: str
    parameters: int
    sites: dict[str, str]
    roles: dict[str, str]
    initial_adapter: bytes


class RunStore:
    """State of one run in its folder.

    Args:
        folder: The run's folder, which holds `state.sqlite`.

    Raises:
        RunError: There is no run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "state.sqlite"
        if not self._path.is_file():
            raise RunError(f"no run in {folder}", hint="fmfl-secure run makes one.")

    @classmethod
    def create(cls, folder: Path, facts: dict[str, bytes]) -> RunStore:
        """Start a run.

        Raises:
            RunError: The folder holds a run or other files already, or cannot be written.
        """
        # Built aside and renamed, so that a crash leaves either no run or a whole one.
        building = folder / "state.sqlite.new"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(file != building for file in folder.iterdir()):
                raise RunError(
                    f"{folder} is not empty",
                    hint="Choose another --output, or --resume the run that is there.",
                )
            building.unlink(missing_ok=True)
            with closing(sqlite3.connect(building, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous=FULL")
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            building.replace(folder / "state.sqlite")
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"cannot start a run in {folder}: {error}") from error
        return cls(folder)

    def fact(self, name: str) -> bytes | None:
        """A fact about the run, or None."""
        with self._connection() as connection:
            row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def require(self, name: str) -> bytes:
        """A fact that every run has.

        Raises:
            RunError: It is missing.
        """
        value = self.fact(name)
        if value is None:
            raise RunError(f"the run in {self.folder} is damaged: it holds no {name}")
        return value

    def set_fact(self, name: str, value: bytes) -> None:
        """Set a fact; durable when this returns."""
        with self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def set_facts(self, facts: Mapping[str, bytes]) -> None:
        """Set several facts at once, all or none; durable when this returns."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())
            connection.execute("COMMIT")

    def facts(self, prefix: str) -> dict[str, bytes]:
        """All facts whose name starts with a prefix, by the rest of the name."""
        query = "SELECT name, value FROM facts WHERE substr(name, 1, ?) = ?"
        with self._connection() as connection:
            rows = connection.execute(query, (len(prefix), prefix)).fetchall()
        return {name[len(prefix) :]: bytes(value) for name, value in rows}

    def refuse(self, site: str, code: str) -> None:
        """Record that a site takes no further part in the run, and its code."""
        self.set_fact(f"refusal/{site}", code.encode())

    def refusals(self) -> dict[str, str]:
        """Code by site that takes no further part."""
        return {site: code.decode() for site, code in self.facts("refusal/").items()}

    def attempts(self, round_number: int) -> int:
        """Attempts at a round that began."""
        query = "SELECT count(*) FROM attempts WHERE round = ?"
        with self._connection() as connection:
            return int(connection.execute(query, (round_number,)).fetchone()[0])

    def last_attempt(self, round_number: int) -> BegunAttempt | None:
        """The last attempt at a round that began, or None."""
        query = "SELECT plan, cohort FROM attempts WHERE round = ? ORDER BY attempt DESC LIMIT 1"
        with self._connection() as connection:
            row = connection.execute(query, (round_number,)).fetchone()
        return None if row is None else BegunAttempt(*row)

    def opened_attempts(self, round_number: int) -> list[OpenedAttempt]:
        """Attempts at a round whose sites may have opened, the last one first."""
        query = (
            "SELECT plan, cohort, opening_list FROM attempts "
            "WHERE round = ? AND cohort IS NOT NULL AND opening_list IS NOT NULL "
            "ORDER BY attempt DESC"
        )
        with self._connection() as connection:
            return [OpenedAttempt(*row) for row in connection.execute(query, (round_number,))]

    def begin_attempt(self, round_number: int, attempt: int, plan: bytes) -> None:
        """Record an attempt before anyone hears of it."""
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO attempts (round, attempt, plan) VALUES (?, ?, ?)",
                (round_number, attempt, plan),
            )

    def fix_cohort(self, round_number: int, attempt: int, cohort: bytes) -> None:
        """Record an attempt's cohort."""
        self._update_attempt("cohort", round_number, attempt, cohort)

    def list_openings(self, round_number: int, attempt: int, opening_list: bytes) -> None:
        """Record the list that sites will open for, before they do."""
        self._update_attempt("opening_list", round_number, attempt, opening_list)

    def _update_attempt(self, column: str, round_number: int, attempt: int, value: bytes) -> None:
        statements = {
            "cohort": "UPDATE attempts SET cohort = ? WHERE round = ? AND attempt = ?",
            "opening_list": "UPDATE attempts SET opening_list = ? WHERE round = ? AND attempt = ?",
        }
        with self._connection() as connection:
            connection.execute(statements[column], (value, round_number, attempt))

    def finish_round(self, round_number: int, record: bytes, adapter: bytes | None) -> None:
        """Record a round's end and the adapter after it (None where it was lost), at once."""
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO rounds VALUES (?, ?, ?)", (round_number, record.decode(), adapter)
            )

    def rounds(self) -> list[bytes]:
        """Records of finished rounds, in order."""
        with self._connection() as connection:
            rows = connection.execute("SELECT record FROM rounds ORDER BY round").fetchall()
        return [row[0].encode() for row in rows]

    def last_adapter(self) -> bytes | None:
        """The adapter after the last released round, or None before the first."""
        query = "SELECT adapter FROM rounds WHERE adapter IS NOT NULL ORDER BY round DESC LIMIT 1"
        with self._connection() as connection:
            row = connection.execute(query).fetchone()
        return None if row is None else bytes(row[0])

    def _connection(self) -> AbstractContextManager[sqlite3.Connection]:
        return durable_connection(self._path, what="the run's state")


def run_facts(store: RunStore) -> RunFacts:
    """What was fixed when the run started.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        return msgspec.msgpack.decode(store.require("public"), type=RunFacts)
    except msgspec.DecodeError as error:
        raise RunError(f"the run in {store.folder} is damaged: {error}") from error


class Transcript:
    """Appends to `transcript.jsonl`: one line for each message a role saw. No secrets.

    A line is with the operating system when `saw` returns, and on the disk after `sync`: it is a
    record for people, and no rule of the protocol rests on it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def saw(
        self, role: str, kind: str, message: bytes, *, round_number: int, attempt: int, **more: Any
    ) -> None:
        """Note that a role received a message.

        Args:
            role: Who.
            kind: What kind of message.
            message: Its bytes.
            round_number: Round.
            attempt: Attempt.
            more: Further facts, JSON-ready.
        """
        line: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "round": round_number,
            "attempt": attempt,
            "role": role,
            "saw": kind,
            "size_bytes": len(message),
            "sha256": hashlib.sha256(message).hexdigest(),
            **more,
        }
        # A seed opens a self-mask, an approval a custodian's: they are shown by digest only.
        if kind not in {"opening", "approval"} and len(message) <= _FULL_MESSAGE_BYTES:
            line["message"] = base64.b64encode(message).decode()
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def sync(self) -> None:
        """Have all lines on the disk."""
        with self._path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())
