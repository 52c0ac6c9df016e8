"""Sums over a ledger's grants, reservations and recoveries: what is charged, and what is left.

The lowest of three: `Admissions` adds the rules to these sums, and `Budget` adds up a chain's
records. Nothing here writes, and nothing refuses.

`ledger.admissions` is the only module that builds on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from privacy.accounting.affordability import Allowance, Headroom
from privacy.accounting.events import Event, NonPrivate, failure_of, repeated
from privacy.accounting.rdp import FAILURE_SHARE, add_costs, filter_delta, rdp_cost, zero_cost
from privacy.ledger.datasets import Dataset
from privacy.ledger.entries import Recovery, Reservation, Spend
from privacy.ledger.grants import ExactTerms, Grant, GrantStatus
from privacy.ledger.signers import Signers
from privacy.ledger.standing import objections
from privacy.limits import add


class Totals:
    """Sums over a ledger's entries: everything granted and charged so far.

    Attributes:
        population: The custodian's name for the people concerned.
        unit: The privacy unit.
        population_size: The largest number of units that a grant or a run has declared; None if
            none has.
        public_key: The Ed25519 key that opened the ledger, 32 bytes.
        signers: Who may sign.
        grants: In order of their numbers.
        reservations: By run.
        recoveries: In order.
        non_private: Runs that exhausted the ledger.
        history: Every charge in order.
    """

    def __init__(self) -> None:
        self.population = ""
        self.unit = ""
        self.population_size: int | None = None
        self.public_key = b""
        self.signers = Signers(b"")
        self.grants: list[Grant] = []
        self.reservations: dict[str, Reservation] = {}
        self.recoveries: list[Recovery] = []
        self.non_private: list[str] = []
        self.history: list[Spend] = []
        self._digests: list[str] = []  # of every record, in order
        self._committed: dict[int, dict[int, int | None]] = {}
        self._insider_committed: dict[int, dict[int, int | None]] = {}

    def status(self, *, population_size: int | None = None) -> list[GrantStatus]:
        """Every grant with its committed and charged cost, and whether it stands.

        Args:
            population_size: What a run declares, if it is to be counted in.
        """
        charged = self.charged_grants()
        size = self.largest_size(population_size)
        return [
            replace(self._sums(grant), objection=text, is_charged=grant.number in charged)
            for grant, text in zip(self.grants, objections(self.grants, charged, size), strict=True)
        ]

    def largest_size(self, population_size: int | None) -> int | None:
        """The larger of a population size declared now and the largest declared so far."""
        sizes = [n for n in (population_size, self.population_size) if n is not None]
        return max(sizes, default=None)

    def charged_grants(self) -> set[int]:
        """Numbers of the grants against which anything counts."""
        held = (r.grant for r in self.reservations.values() if r.charged_rounds)
        return {*held, *(c.grant for each in self.recoveries for c in each.charges)}

    def headroom(
        self,
        dataset: Dataset | None = None,
        *,
        slack: float = 0.0,
        population_size: int | None = None,
    ) -> Headroom:
        """Returns what every grant has left and, if a data set has a cap, what that has.

        Args:
            dataset: The data set that a run would name.
            slack: Share by which its cap is exceeded; for what was admitted once, by a library
                that may have rounded otherwise.
            population_size: What the run declares; grants that do not stand at that have nothing.
        """
        grants = tuple(_allowance(s) for s in self.status(population_size=population_size))
        if dataset is None or dataset.cap is None:
            return Headroom(grants)
        cap = dataset.cap
        # What was lost and recovered may have used any data set, as may a run that named none.
        charged, failures = self._charged_to_dataset(dataset.name, cap.orders)
        own = Allowance(
            charged,
            cap.epsilon * (1.0 + slack),
            filter_delta(cap.delta) if failures else cap.delta,
            failures_left=Fraction(cap.delta * FAILURE_SHARE) - failures,
            sets_apart=not failures,
        )
        return Headroom(grants, own)

    def _charged_to_dataset(
        self, name: str, orders: Sequence[int]
    ) -> tuple[dict[int, int | None], Fraction]:
        if self.non_private:
            return dict.fromkeys(orders), Fraction(0)
        total, failures = zero_cost(orders), Fraction(0)
        for event, rounds in [
            *(
                (held.event, held.charged_rounds)
                for held in self.reservations.values()
                if held.dataset is None or held.dataset.is_called(name)
            ),
            *((c.event, c.rounds) for each in self.recoveries for c in each.charges),
        ]:
            total = add_costs(total, rdp_cost(event, orders), rounds)
            failures += rounds * failure_of(event)
        return total, failures

    def _sums(self, grant: Grant, *, recorded: bool = False) -> GrantStatus:
        charged, seen = zero_cost(grant.orders), zero_cost(grant.insider_orders)
        failures = Fraction(0)
        held = [(held.charge, held.charged_rounds) for held in self.reservations.values()]
        lost = [(charge, charge.rounds) for each in self.recoveries for charge in each.charges]
        for charge, rounds in held + lost:
            if charge.grant == grant.number:
                cost, inside = charge.cost, charge.insider_cost
                charged = add_costs(charged, cost.recorded if recorded else cost.counted, rounds)
                seen = add_costs(seen, inside.recorded if recorded else inside.counted, rounds)
                failures += rounds * failure_of(charge.event)
        committed = self._committed[grant.number]
        insider_committed = self._insider_committed[grant.number]
        if self.non_private:
            committed = charged = dict.fromkeys(grant.orders)
            insider_committed = seen = dict.fromkeys(grant.insider_orders)
        status = GrantStatus(grant, committed, charged, insider_committed, seen, failures)
        return status if grant.exact is None else self._exact_sums(status, grant.exact)

    def _exact_sums(self, status: GrantStatus, terms: ExactTerms) -> GrantStatus:
        number = status.grant.number
        own = [held for held in self.reservations.values() if held.grant == number]
        lost = [c for each in self.recoveries for c in each.charges if c.grant == number]
        if self.non_private or any(charge.event != terms.event for charge in lost):
            return replace(status, begun=None, held=None, is_used=True)
        more = sum(charge.rounds for charge in lost)
        return replace(
            status,
            begun=sum(len(held.commits) for held in own) + more,
            held=sum(held.charged_rounds for held in own) + more,
            is_used=bool(own or lost),
        )

    def events(self, run: str | None = None) -> list[Event]:
        """One event for each training begun, of one run or of all with what was recovered."""
        events: list[Event] = [
            reservation.event
            for reservation in self.reservations.values()
            if run is None or reservation.run == run
            for _ in reservation.commits
        ]
        if run is None:
            charges = (charge for recovery in self.recoveries for charge in recovery.charges)
            events += [repeated(charge.event, charge.rounds) for charge in charges]
        return events + [NonPrivate(r) for r in self.non_private if run is None or r == run]

    def guarantee(self) -> tuple[float, float]:
        """(epsilon, delta) of everything this ledger can ever permit: its grants added up.

        A grant that a recovery charged with more than it held counts as what was charged. One
        that does not stand, and to which nothing is charged, permits nothing and adds nothing.
        Exact grants count together, as their cap, since each may be chosen for what was released.
        If the deltas come to 1 or more there is no guarantee: (infinity, 1).
        """
        counted = [status for status in self.status() if status.counts]
        filtered = [status for status in counted if status.grant.exact is None]
        exact = [status for status in counted if status.grant.exact is not None]
        cap = self.exact_cap if exact else None
        delta = add([*(s.grant.delta for s in filtered), *(cap[1:] if cap else ())])
        if self.non_private or delta >= 1.0:
            return math.inf, 1.0
        epsilons = [max(s.grant.pledged, s.epsilon_charged) for s in filtered]
        if cap is not None:
            # What a recovery charged beyond a grant counts besides.
            beyond = (max(0.0, s.epsilon_charged - s.grant.epsilon) for s in exact)
            epsilons += [cap[0], *beyond]
        return add(epsilons), delta

    @property
    def exact_cap(self) -> tuple[float, float] | None:
        """Most that all exact grants may come to together; None while there is none."""
        return next((grant.cap for grant in self.grants if grant.cap is not None), None)


def _allowance(status: GrantStatus) -> Allowance:
    grant, left = status.grant, status.grant.failures - status.failures
    if not status.is_open or grant.exact is not None:  # nothing fits but its own run
        return Allowance(dict.fromkeys(grant.orders), grant.epsilon, grant.filter_delta)
    insider = None
    if grant.insider_epsilon is not None:
        seen = status.insider_charged
        insider = Allowance(seen, grant.insider_epsilon, grant.filter_delta, left)
    return Allowance(status.charged, grant.epsilon, grant.filter_delta, left, insider)
