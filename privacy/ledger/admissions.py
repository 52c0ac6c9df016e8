"""Rules by which a ledger's state admits a grant, a run or a training.

`Ledger` and `LedgerInCustody` ask here before they write a record, and `Budget.replay` asks the
same when it reads one back: a record that would not have been admitted does not verify. The order
is that of `Totals` (sums), `Admissions` (these rules), `Budget` (replay), each a subclass of the
one before.

`ledger.budget` is the only module that builds on it.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import datetime
from typing import Self

from privacy.accounting.affordability import Headroom, largest_run
from privacy.accounting.events import Event, NonPrivate
from privacy.accounting.exact import exact_epsilon
from privacy.accounting.rdp import fits
from privacy.errors import BudgetExhausted, LedgerError, PlanError, PolicyRefusal
from privacy.ledger.datasets import Dataset
from privacy.ledger.entries import Reservation
from privacy.ledger.grants import Grant
from privacy.ledger.standing import objections
from privacy.ledger.totals import Totals
from privacy.limits import as_written, check_epsilon, check_population_delta, rounded_up

# Another version of the accountant may find another price; more than that is another run's.
PRICE_TOLERANCE = 1e-2

_MEND = (
    "Have the custodian grant anew, at a delta that keeps the sum within 1 / (10 x the declared "
    "size), or with a reason: fmfl-secure ledger grant --delta-reason."
)


class Admissions(Totals):
    """Totals, and what they admit."""

    # What a run may do.

    def require_first(self) -> None:
        """Check that nothing was granted yet.

        Raises:
            LedgerError: Something was.
        """
        if self.grants:
            raise LedgerError(
                f"the first grant of population {self.population!r} was made on "
                f"{self.grants[0].at[:10]}",
                hint="More is granted by figures: --epsilon, --delta and --purpose.",
            )

    def require_ungranted(self) -> None:
        """Check that nothing was ever granted or charged.

        Raises:
            LedgerError: Something was.
        """
        if self.grants or self.non_private:
            raise LedgerError("population and unit stay, from a ledger's first grant on")

    def require_grant(self, number: int) -> Grant:
        """An open grant by its number.

        Raises:
            LedgerError: There is none, or it is closed.
        """
        if not 1 <= number <= len(self.grants):
            raise LedgerError(f"grant {number} does not exist")
        grant = self.grants[number - 1]
        if grant.closed:
            raise LedgerError(f"grant {number} is closed: {grant.closed}")
        return grant

    def lowered(
        self,
        number: int,
        epsilon: float,
        insider_epsilon: float | None = None,
        *,
        orders: tuple[int, ...] = (),
        insider_orders: tuple[int, ...] = (),
        recorded: bool = False,
    ) -> Grant:
        """A grant as it is once it permits less. Its delta stays.

        Args:
            number: Of the grant.
            epsilon: From now on; at most what it is.
            insider_epsilon: The same against all other sites, while nothing is charged; None leaves
                it.
            orders: Renyi orders to filter it at from now on, where nothing is charged to it; once
                something is, they stay, and so does what they cannot tell apart.
            insider_orders: The same of what other sites learn.
            recorded: Judge by the costs that were recorded, as for what was lowered once.

        Raises:
            PlanError: More than it permits now.
            LedgerError: There is no such grant, or more is charged to it.
        """
        grant = self.require_grant(number)
        insider = grant.insider_epsilon if insider_epsilon is None else insider_epsilon
        check_epsilon(epsilon)
        if epsilon > grant.epsilon or (grant.insider_epsilon is None) != (insider is None):
            raise PlanError(f"grant {number} permits {grant.epsilon:g}, and can only be lowered")
        if grant.exact is not None:
            raise LedgerError(f"grant {number} is for one run as it was fixed: close it instead")
        if insider is not None and not epsilon <= insider <= (grant.insider_epsilon or 0.0):
            raise PlanError(
                f"insider_epsilon is {insider:g}, expected {epsilon:g} to {grant.insider_epsilon}"
            )
        if number not in self.charged_grants() and not self.non_private:
            return replace(
                grant,
                epsilon=epsilon,
                insider_epsilon=insider,
                orders=orders or grant.orders,
                insider_orders=insider_orders or grant.insider_orders,
            )
        if orders or insider_orders or insider != grant.insider_epsilon:
            raise LedgerError(f"grant {number} is charged, so its orders and insider_epsilon stay")
        sums = self._sums(grant, recorded=recorded)
        margin = {"margin": 0.0} if recorded else {}
        holds = fits(sums.charged, epsilon, grant.filter_delta, **margin)
        if not holds:
            raise LedgerError(
                f"grant {number} cannot be lowered to {epsilon:g}: by its own orders "
                f"{rounded_up(sums.epsilon_charged)} of it is spent or reserved",
                hint="Close it instead, so that nothing more is reserved of it, and grant what is "
                "still to be used anew.",
            )
        before = grant.lowered_from or (grant.epsilon if self.has_commits(number) else None)
        return replace(grant, epsilon=epsilon, insider_epsilon=insider, lowered_from=before)

    def has_commits(self, grant: int) -> bool:
        """Whether trainings or a lost history are charged to a grant, and not only reserved."""
        return any(spend.grant == grant for spend in self.history)

    def require_own(self, held: Reservation, signer: str) -> None:
        """Check that an identity may charge or close a run: who reserved it, or a custodian.

        Raises:
            LedgerError: It may not.
        """
        found = self.signers.named(signer)
        if found is None or not (signer == held.signer or found.custodian):
            raise LedgerError(f"run {held.run} was reserved by another identity of this ledger")

    def expired(self, now: datetime) -> list[Reservation]:
        """Open reservations whose time is over."""
        return [held for held in self.reservations.values() if held.has_expired(now)]

    def without_expired(self, now: datetime) -> Self:
        """The state once those are closed, as they are when the next run reserves."""
        after = copy.copy(self)
        after.reservations = {
            run: replace(held, open=False) if held.has_expired(now) else held
            for run, held in self.reservations.items()
        }
        return after

    def require_open(self, run: str, now: datetime | None = None) -> Reservation:
        """The open reservation of a run.

        Args:
            run: Run id.
            now: A time at which it must not have expired.

        Raises:
            LedgerError: There is none.
        """
        held = self.reservations.get(run)
        if held is None:
            raise LedgerError(
                f"run {run} has no open reservation",
                hint="A run reserves its whole budget before it reads data.",
            )
        if not held.open or (now is not None and held.has_expired(now)):
            ended = f"expired at {held.expires}" if held.open else "is closed"
            why = f" ({held.released})" if held.released else ""
            raise LedgerError(
                f"run {run} has no open reservation: the one that it had {ended}{why}",
                hint="A run reserves once. Start a new one.",
            )
        return held

    def require_commit(self, run: str, now: datetime) -> Reservation:
        """The reservation, if one more training may begin under it.

        Raises:
            LedgerError: No open reservation, it has expired, or nothing of it is left.
        """
        reservation = self.require_open(run, now)
        if self.non_private:
            raise LedgerError("a non-private use exhausted this ledger")
        if reservation.remaining_rounds < 1:
            raise BudgetExhausted(
                f"run {reservation.run} reserved {reservation.rounds} rounds, repeats included, "
                "and has begun them all",
                asked_rounds=1,
                affordable_rounds=0,
                hint="Too many rounds were lost to crashes; raise privacy.repeats for a new run.",
            )
        return reservation

    def require_grantable(self, grant: Grant) -> None:
        """Check that a grant would stand, which is about to be made.

        Raises:
            PlanError: The size of the population was never declared; or the deltas, this one
                added, are above 1 / (10 x the largest size declared) and the grant gives no reason
                for that, or are 1 or more.
        """
        size = self.largest_size(grant.population_size)
        if size is None:
            raise PlanError(
                "a grant needs the declared size of its population, which bounds its delta",
                hint="--population-size: the rounded number of units, as federation.toml has it.",
            )
        objection = objections([*self.grants, grant], self.charged_grants(), size)[-1]
        if objection:
            raise PlanError(
                f"grant {grant.number} of epsilon {grant.epsilon:g} at delta {grant.delta:g} is "
                f"refused: {objection}",
                hint=(
                    "Grant at a smaller delta, or say in words why so much is acceptable: "
                    "--delta-reason. The reason stands in the ledger and in every report."
                ),
            )

    def require_within_cap(self, grant: Grant, *, recorded: bool = False) -> None:
        """Check an exact grant that is about to be made against what all of them may come to.

        Args:
            grant: The grant.
            recorded: Judge one that was made once, perhaps by another version of the accountant.

        Raises:
            LedgerError: Its own price is above it, the first one fixes no cap, a later one does, or
                the cap does not cover them.
        """
        if grant.exact is None:
            if grant.cap is not None:
                raise LedgerError("only exact grants have a cap")
            return
        price = exact_epsilon(grant.exact.event, grant.exact.rounds, grant.delta)
        if price > grant.epsilon * (1.0 + (PRICE_TOLERANCE if recorded else 0.0)):
            raise LedgerError(
                f"{grant.exact.rounds} such trainings cost epsilon {rounded_up(price)} at delta "
                f"{grant.delta:g}, and the exact grant is of {grant.epsilon:g}",
                hint="Grant as much, or plan the run with a smaller epsilon.",
            )
        cap = self.exact_cap or grant.cap
        if cap is None or (grant.cap is not None and self.exact_cap is not None):
            raise LedgerError("the first exact grant of a ledger, and only it, fixes their cap")
        held = [s.grant for s in self.status() if s.grant.exact is not None and s.counts]
        epsilon = sum(as_written(each.epsilon) for each in [*held, grant])
        delta = sum(as_written(each.delta) for each in [*held, grant])
        if epsilon > as_written(cap[0]) or delta > as_written(cap[1]):
            raise LedgerError(
                f"exact grants may come to epsilon {cap[0]:g} and delta {cap[1]:g} together, which "
                "was fixed with the first of them; with this one they come to "
                f"{float(epsilon):g} and {float(delta):g}",
                hint="Close one that was never used, or grant of the other kind.",
            )

    def require_affordable(
        self,
        event: Event,
        rounds: int,
        *,
        dataset: Dataset | None = None,
        population_size: int | None = None,
        plan: str = "",
    ) -> int:
        """The number of the grant that covers so many of this event.

        An exact grant for just this run comes first; else it is the first one with enough left.

        Args:
            event: What one round does.
            rounds: How many.
            plan: Digest of the plan that they follow.
            dataset: The data set; its cap, if it has one, has to cover it too.
            population_size: Units that the run declares.

        Raises:
            BudgetExhausted: No grant does; or none that does stands.
            PolicyRefusal: The data set's cap does not.
            PlanError: The data set's cap is at a delta above 1 / (10 x the declared size).
        """
        size = self.largest_size(population_size)
        if size is not None and dataset is not None and dataset.cap is not None:
            check_population_delta(dataset.cap.delta, size, "the data set's max_delta_per_dataset")
        headroom = self.headroom(dataset, population_size=population_size)
        covering = [
            status.grant.number
            for status in self.status(population_size=population_size)
            if status.is_open and fixes(status.grant, event, rounds, plan)
        ]
        covering += [n for n, a in enumerate(headroom.grants, start=1) if a.admits(event, rounds)]
        if not covering:
            raise self._exhausted(event, rounds, headroom, population_size)
        self._require_dataset(dataset, event, rounds, headroom)
        return covering[0]

    def require_standing(self, held: Reservation, population_size: int | None) -> None:
        """Check that the grant of a reservation stands that was held before anybody asked.

        Raises:
            BudgetExhausted: It does not.
        """
        status = self.status(population_size=population_size)[held.grant - 1]
        if held.population_size is None and status.objection:
            raise BudgetExhausted(
                f"run {held.run} holds rounds of grant {held.grant}, which affords nothing: "
                f"{status.objection}",
                asked_rounds=held.remaining_rounds,
                affordable_rounds=0,
                hint=_MEND,
            )

    def require_still_capped(self, held: Reservation, dataset: Dataset | None) -> None:
        """Check a reservation that is held against its data set's cap as it is now.

        Raises:
            PolicyRefusal: The cap was lowered below what is charged.
        """
        self._require_dataset(dataset, held.event, 0, self.headroom(dataset))

    def _require_dataset(
        self, dataset: Dataset | None, event: Event, rounds: int, headroom: Headroom
    ) -> None:
        own, cap = headroom.dataset, None if dataset is None else dataset.cap
        if dataset is None or cap is None or own is None or own.admits(event, rounds):
            return
        raise PolicyRefusal(
            "epsilon_per_dataset",
            f"data set {dataset.name!r} may cost epsilon {cap.epsilon:g} at delta {cap.delta:g}, "
            f"and runs on it hold {rounded_up(own.epsilon_spent)}: "
            + (f"{_count(rounds)} more would go beyond" if rounds else "that is above it already"),
            hint=largest_run(event, rounds, headroom) if rounds else "Raise the data set's cap.",
        )

    def _exhausted(
        self, event: Event, rounds: int, headroom: Headroom, population_size: int | None
    ) -> BudgetExhausted:
        statuses = self.status(population_size=population_size)
        left = "; ".join(
            f"grant {s.grant.number} affords nothing: {s.objection}"
            if s.objection
            else f"grant {s.grant.number} is closed"
            if s.grant.closed
            else f"grant {s.grant.number} is for one run, of other settings or with its reservation"
            if s.grant.exact is not None
            else f"grant {s.grant.number}: {rounded_up(s.epsilon_charged)} of epsilon "
            f"{s.grant.epsilon:g} at delta {s.grant.delta:g} is spent or reserved"
            for s in statuses
        )
        objected = any(s.objection for s in statuses)
        asked = "a non-private use" if isinstance(event, NonPrivate) else _count(rounds)
        return BudgetExhausted(
            f"population {self.population!r} cannot afford {asked} ({left or 'nothing granted'})",
            asked_rounds=rounds,
            affordable_rounds=headroom.rounds(event),
            hint=_hint_of(event, rounds, headroom, objected=objected),
        )


def fixes(grant: Grant, event: Event, rounds: int, plan: str) -> bool:
    """Whether a grant is the exact one of a run."""
    terms = grant.exact
    return terms is not None and (terms.event, terms.rounds, terms.plan) == (event, rounds, plan)


def _hint_of(event: Event, rounds: int, headroom: Headroom, *, objected: bool) -> str:
    if not headroom.grants:
        return (
            "The site's custodian grants first: fmfl-secure ledger grant SITE shows what is "
            "proposed and what it means, --accept grants it."
        )
    return _MEND if objected else largest_run(event, rounds, headroom)


def _count(rounds: int) -> str:
    return "1 round" if rounds == 1 else f"{rounds} rounds"
