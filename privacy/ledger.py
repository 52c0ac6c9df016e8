"""A population's privacy budget, durable, and shared by every run and process that charges it.

The ledger belongs to a *population*, a name its custodian gave, and not to a file: every data
set that may hold the same people charges the same ledger, and a changed byte buys nothing.

Life of a run, as records (see `privacy.budget` for their effect):

    grant      the custodian permits (epsilon, delta), once
    reserve    the run's worst case, before any data are read; refused if it does not fit
    commit     before *each* training of a round reads data: the charge itself
    refund     at the end, on the coordinator's signed word: rounds that never started come back

A commit stands before the data are read, so there is no moment at which a crash could have used
data that no record shows. A training that was lost after its commit stays charged; training it
again is another commit, against the repeats that were reserved.

Storage is SQLite in WAL mode with full synchronisation. Each change is one `BEGIN IMMEDIATE`
transaction that verifies the whole chain, checks, and appends; two processes cannot both take
the last of a budget.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from privacy.accounting import filter_orders, rdp_cost
from privacy.budget import Budget, Grant, GrantStatus, Reservation
from privacy.chain import Record, Signer, new_record, parse_line, verify_chain
from privacy.datasets import Dataset
from privacy.errors import LedgerDamaged, LedgerError
from privacy.events import Event
from privacy.plan import RELATION

_BUSY_TIMEOUT_S = 60.0
_APPLICATION_ID = 0x464D464C  # "FMFL", in the SQLite header
_ANCHOR = re.compile(r"[1-9][0-9]{0,17}:[0-9a-f]{64}")
_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")

# Primary SQLite codes that speak of the surroundings and not of what the file holds.
_NO_ACCESS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}

# The triggers keep honest tools honest; against others there is the chain.
_SCHEMA = (
    "CREATE TABLE records (sequence INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT",
    """CREATE TRIGGER records_are_not_edited BEFORE UPDATE ON records
         BEGIN SELECT RAISE(ABORT, 'ledger records are append-only'); END""",
    """CREATE TRIGGER records_are_not_deleted BEFORE DELETE ON records
         BEGIN SELECT RAISE(ABORT, 'ledger records are append-only'); END""",
)


class Ledger:
    """One population's ledger.

    Args:
        path: The SQLite file.
        signer: The site's identity; None opens for reading only.

    Raises:
        LedgerError: There is no ledger at the path.
        LedgerDamaged: It is not a ledger, or does not verify.
    """

    def __init__(self, path: Path, *, signer: Signer | None = None) -> None:
        if not path.is_file():
            raise LedgerError(f"no ledger at {path}", hint="Create one with a first grant.")
        self._path = path
        self._signer = signer
        self.budget()  # refuse a damaged ledger at once

    @classmethod
    def create(
        cls, path: Path, *, population: str, unit: str, signer: Signer, public_key: bytes
    ) -> Ledger:
        """Start a ledger for a population; its unit and relation are fixed from now on.

        Args:
            path: Where; must not exist.
            population: The custodian's name for the people concerned.
            unit: `record` or the column that identifies units.
            signer: The site's identity.
            public_key: Its 32-byte Ed25519 public key.

        Raises:
            LedgerError: Something is at the path already.
        """
        if path.exists():
            raise LedgerError(f"{path} exists already; a ledger is never replaced")
        path.parent.mkdir(parents=True, exist_ok=True)
        body = {
            "population": population,
            "unit": unit,
            "relation": RELATION,
            "public_key": public_key.hex(),
        }
        record = new_record(previous=None, kind="open", body=body, signer=signer)
        try:
            Budget.replay(verify_chain([record.to_line()], public_key))
        except (LedgerDamaged, ValueError) as error:
            raise LedgerError(f"the signer and the public key do not agree: {error}") from error
        try:
            with _connection(path, mode="rwc") as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
                for statement in _SCHEMA:
                    connection.execute(statement)
                _insert(connection, record)
                connection.execute("COMMIT")
        except LedgerDamaged as error:  # another process was first
            raise LedgerError(f"cannot create a ledger at {path}: {error}") from error
        return cls(path, signer=signer)

    def grant(self, *, epsilon: float, delta: float, purpose: str = "") -> Grant:
        """Permit (epsilon, delta) to this population, on top of earlier grants.

        Raises:
            PlanError: epsilon or delta is out of range.
        """
        orders = filter_orders(epsilon, delta)
        with self._transaction() as (budget, append):
            number = len(budget.grants) + 1
            append(
                "grant",
                {
                    "grant": number,
                    "epsilon": float(epsilon).hex(),
                    "delta": float(delta).hex(),
                    "orders": list(orders),
                    "purpose": purpose,
                },
            )
        return self.budget().grants[number - 1]

    def reserve(
        self,
        *,
        run: str,
        event: Event,
        rounds: int,
        plan: str,
        purpose: str = "",
        dataset: Dataset | None = None,
    ) -> Reservation:
        """Hold the worst case of a run, before any data are read.

        Asking again for the same run with the same terms returns what is held, so a resumed run
        pays once.

        Args:
            run: Run id, unique over the ledger's life.
            event: What one round does.
            rounds: Trainings to hold, repeats included.
            plan: Digest of the plan that the run follows.
            purpose: For whoever reads the ledger.
            dataset: The data set that the run trains on, with its cap; None counts against
                every data set that has one.

        Raises:
            BudgetExhausted: No grant covers it; says what would fit.
            PolicyRefusal: The data set's cap does not cover it.
            LedgerError: The run holds a reservation on other terms.
        """
        if not isinstance(rounds, int) or rounds < 1:
            raise LedgerError(f"rounds is {rounds}, expected a whole number, at least 1")
        with self._transaction() as (budget, append):
            held = budget.reservations.get(run)
            if held is not None:
                if (held.event, held.rounds, held.plan) != (event, rounds, plan) or not held.open:
                    raise LedgerError(f"run {run} has reserved before, on other terms or is closed")
                if held.dataset and held.dataset.name != (dataset and dataset.name):
                    raise LedgerError(f"run {run} has reserved before, for another data set")
                budget.require_still_capped(held, dataset)
                return held
            number = budget.require_affordable(event, rounds, dataset=dataset)
            cost = rdp_cost(event, budget.grants[number - 1].orders)
            append(
                "reserve",
                {
                    "run": run,
                    "grant": number,
                    "event": event.canonical(),
                    "rounds": rounds,
                    "cost": {str(order): value for order, value in cost.items()},
                    "plan": plan,
                    "purpose": purpose,
                    **({} if dataset is None else {"dataset": dataset.canonical()}),
                },
            )
        return self.budget().reservations[run]

    def commit(self, *, run: str, round: int) -> None:  # noqa: A002
        """Charge one training of a round. Durable when this returns; only then read data.

        Raises:
            LedgerError: No open reservation, or nothing of it is left.
        """
        with self._transaction() as (budget, append):
            budget.require_commit(run)
            append("commit", {"run": run, "round": round})

    def refund(self, *, run: str, evidence: str) -> int:
        """Close a run's reservation and give back the rounds that never started.

        Args:
            run: Run id.
            evidence: Digest of the coordinator's signed end of the run.

        Returns:
            How many rounds came back.

        Raises:
            LedgerError: No open reservation.
        """
        with self._transaction() as (budget, append):
            rounds = budget.require_open(run).remaining_rounds
            append("refund", {"run": run, "rounds": rounds, "evidence": evidence})
        return rounds

    def record_non_private(self, *, run: str, reason: str) -> None:
        """Record that data not declared public were used without privacy: ends every grant."""
        with self._transaction() as (_, append):
            append("non-private", {"run": run, "reason": reason})

    def budget(self) -> Budget:
        """The verified state.

        Raises:
            LedgerDamaged: The chain, a signature or the arithmetic does not verify.
        """
        return Budget.replay(self.records())

    def status(self) -> list[GrantStatus]:
        """Every grant with what has become of it."""
        return self.budget().status()

    def records(self) -> list[Record]:
        """All records, verified.

        Raises:
            LedgerDamaged: One does not verify.
        """
        with _connection(self._path) as connection:
            return _read(connection)

    def head(self) -> tuple[int, str]:
        """Sequence and digest of the last record: what others keep as an anchor."""
        last = self.records()[-1]
        return last.sequence, last.digest

    def require_anchor(self, anchor: str) -> None:
        """Check that a head seen earlier is still in the chain.

        Args:
            anchor: `SEQUENCE:DIGEST`, as `head` gave it and someone else kept it.

        Raises:
            LedgerError: The anchor is malformed.
            LedgerDamaged: The ledger was truncated, rolled back or forked since.
        """
        if not _ANCHOR.fullmatch(anchor):
            raise LedgerError(f"{anchor[:90]!r} is not an anchor, expected SEQUENCE:DIGEST")
        sequence, _, digest = anchor.partition(":")
        number = int(sequence)
        records = self.records()
        if number > len(records):
            raise LedgerDamaged(
                f"the ledger ends at record {len(records)}, the anchor is at {number}: "
                "it was truncated or rolled back"
            )
        if records[number - 1].digest != digest:
            raise LedgerDamaged(f"record {number} is not the one the anchor names: it was forked")

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Budget, _Append]]:
        if self._signer is None:
            raise LedgerError("this ledger is open for reading only")
        with _connection(self._path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                records = _read(connection)
                append = _Append(connection, records[-1], self._signer)
                yield Budget.replay(records), append
                if append.record is not None:
                    _require_readable(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


class _Append:
    """Appends one record inside a transaction."""

    def __init__(self, connection: sqlite3.Connection, last: Record, signer: Signer) -> None:
        self._connection, self._last, self._signer = connection, last, signer
        self.record: Record | None = None

    def __call__(self, kind: str, body: dict[str, object]) -> None:
        self.record = new_record(previous=self._last, kind=kind, body=body, signer=self._signer)
        _insert(self._connection, self.record)


@contextmanager
def _connection(path: Path, *, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    # Mode rw never creates: a ledger that was deleted is missed, and not begun anew, empty.
    try:
        with closing(
            sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
            )
        ) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
    except sqlite3.Error as error:
        # The low byte of an extended code is the primary one.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ACCESS:
            raise LedgerError(
                f"cannot use the ledger at {path}: {error}",
                hint="Is it there, writable, on a disk with room, and not held by another process?",
            ) from error
        raise LedgerDamaged(f"{path} is not a readable ledger: {error}") from error
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema, not in UTF-8
        raise LedgerDamaged(f"{path} is not a readable ledger: {error}") from error


def _require_readable(connection: sqlite3.Connection) -> None:
    """What was just appended must verify as it will when it is read back, signature included."""
    try:
        Budget.replay(_read(connection))
    except LedgerDamaged as error:
        raise LedgerError(
            f"the ledger is unchanged: what was to be added would not verify: {error}",
            hint="Check that the signer is the identity that the ledger was created with.",
        ) from error


def _insert(connection: sqlite3.Connection, record: Record) -> None:
    connection.execute("INSERT INTO records VALUES (?, ?)", (record.sequence, record.to_line()))


def _read(connection: sqlite3.Connection) -> list[Record]:
    rows = connection.execute("SELECT line FROM records ORDER BY sequence").fetchall()
    lines = [row[0] for row in rows]
    if not lines:
        raise LedgerDamaged("the ledger holds no records")
    public_key = parse_line(lines[0]).body.get("public_key")
    if not isinstance(public_key, str) or not _PUBLIC_KEY.fullmatch(public_key):
        raise LedgerDamaged("the first record names no public key")
    return list(verify_chain(lines, bytes.fromhex(public_key)))
