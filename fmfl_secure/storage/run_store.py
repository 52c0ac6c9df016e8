"""The coordinator's durable state of a run.

The state is what `--resume` goes on from: attempts are recorded before they start, the list that
sites open for before they open, and a release together with the adapter it gives. It is in the
run's folder, in `state.sqlite`, or in a schema of a PostgreSQL database that `state.url` names.

`parties.coordinator` writes here, in the order of a round: `begin_attempt`, `fix_cohort`,
`list_openings`, `finish_round`. Reports, exports and questions open a run's folder with it and
only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fmfl_secure.errors import RunDamaged, RunError, os_failure
from fmfl_secure.storage.errors import storage_errors
from fmfl_secure.storage.files import write_files
from fmfl_secure.storage.run_state import (
    PUBLIC,
    RunFacts,
    RunState,
    changed_facts,
    decode_public,
    decode_state,
    encode_public,
    encode_state,
)
from privacy.storage import (
    Store,
    Transaction,
    is_url,
    open_store,
    split_schema,
    with_schema,
    without_password,
)

_FILE: Final = "state.sqlite"
_POINTER: Final = "state.url"
# Made also where a run goes on: one that 0.1.0 began has none.
_VERDICTS: Final = {
    "sqlite": """CREATE TABLE IF NOT EXISTS verdicts (round INTEGER, attempt INTEGER, site TEXT,
                   verdict BLOB NOT NULL, PRIMARY KEY (round, attempt, site)) STRICT""",
    "postgresql": """CREATE TABLE IF NOT EXISTS verdicts (round BIGINT, attempt BIGINT, site TEXT,
                       verdict BYTEA NOT NULL, PRIMARY KEY (round, attempt, site))""",
}
_TABLES: Final = {
    "sqlite": (
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
        """CREATE TABLE attempts (round INTEGER, attempt INTEGER, plan BLOB NOT NULL, cohort BLOB,
             opening_list BLOB, PRIMARY KEY (round, attempt)) STRICT""",
        """CREATE TABLE rounds (round INTEGER PRIMARY KEY, record TEXT NOT NULL, adapter BLOB)
             STRICT""",
        _VERDICTS["sqlite"],
    ),
    "postgresql": (
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value BYTEA NOT NULL)",
        """CREATE TABLE attempts (round BIGINT, attempt BIGINT, plan BYTEA NOT NULL, cohort BYTEA,
             opening_list BYTEA, PRIMARY KEY (round, attempt))""",
        "CREATE TABLE rounds (round BIGINT PRIMARY KEY, record TEXT NOT NULL, adapter BYTEA)",
        _VERDICTS["postgresql"],
    ),
}
_SET_FACT: Final = (
    "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


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
class JudgedAttempt:
    """An attempt of which sites said what became of its release.

    Attributes:
        round: Its round.
        attempt: Its number.
        plan: Signed plan.
        cohort: Signed cohort.
        verdicts: What sites signed, by site.
    """

    round: int
    attempt: int
    plan: bytes
    cohort: bytes
    verdicts: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class BegunAttempt:
    """An attempt as far as it got.

    Attributes:
        plan: Signed plan.
        cohort: Signed cohort, once it was fixed.
        opening_list: Signed list that sites open for, once it was confirmed.
    """

    plan: bytes
    cohort: bytes | None
    opening_list: bytes | None


class RunStore:
    """State of one run. Durable when a call returns.

    Args:
        folder: The run's folder.
        database: Where the run's state is in a database, a URL that reaches it, from the server's
            settings: it may hold the password that the folder does not.
        keep_open: Whether its connection is kept until `close`: for the one process that serves.

    Raises:
        RunError: There is no run, or it cannot be reached.
    """

    def __init__(
        self, folder: Path, *, database: str | None = None, keep_open: bool = False
    ) -> None:
        self.folder = folder
        if not holds_run(folder):
            raise RunError(f"no run in {folder}", hint="fmfl-secure run makes one.")
        with storage_errors(f"cannot open the run in {folder}"):
            self._tables = _state_of(folder, database, keep_open=keep_open)

    @classmethod
    def create(
        cls,
        folder: Path,
        state: RunState,
        public: RunFacts,
        *,
        database: str | None = None,
        keep_open: bool = False,
    ) -> RunStore:
        """Start a run. A crash leaves either no run or a whole one.

        Args:
            folder: The run's folder.
            state: Where it starts.
            public: What is fixed for it.
            database: PostgreSQL URL whose schema begins that of the run; None for the folder.
            keep_open: As for `RunStore`.

        Raises:
            RunError: The folder holds a run or other files already, or cannot be written.
        """
        failure = f"cannot start a run in {folder}"
        try:
            _require_empty(folder)
            with storage_errors(failure):
                if database is None:
                    tables, pointer = open_store(folder / _FILE), None
                else:
                    pointer = _of_run(database, state.run)
                    tables = open_store(pointer)
                with tables.create(_TABLES[tables.dialect]) as transaction:
                    for fact in encode_state(state).items():
                        transaction.execute(_SET_FACT, *fact)
                    transaction.execute(_SET_FACT, PUBLIC, encode_public(public))
            if pointer is not None:
                write_files(folder, {_POINTER: without_password(pointer).encode()})
        except OSError as error:
            raise os_failure(RunError, failure, error) from error
        return cls(folder, database=database, keep_open=keep_open)

    def close(self) -> None:
        """Release a connection that was kept."""
        self._tables.close()

    def kept_open(self) -> AbstractContextManager[None]:
        """Its connection stays open inside, for several calls."""
        return self._tables.kept_open()

    def bring_up_to_date(self) -> None:
        """Make what a run lacks that an earlier version began, before it goes on."""
        with self._write() as transaction:
            transaction.execute(_VERDICTS[self._tables.dialect])

    @property
    def state(self) -> RunState:
        """Where the run stands.

        Raises:
            RunDamaged: Its state is damaged.
            Unavailable: It cannot be read now.
        """
        with self._read() as transaction:
            return self._state(transaction)

    def public(self) -> RunFacts:
        """Reads the facts fixed when the run started.

        Raises:
            RunDamaged: It is missing or damaged.
            Unavailable: It cannot be read now.
        """
        with self._read() as transaction:
            rows = transaction.execute("SELECT value FROM facts WHERE name = ?", PUBLIC)
        if not rows:
            raise self._damaged("it holds no public facts")
        try:
            return decode_public(bytes(rows[0][0]))
        except RunError as error:
            raise self._damaged(error) from error

    def move(self, transition: Callable[[RunState], RunState]) -> RunState:
        """Go from the state that is kept to the one after it; durable when this returns.

        Args:
            transition: What happened: the state after it, from the one before.

        Returns:
            The state after it.

        Raises:
            RunDamaged: The state is damaged.
            Unavailable: It cannot be written now; it is as before.
        """
        with self._write() as transaction:
            before = self._state(transaction)
            after = transition(before)
            if changed_facts(before, after):
                after = msgspec.structs.replace(after, changed=_now())
            for fact in changed_facts(before, after).items():
                transaction.execute(_SET_FACT, *fact)
        return after

    def _state(self, transaction: Transaction) -> RunState:
        # Public facts hold an adapter, which is too much to read at every step.
        query = "SELECT name, value FROM facts WHERE name <> ?"
        facts = {name: bytes(value) for name, value in transaction.execute(query, PUBLIC)}
        try:
            return decode_state(facts)
        except RunError as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> RunDamaged:
        return RunDamaged(f"the run in {self.folder} is damaged: {why}")

    def attempts(self, round_number: int) -> int:
        """Attempts at a round that began."""
        query = "SELECT count(*) FROM attempts WHERE round = ?"
        with self._read() as transaction:
            return int(transaction.execute(query, round_number)[0][0])

    def all_attempts(self) -> int:
        """Attempts at all rounds that began."""
        with self._read() as transaction:
            return int(transaction.execute("SELECT count(*) FROM attempts")[0][0])

    def last_attempt(self, round_number: int) -> BegunAttempt | None:
        """The last attempt at a round that began, or None."""
        query = (
            "SELECT plan, cohort, opening_list FROM attempts "
            "WHERE round = ? ORDER BY attempt DESC LIMIT 1"
        )
        with self._read() as transaction:
            rows = transaction.execute(query, round_number)
        return BegunAttempt(*rows[0]) if rows else None

    def opened_attempts(self, round_number: int) -> list[OpenedAttempt]:
        """Attempts at a round whose sites may have opened, the last one first."""
        query = (
            "SELECT plan, cohort, opening_list FROM attempts "
            "WHERE round = ? AND cohort IS NOT NULL AND opening_list IS NOT NULL "
            "ORDER BY attempt DESC"
        )
        with self._read() as transaction:
            return [OpenedAttempt(*row) for row in transaction.execute(query, round_number)]

    def begin_attempt(self, round_number: int, attempt: int, plan: bytes) -> None:
        """Record an attempt before anyone hears of it."""
        statement = "INSERT INTO attempts (round, attempt, plan) VALUES (?, ?, ?)"
        with self._write() as transaction:
            transaction.execute(statement, round_number, attempt, plan)

    def fix_cohort(self, round_number: int, attempt: int, cohort: bytes) -> None:
        """Records an attempt's cohort, durably."""
        statement = "UPDATE attempts SET cohort = ? WHERE round = ? AND attempt = ?"
        with self._write() as transaction:
            transaction.execute(statement, cohort, round_number, attempt)

    def list_openings(self, round_number: int, attempt: int, opening_list: bytes) -> None:
        """Record the list that sites will open for, before they do."""
        statement = "UPDATE attempts SET opening_list = ? WHERE round = ? AND attempt = ?"
        with self._write() as transaction:
            transaction.execute(statement, opening_list, round_number, attempt)

    def finish_round(
        self,
        round_number: int,
        record: bytes,
        adapter: bytes | None,
        *,
        attempt: int = 0,
        verdicts: Mapping[str, bytes] | None = None,
    ) -> None:
        """Record a round's end, all at once.

        Args:
            round_number: The round.
            record: Its record.
            adapter: The adapter after it; None where it was lost.
            attempt: The attempt that was released.
            verdicts: What sites signed of that, by site.
        """
        statement = "INSERT INTO rounds VALUES (?, ?, ?)"
        with self._write() as transaction:
            _keep_verdicts(transaction, round_number, attempt, verdicts or {})
            transaction.execute(statement, round_number, record.decode(), adapter)

    def keep_verdicts(self, round_number: int, attempt: int, verdicts: Mapping[str, bytes]) -> None:
        """Record what sites signed of an attempt that was not applied."""
        with self._write() as transaction:
            _keep_verdicts(transaction, round_number, attempt, verdicts)

    def verdicts_since(self, round_number: int, attempt: int) -> list[JudgedAttempt]:
        """Attempts from this one on of which sites said something, in order."""
        query = (
            "SELECT v.round, v.attempt, a.plan, a.cohort, v.site, v.verdict FROM verdicts v "
            "JOIN attempts a ON a.round = v.round AND a.attempt = v.attempt "
            "WHERE v.round > ? OR (v.round = ? AND v.attempt >= ?) "
            "ORDER BY v.round, v.attempt, v.site"
        )
        judged: dict[tuple[int, int], JudgedAttempt] = {}
        with self._read() as transaction:
            rows = transaction.execute(query, round_number, round_number, attempt)
        for number, place, plan, cohort, site, verdict in rows:
            kept = judged.setdefault(
                (number, place), JudgedAttempt(number, place, bytes(plan), bytes(cohort), {})
            )
            kept.verdicts[site] = bytes(verdict)
        return list(judged.values())

    def rounds(self) -> list[bytes]:
        """Records of finished rounds, in order."""
        with self._read() as transaction:
            rows = transaction.execute("SELECT record FROM rounds ORDER BY round")
        return [row[0].encode() for row in rows]

    def last_adapter(self) -> bytes | None:
        """The adapter after the last released round, or None before the first."""
        query = "SELECT adapter FROM rounds WHERE adapter IS NOT NULL ORDER BY round DESC LIMIT 1"
        with self._read() as transaction:
            rows = transaction.execute(query)
        return bytes(rows[0][0]) if rows else None

    def adapter_after(self, round_number: int) -> bytes:
        """The adapter after a round, or before the first for 0.

        Raises:
            RunError: The round has none.
        """
        if round_number == 0:
            return self.public().initial_adapter
        query = "SELECT adapter FROM rounds WHERE round = ? AND adapter IS NOT NULL"
        with self._read() as transaction:
            rows = transaction.execute(query, round_number)
        if not rows:
            raise RunError(f"round {round_number} has no adapter in {self.folder}")
        return bytes(rows[0][0])

    def rounds_with_adapter(self) -> tuple[int, ...]:
        """Rounds after which there is an adapter, in order; 0 is before the first."""
        query = "SELECT round FROM rounds WHERE adapter IS NOT NULL ORDER BY round"
        with self._read() as transaction:
            return (0, *(int(row[0]) for row in transaction.execute(query)))

    def evaluated(self, round_number: int, metrics: dict[str, float]) -> None:
        """Keep the metrics of a round that ended, or of before the first for 0.

        Nothing else of its record changes: what the coordinator signs of a round has no metrics.
        """
        if round_number == 0:
            self.move(lambda state: state.measured(metrics))
            return
        query = "SELECT record FROM rounds WHERE round = ?"
        with self._write() as transaction:
            ((record,),) = transaction.execute(query, round_number)
            after = msgspec.json.decode(record) | {"metrics": metrics}
            statement = "UPDATE rounds SET record = ? WHERE round = ?"
            transaction.execute(statement, msgspec.json.encode(after).decode(), round_number)

    @contextmanager
    def _read(self) -> Iterator[Transaction]:
        with storage_errors("cannot read the run's state"), self._tables.read() as transaction:
            yield transaction

    @contextmanager
    def _write(self) -> Iterator[Transaction]:
        with storage_errors("cannot write the run's state"), self._tables.write() as transaction:
            yield transaction


def _keep_verdicts(
    transaction: Transaction, round_number: int, attempt: int, verdicts: Mapping[str, bytes]
) -> None:
    statement = "INSERT INTO verdicts VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
    for site, verdict in verdicts.items():
        transaction.execute(statement, round_number, attempt, site, verdict)


def holds_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / _FILE).is_file() or (folder / _POINTER).is_file()


def require_folder(folder: Path, *, resume: bool) -> None:
    """Require that a folder holds a run if one is to be resumed, and none if one is to be started.

    Raises:
        RunError: It is the other way round.
    """
    if resume != holds_run(folder):
        raise RunError(
            f"there is no run in {folder}" if resume else f"{folder} holds a run",
            hint="Choose another --output; a run that is there goes on with run --resume.",
        )


def _state_of(folder: Path, database: str | None, *, keep_open: bool) -> Store:
    if (folder / _FILE).is_file():
        return open_store(folder / _FILE, keep_open=keep_open)
    try:
        kept = (folder / _POINTER).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise os_failure(RunError, f"cannot read {folder / _POINTER}", error) from error
    except UnicodeDecodeError as error:
        raise RunDamaged(f"cannot read {folder / _POINTER}: {error}") from error
    if not is_url(kept):
        raise RunDamaged(f"{folder / _POINTER} names no PostgreSQL database")
    url = kept if database is None else with_schema(database, split_schema(kept)[1])
    return open_store(url, keep_open=keep_open)


def _of_run(database: str, run: str) -> str:
    return with_schema(database, f"{split_schema(database)[1]}_{run}")


def _require_empty(folder: Path) -> None:
    """Make a folder that holds nothing, but for what a start that was cut off left there."""
    folder.mkdir(parents=True, exist_ok=True)
    rest = list(folder.glob(f"{_FILE}.*.new*"))
    if any(file not in rest for file in folder.iterdir()):
        raise RunError(
            f"{folder} is not empty",
            hint="Choose another --output; a run that is there goes on with run --resume.",
        )
    for file in rest:
        file.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
