"""A population's privacy budget, durable, and shared by every run and process that charges it.

The ledger belongs to a *population*, a name its custodian gave, and not to a file: every data
set that may hold the same people charges the same ledger, and a changed byte buys nothing.

Life of a run, as records (see `privacy.ledger.budget` for their effect):

    grant      the custodian permits (epsilon, delta), once
    reserve    the run's worst case, before any data are read; refused if it does not fit
    commit     before *each* training of a round reads data: the charge itself
    refund     at the end, on the coordinator's signed word: rounds that never started come back
    release    or by the owner, whom no coordinator has to be asked for
    expire     or by time, when another run reserves

A commit stands before the data are read, so there is no moment at which a crash could have used
data that no record shows. A training that was lost after its commit stays charged; training it
again is another commit, against the repeats that were reserved.

However a reservation is closed, what was begun under it stays charged, and its run id is spent:
nothing is ever reserved or committed for it again.

Storage is SQLite, or PostgreSQL by URL (`privacy.storage`). Each change is one transaction, with
no other writer beside it, that verifies the whole chain, checks, and appends; two processes
cannot both take the last of a budget.

Against a ledger that was rolled back there are anchors (`privacy.ledger.anchors`): heads that
others kept. A ledger that lacks one of them is locked: nothing is reserved, committed or refunded
until the officer has recorded what to charge for the history that was lost (`recover`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from privacy.accounting.events import Event
from privacy.errors import LedgerError
from privacy.ledger.anchors import Anchor
from privacy.ledger.charges import Charge
from privacy.ledger.custody import LedgerInCustody
from privacy.ledger.datasets import Dataset
from privacy.ledger.entries import Reservation
from privacy.ledger.times import written_time
from privacy.limits import check_population_size

RESERVED_FOR = timedelta(days=30)  # unless whoever reserves says otherwise


class Ledger(LedgerInCustody):
    """One population's ledger.

    Args:
        location: The SQLite file, or the URL of a PostgreSQL database.
        signer: The site's identity; None opens for reading only.

    Raises:
        LedgerError: There is no ledger there.
        LedgerUnavailable: It cannot be reached.
        LedgerDamaged: It is not a ledger, or does not verify.
    """

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
        call: str = "",
        lasts: timedelta = RESERVED_FOR,
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
            call: Digest of the coordinator's signed call to the run.
            lasts: For how long it is held, at least a second. What has not begun by then never
                will, and comes back when another run reserves.

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
        if lasts < timedelta(seconds=1):
            raise LedgerError(f"a reservation lasts {lasts}, expected at least a second")
        with self._transaction("reserve", locks=True) as (budget, append):
            held = budget.reservations.get(run)
            if held is not None:
                budget.require_open(run, append.now)
                budget.require_own(held, append.signer)
                if (held.event, held.rounds, held.plan) != (event, rounds, plan):
                    raise LedgerError(f"run {run} has reserved before, on other terms")
                if held.dataset and not held.dataset.is_called(dataset.name if dataset else ""):
                    raise LedgerError(f"run {run} has reserved before, for another data set")
                budget.require_still_capped(held, dataset)
                budget.require_standing(held, population_size)
                return held
            for over in budget.expired(append.now):
                append("expire", {"run": over.run, "rounds": over.remaining_rounds})
            number = budget.without_expired(append.now).require_affordable(
                event, rounds, dataset=dataset, population_size=population_size, plan=plan
            )
            charge = Charge.of(event, rounds, budget.grants[number - 1])
            named = {} if dataset is None else {"dataset": dataset.canonical()}
            sized = {} if population_size is None else {"population_size": population_size}
            called = {"call": call} if call else {}
            terms = {"run": run, "plan": plan, "purpose": purpose, **named, **sized, **called}
            terms["expires"] = written_time(append.now + lasts)
            append("reserve", {**terms, **charge.body()})
        return self.budget().reservations[run]

    def commit(self, *, run: str, round: int) -> None:  # noqa: A002
        """Charge one training of a round. Durable when this returns; only then read data.

        Where it fails, the store may have kept it all the same, and only the answer was lost. Asked
        again by the same object, what was kept is found and is not charged once more.

        Raises:
            LedgerError: No open reservation, it has expired, or nothing of it is left.
            LedgerLocked: It lacks a head that somebody kept.
        """
        with self._transaction("commit", locks=True) as (budget, append):
            charge: dict[str, object] = {"run": run, "round": round}
            if append.has_landed("commit", charge):
                return
            held = budget.require_commit(run, append.now)
            budget.require_own(held, append.signer)
            append("commit", charge)

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
        with self._transaction("refund", locks=True) as (budget, append):
            held = budget.require_open(run)
            budget.require_own(held, append.signer)
            rounds = held.remaining_rounds
            append("refund", {"run": run, "rounds": rounds, "evidence": evidence})
        return rounds

    def release(self, *, run: str, reason: str, anchors: Iterable[Anchor]) -> int:
        """Close a run's reservation as its owner, whatever the coordinator says, and for good.

        Everything begun under it stays charged. Under the write lock, so that a training either
        stands in the ledger already, and is not given back, or is refused from here on.

        Args:
            run: Run id.
            reason: Why, in the owner's words.
            anchors: Heads that others kept. A ledger that was put back has forgotten trainings,
                and would give back what they cost: at least one must be of this ledger.

        Returns:
            How many rounds came back.

        Raises:
            LedgerError: No open reservation, no reason, or no anchor is of this ledger.
            LedgerLocked: It lacks a head that somebody kept.
        """
        if not reason.strip():
            raise LedgerError("a release needs a reason")
        kept = list(anchors)
        with self._transaction("release", locks=True) as (budget, append):
            if not budget.require_anchors(kept):
                raise LedgerError(
                    "none of the anchors is of this ledger",
                    hint="Use the data-protection officer's, or heads that other parties kept: "
                    "without one nobody knows whether trainings are missing here.",
                )
            held = budget.require_open(run)
            budget.require_own(held, append.signer)
            rounds = held.remaining_rounds
            append("release", {"run": run, "rounds": rounds, "reason": reason.strip()})
        return rounds

    def record_non_private(self, *, run: str, reason: str) -> None:
        """Record that data not declared public were used without privacy: ends every grant."""
        with self._transaction("non-private") as (_, append):
            append("non-private", {"run": run, "reason": reason})
