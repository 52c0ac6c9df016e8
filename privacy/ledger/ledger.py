"""A population's privacy budget, durable, and shared by every run and process that charges it.

The ledger belongs to a *population*, a name its custodian gave, and not to a file: every data
set that may hold the same people charges the same ledger, and a changed byte buys nothing.

Life of a run, as records (see `privacy.ledger.budget` for their effect):

    grant      the custodian permits (epsilon, delta), once
    reserve    the run's worst case, before any data are read; refused if it does not fit
    commit     before *each* training of a round reads data: the charge itself
    refund     at the end, on the coordinator's signed word: rounds that never started come back

A commit stands before the data are read, so there is no moment at which a crash could have used
data that no record shows. A training that was lost after its commit stays charged; training it
again is another commit, against the repeats that were reserved.

Storage is SQLite, or PostgreSQL by URL (`privacy.storage`). Each change is one transaction, with
no other writer beside it, that verifies the whole chain, checks, and appends; two processes
cannot both take the last of a budget.

Against a ledger that was rolled back there are anchors (`privacy.ledger.anchors`): heads that
others kept. A ledger that lacks one of them is locked: nothing is reserved, committed or refunded
until the officer has recorded what to charge for the history that was lost (`recover`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from privacy.accounting.events import Event, NonPrivate
from privacy.accounting.rdp import filter_orders
from privacy.errors import LedgerDamaged, LedgerError, PlanError
from privacy.ledger.anchors import Anchor
from privacy.ledger.budget import Budget
from privacy.ledger.chain import Record, Signer, new_record, verify_chain, verify_lines
from privacy.ledger.datasets import Dataset
from privacy.ledger.entries import Charge, Grant, GrantStatus, Recovery, Reservation
from privacy.ledger.tables import TABLES, insert, ledger_errors, open_ledger_store, read_lines
from privacy.limits import check_epsilon, check_population_size
from privacy.mechanism.plan import RELATION
from privacy.names import plain
from privacy.storage import Transaction


class Ledger:
    """One population's ledger.

    Args:
        location: The SQLite file, or the URL of a PostgreSQL database.
        signer: The site's identity; None opens for reading only.

    Raises:
        LedgerError: There is no ledger there.
        LedgerUnavailable: It cannot be reached.
        LedgerDamaged: It is not a ledger, or does not verify.
    """

    def __init__(self, location: Path | str, *, signer: Signer | None = None) -> None:
        self._store = open_ledger_store(location)
        self._signer = signer
        self._heads: set[str] = set()  # that must be in it for anything to be charged
        # Of the last reading: lines, what they say, and the state they lead to. A ledger is read
        # whole for each charge; what is there byte for byte as before is not verified again.
        self._lines: list[str] = []
        self._records: list[Record] = []
        self._state: Budget | None = None
        self.budget()  # refuse a damaged ledger at once

    def __repr__(self) -> str:
        return f"Ledger({self.name!r})"

    @property
    def name(self) -> str:
        """What to call it in messages: its path, or its URL without secrets."""
        return self._store.name

    @staticmethod
    def exists(location: Path | str) -> bool:
        """Whether there is a ledger, sound or not.

        Raises:
            LedgerUnavailable: It cannot be known.
        """
        store = open_ledger_store(location)
        with ledger_errors(store):
            return store.exists()

    @classmethod
    def create(
        cls,
        location: Path | str,
        *,
        population: str,
        unit: str,
        signer: Signer,
        public_key: bytes,
    ) -> Ledger:
        """Start a ledger for a population; its unit and relation are fixed from now on.

        Args:
            location: Where; nothing may be there.
            population: The custodian's name for the people concerned.
            unit: `record` or the column that identifies units.
            signer: The site's identity.
            public_key: Its 32-byte Ed25519 public key.

        Raises:
            LedgerError: Something is there already, or the name holds what cannot be seen.
            LedgerUnavailable: It cannot be written, or would not survive a crash.
        """
        if population != plain(population) or not population:
            raise LedgerError(
                f"the population's name is {population!r}: empty, or with white space or other "
                "characters that nobody sees",
                hint="Two populations whose names look alike are two ledgers for the same people.",
            )
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
        store = open_ledger_store(location)
        with ledger_errors(store), store.create(TABLES[store.dialect]) as transaction:
            insert(transaction, record)
        return cls(location, signer=signer)

    def grant(
        self,
        *,
        epsilon: float,
        delta: float,
        purpose: str = "",
        insider_epsilon: float | None = None,
        population_size: int | None = None,
        delta_reason: str = "",
    ) -> Grant:
        """Permit (epsilon, delta) to this population, on top of earlier grants.

        The deltas of all grants add up, and their sum is at most 1 / (10 n), n being the largest
        population size that was declared in this ledger (`privacy.ledger.standing`).

        Args:
            epsilon: Against everyone who sees what is released.
            delta: At this delta.
            purpose: For whoever reads the ledger.
            insider_epsilon: Permits shares of distributed noise, and so much against all other
                sites together; at least `epsilon`.
            population_size: Declared, rounded number of units of the population. None where an
                earlier grant or a run has declared it.
            delta_reason: Why the sum of deltas may be above 1 / (10 n), in the custodian's words,
                for whoever reads the ledger or a report. It is below 1 all the same.

        Raises:
            PlanError: epsilon, delta, insider_epsilon or population_size is out of range; no
                population size was ever declared; or the sum of deltas is too large.
        """
        orders = filter_orders(epsilon, delta)
        insider_orders: tuple[int, ...] = ()
        if population_size is not None:
            check_population_size(population_size)
        if insider_epsilon is not None:
            check_epsilon(insider_epsilon, "insider_epsilon")
            if insider_epsilon < epsilon:
                raise PlanError(
                    f"insider_epsilon is {insider_epsilon}, expected at least epsilon {epsilon}: "
                    "other sites see all that everyone sees"
                )
            insider_orders = filter_orders(insider_epsilon, delta)
        with self._transaction() as (budget, append):
            grant = Grant(
                number=len(budget.grants) + 1,
                epsilon=epsilon,
                delta=delta,
                orders=orders,
                purpose=purpose,
                at="",
                insider_epsilon=insider_epsilon,
                insider_orders=insider_orders,
                population_size=population_size,
                delta_reason=delta_reason.strip(),
            )
            budget.require_grantable(grant)
            append("grant", grant.body())
        return self.budget().grants[grant.number - 1]

    def reserve(
        self,
        *,
        run: str,
        event: Event,
        rounds: int,
        plan: str,
        purpose: str = "",
        dataset: Dataset | None = None,
        population_size: int | None = None,
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
            population_size: Declared number of units that the run is planned for. One that is
                larger than any declared so far counts from now on, for this run and all others.

        Raises:
            BudgetExhausted: No grant covers it, or none that stands; says what would fit.
            PolicyRefusal: The data set's cap does not cover it.
            PlanError: population_size is out of range, or too large for the delta of the cap.
            LedgerError: The run holds a reservation on other terms.
            LedgerLocked: It lacks a head that somebody kept.
        """
        if not isinstance(rounds, int) or rounds < 1:
            raise LedgerError(f"rounds is {rounds}, expected a whole number, at least 1")
        if population_size is not None:
            check_population_size(population_size)
        with self._transaction(locks=True) as (budget, append):
            held = budget.reservations.get(run)
            if held is not None:
                if (held.event, held.rounds, held.plan) != (event, rounds, plan) or not held.open:
                    raise LedgerError(f"run {run} has reserved before, on other terms or is closed")
                if held.dataset and not held.dataset.is_called(dataset.name if dataset else ""):
                    raise LedgerError(f"run {run} has reserved before, for another data set")
                budget.require_still_capped(held, dataset)
                budget.require_standing(held, population_size)
                return held
            number = budget.require_affordable(
                event, rounds, dataset=dataset, population_size=population_size
            )
            charge = Charge.of(event, rounds, budget.grants[number - 1])
            named = {} if dataset is None else {"dataset": dataset.canonical()}
            sized = {} if population_size is None else {"population_size": population_size}
            terms = {"run": run, "plan": plan, "purpose": purpose, **named, **sized}
            append("reserve", {**terms, **charge.body()})
        return self.budget().reservations[run]

    def commit(self, *, run: str, round: int) -> None:  # noqa: A002
        """Charge one training of a round. Durable when this returns; only then read data.

        Raises:
            LedgerError: No open reservation, or nothing of it is left.
            LedgerLocked: It lacks a head that somebody kept.
        """
        with self._transaction(locks=True) as (budget, append):
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
            LedgerLocked: It lacks a head that somebody kept.
        """
        with self._transaction(locks=True) as (budget, append):
            rounds = budget.require_open(run).remaining_rounds
            append("refund", {"run": run, "rounds": rounds, "evidence": evidence})
        return rounds

    def record_non_private(self, *, run: str, reason: str) -> None:
        """Record that data not declared public were used without privacy: ends every grant."""
        with self._transaction() as (_, append):
            append("non-private", {"run": run, "reason": reason})

    def recover(
        self,
        heads: Iterable[str],
        *,
        reason: str,
        losses: Sequence[tuple[int, Event, int]] | None,
    ) -> Recovery:
        """Record what to charge for a history that was lost, and settle the heads kept of it.

        The officer's decision, like a grant. In doubt, charge more: what was trained and is not
        charged here will be forgotten.

        Args:
            heads: Heads, `SEQUENCE:DIGEST`, that others kept and that this ledger lacks.
            reason: What happened, in the officer's words.
            losses: Grant, event and rounds of what was lost, worst case. None charges everything:
                no grant made so far affords anything any more.

        Raises:
            LedgerError: A head is in the ledger, so nothing was lost there, or no reason is given.
        """
        lost = sorted(set(heads))
        if not (lost and reason.strip()):
            raise LedgerError("a recovery needs the heads that were lost, and a reason")
        with self._transaction() as (budget, append):
            for head in lost:
                if budget.holds(head):
                    raise LedgerError(f"{head} is in the ledger: nothing was lost there")
            if losses is None:
                unknown = NonPrivate("lost, and not known")
                losses = [(grant.number, unknown, 1) for grant in budget.grants]
            charges = []
            for number, event, rounds in losses:
                if not 1 <= number <= len(budget.grants):
                    raise LedgerError(f"grant {number} does not exist")
                charges.append(Charge.of(event, rounds, budget.grants[number - 1]).body())
            append("recover", {"heads": lost, "charges": charges, "reason": reason})
        return self.budget().recoveries[-1]

    def budget(self) -> Budget:
        """The verified state.

        Raises:
            LedgerDamaged: The chain, a signature or the arithmetic does not verify.
        """
        return self.state()[0]

    def state(self) -> tuple[Budget, Record]:
        """The verified state, and the last record that led to it.

        Raises:
            LedgerDamaged: The chain, a signature or the arithmetic does not verify.
        """
        records = self.records()
        return self._add_up(records), records[-1]

    def _verified(self, transaction: Transaction) -> list[Record]:
        lines, known = read_lines(transaction), len(self._lines)
        if known and lines[:known] == self._lines:
            key = bytes.fromhex(self._records[0].body["public_key"])
            more = verify_chain(lines[known:], key, after=self._records[-1])
            records = [*self._records, *more]
        else:
            records = verify_lines(lines)
        self._lines, self._records = lines, records
        return records

    def _add_up(self, records: Sequence[Record]) -> Budget:
        """The state that verified records lead to."""
        state = self._state
        if state is not None and state.follows(records):
            state = state.continued(records[state.sequence :])
        else:
            state = Budget.replay(records)
        self._state = state
        return state

    def status(self) -> list[GrantStatus]:
        """Every grant with what has become of it."""
        return self.budget().status()

    def records(self) -> list[Record]:
        """All records, verified.

        Raises:
            LedgerUnavailable: They cannot be reached.
            LedgerDamaged: One does not verify.
        """
        with ledger_errors(self._store), self._store.read() as transaction:
            return list(self._verified(transaction))

    def head(self) -> tuple[int, str]:
        """Sequence and digest of the last record: what others keep as an anchor."""
        last = self.records()[-1]
        return last.sequence, last.digest

    def anchor(self) -> Anchor:
        """The head, signed, for others to keep."""
        signer = self._require_signer()
        budget, last = self.state()
        return Anchor.sign(
            population=budget.population,
            public_key=budget.public_key,
            sequence=last.sequence,
            digest=last.digest,
            signer=signer,
        )

    def require_anchor(self, head: str) -> None:
        """Check that a head seen earlier is still in the chain.

        Args:
            head: `SEQUENCE:DIGEST`, as `head` gave it and someone else kept it.

        Raises:
            LedgerError: The head is malformed.
            LedgerLocked: The ledger was truncated, rolled back or forked since.
        """
        self.budget().require_heads([head])

    def hold_to(self, anchors: Iterable[Anchor]) -> int:
        """Charge nothing from now on unless the ledger holds all these heads.

        Anchors of other populations and of other sites' ledgers are passed over.

        Returns:
            How many are this ledger's.

        Raises:
            LedgerLocked: It lacks one.
        """
        budget = self.budget()
        heads = budget.own_heads(anchors)
        self._heads.update(heads)
        budget.require_heads(heads)
        return len(heads)

    @contextmanager
    def _transaction(self, *, locks: bool = False) -> Iterator[tuple[Budget, _Append]]:
        signer = self._require_signer()
        with ledger_errors(self._store), self._store.write() as transaction:
            records = self._verified(transaction)
            budget = self._add_up(records)
            if locks:
                budget.require_heads(sorted(self._heads))
            append = _Append(transaction, records[-1], signer)
            yield budget, append
            if append.record is not None:
                self._require_readable(transaction)
        if append.record is not None:  # and kept: whatever comes next must find it there
            self._heads.add(append.record.head)

    def _require_readable(self, transaction: Transaction) -> None:
        """What was just appended must verify as when it is read back, signature included."""
        try:
            self._add_up(self._verified(transaction))
        except LedgerDamaged as error:
            raise LedgerError(
                f"the ledger is unchanged: what was to be added would not verify: {error}",
                hint="Check that the signer is the identity that the ledger was created with.",
            ) from error

    def _require_signer(self) -> Signer:
        if self._signer is None:
            raise LedgerError("this ledger is open for reading only")
        return self._signer


class _Append:
    """Appends one record inside a transaction."""

    def __init__(self, transaction: Transaction, last: Record, signer: Signer) -> None:
        self._transaction, self._last, self._signer = transaction, last, signer
        self.record: Record | None = None

    def __call__(self, kind: str, body: dict[str, object]) -> None:
        self.record = new_record(previous=self._last, kind=kind, body=body, signer=self._signer)
        insert(self._transaction, self.record)
