"""Sums over a ledger's grants, reservations and recoveries: what is charged, and what is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from privacy.accounting import FAILURE_SHARE, add_costs, filter_delta, rdp_cost, zero_cost
from privacy.affordability import Allowance, Headroom
from privacy.datasets import Dataset
from privacy.entries import Grant, GrantStatus, Recovery, Reservation, Spend
from privacy.events import Event, NonPrivate, failure_of, repeated


class Totals:
    """What was granted and charged so far, by the entries of a ledger.

    Attributes:
        population: The custodian's name for the people concerned.
        unit: The privacy unit.
        public_key: The site's Ed25519 key, 32 bytes.
        grants: In order of their numbers.
        reservations: By run.
        recoveries: In order.
        non_private: Runs that exhausted the ledger.
        history: Every charge in order.
    """

    def __init__(self) -> None:
        self.population = ""
        self.unit = ""
        self.public_key = b""
        self.grants: list[Grant] = []
        self.reservations: dict[str, Reservation] = {}
        self.recoveries: list[Recovery] = []
        self.non_private: list[str] = []
        self.history: list[Spend] = []
        self._digests: list[str] = []  # of every record, in order
        self._committed: dict[int, dict[int, int | None]] = {}
        self._insider_committed: dict[int, dict[int, int | None]] = {}

    def status(self) -> list[GrantStatus]:
        """Every grant with its committed and charged cost."""
        return [self._sums(grant) for grant in self.grants]

    def headroom(self, dataset: Dataset | None = None, *, slack: float = 0.0) -> Headroom:
        """What is left: of every grant and, if a data set has a cap, of that.

        Args:
            dataset: The data set that a run would name.
            slack: Share by which its cap is exceeded; for what was admitted once, by a library
                that may have rounded otherwise.
        """
        grants = tuple(_allowance(status) for status in self.status())
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
                if held.dataset is None or held.dataset.name == name
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
        return GrantStatus(grant, committed, charged, insider_committed, seen, failures)

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

        A grant that a recovery charged with more than it held counts as what was charged.
        """
        if self.non_private:
            return math.inf, 1.0
        statuses = self.status()
        return (
            sum(max(s.grant.epsilon, s.epsilon_charged) for s in statuses),
            sum(s.grant.delta for s in statuses),
        )


def _allowance(status: GrantStatus) -> Allowance:
    grant, left = status.grant, status.grant.failures - status.failures
    insider = None
    if grant.insider_epsilon is not None:
        seen = status.insider_charged
        insider = Allowance(seen, grant.insider_epsilon, grant.filter_delta, left)
    return Allowance(status.charged, grant.epsilon, grant.filter_delta, left, insider)
