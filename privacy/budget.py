"""What a ledger's records add up to: grants, reservations, and what is left.

Pure arithmetic over verified records, no I/O. A reservation holds the worst case of a run from
before its data are read; each training of a round turns a part of it into a commit; closing it
gives back the rounds that never started. While it is open, all of it counts as spent.

| record | body | effect |
| --- | --- | --- |
| `open` | population, unit, relation, public_key | first record; fixed for the ledger's life |
| `grant` | grant, epsilon, delta, orders, purpose | adds a budget with a filter of its own |
| `reserve` | run, grant, event, rounds, cost, plan, dataset | charges rounds x cost to a grant |
| `commit` | run, round | one training of a round begins; consumes a reserved round |
| `refund` | run, rounds, evidence | closes the reservation, gives back unstarted rounds |
| `non-private` | run, reason | infinite cost: exhausts every grant |

Grants compose by addition: with grants (e1, d1) and (e2, d2) the ledger's guarantee is
(e1 + e2, d1 + d2). The data set of a reservation is optional (`privacy.datasets`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from privacy.accounting import (
    add_costs,
    epsilon_spent,
    filter_orders,
    rdp_cost,
    zero_cost,
)
from privacy.affordability import Allowance, Headroom, Sampler, least_noise_multiplier
from privacy.chain import Record
from privacy.datasets import Dataset, parse_dataset
from privacy.errors import BudgetExhausted, LedgerDamaged, LedgerError, PlanError, PolicyRefusal
from privacy.events import Event, NonPrivate, PoissonSampledGaussian, parse_event
from privacy.plan import RELATION

# A library update may move a recomputed cost by rounding; more means the record was forged.
_COST_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Grant:
    """A budget given to a population: the guarantee itself.

    Attributes:
        number: 1 for the first grant.
        epsilon: Granted epsilon.
        delta: Granted delta.
        orders: The Renyi orders it is filtered at.
        purpose: What for, in the granting person's words.
        at: UTC time of the record.
    """

    number: int
    epsilon: float
    delta: float
    orders: tuple[int, ...]
    purpose: str
    at: str


@dataclass(slots=True)
class Reservation:
    """A run's hold on a grant.

    Attributes:
        run: Run id.
        grant: Number of the grant it is charged to.
        event: What one round does.
        rounds: Trainings reserved, repeats included.
        plan: Digest of the privacy plan and the training it belongs to.
        purpose: What the run is for.
        at: UTC time of the record.
        dataset: The data set it named; None if it named none.
        commits: Round number and UTC time of each training begun, in order.
        open: Whether it may still be committed against.
    """

    run: str
    grant: int
    event: Event
    rounds: int
    plan: str
    purpose: str
    at: str
    dataset: Dataset | None = None
    commits: list[tuple[int, str]] = field(default_factory=list)
    open: bool = True

    @property
    def charged_rounds(self) -> int:
        """Rounds that count against the grant: all while open, the begun ones after."""
        return self.rounds if self.open else len(self.commits)

    @property
    def remaining_rounds(self) -> int:
        """Trainings that may still begin."""
        return self.rounds - len(self.commits) if self.open else 0


@dataclass(frozen=True, slots=True)
class Spend:
    """One training that began, and where it left its grant.

    Attributes:
        run: Run id.
        round: Round number.
        grant: Number of the grant.
        epsilon: Epsilon of all trainings on this grant so far, this one included.
        at: UTC time of the record.
    """

    run: str
    round: int
    grant: int
    epsilon: float
    at: str


@dataclass(frozen=True, slots=True)
class GrantStatus:
    """A grant and what has become of it.

    Attributes:
        grant: The grant.
        committed: Renyi cost by order of trainings begun, in RDP_UNIT; None is infinite.
        charged: The same with open reservations in full.
        epsilon_committed: What `committed` converts to at the grant's delta.
        epsilon_charged: What `charged` converts to.
    """

    grant: Grant
    committed: dict[int, int | None]
    charged: dict[int, int | None]
    epsilon_committed: float
    epsilon_charged: float

    @property
    def epsilon_left(self) -> float:
        """Granted less charged epsilon, at least 0. Informative: the filter works on costs."""
        return max(0.0, self.grant.epsilon - self.epsilon_charged)


class Budget:
    """The state that a chain's records add up to."""

    def __init__(self) -> None:
        self.population = ""
        self.unit = ""
        self.public_key = b""
        self.grants: list[Grant] = []
        self.reservations: dict[str, Reservation] = {}
        self.non_private: list[str] = []
        self.history: list[Spend] = []
        self._committed: dict[int, dict[int, int | None]] = {}

    @classmethod
    def replay(cls, records: Iterator[Record] | Sequence[Record]) -> Budget:
        """Add up verified records.

        Raises:
            LedgerDamaged: A record's kind is unknown, its body malformed, or it contradicts the
                ones before it.
        """
        budget = cls()
        for record in records:
            try:
                budget._apply(record)
            except (
                KeyError,
                TypeError,
                ValueError,
                ArithmeticError,
                PlanError,
                PolicyRefusal,
                LedgerError,
            ) as error:
                if isinstance(error, LedgerDamaged):
                    raise
                raise LedgerDamaged(
                    f"record {record.sequence} ({record.kind}) does not add up: {error!r}"
                ) from error
        return budget

    # Each step below both checks a record that is about to be written and replays a stored one.

    def _apply(self, record: Record) -> None:
        body = dict(record.body)
        if (record.sequence == 1) != (record.kind == "open"):
            raise LedgerDamaged("the first record, and only it, opens the ledger")
        if record.kind == "open":
            if body["relation"] != RELATION:
                raise LedgerDamaged(f"unknown neighbouring relation {body['relation']!r}")
            self.population, self.unit = str(body["population"]), str(body["unit"])
            self.public_key = bytes.fromhex(body["public_key"])
        elif record.kind == "grant":
            self.grants.append(self._parse_grant(body, record.at))
        elif record.kind == "reserve":
            reservation = self._parse_reservation(body, record.at)
            self.require_affordable(reservation.event, reservation.rounds, grant=reservation.grant)
            self._require_dataset(
                reservation.dataset,
                reservation.event,
                reservation.rounds,
                self.headroom(reservation.dataset, slack=_COST_TOLERANCE),
            )
            self.reservations[reservation.run] = reservation
        elif record.kind == "commit":
            reservation = self.require_open(str(body["run"]))
            self._require_remaining(reservation)
            self._commit(reservation, _whole(body["round"]), record.at)
        elif record.kind == "refund":
            reservation = self.require_open(str(body["run"]))
            if _whole(body["rounds"]) != reservation.remaining_rounds:
                raise LedgerDamaged("a refund gives back other than the unstarted rounds")
            reservation.open = False
        elif record.kind == "non-private":
            self.non_private.append(str(body["run"]))
        else:
            raise LedgerDamaged(f"record kind {record.kind!r} is unknown, so its cost is unknown")

    def _commit(self, reservation: Reservation, round_number: int, at: str) -> None:
        grant = self._grant(reservation.grant)
        before = self._committed.get(grant.number, zero_cost(grant.orders))
        after = add_costs(before, rdp_cost(reservation.event, grant.orders))
        self._committed[grant.number] = after
        reservation.commits.append((round_number, at))
        epsilon = epsilon_spent(after, grant.delta)
        self.history.append(Spend(reservation.run, round_number, grant.number, epsilon, at))

    def _parse_grant(self, body: dict[str, Any], at: str) -> Grant:
        grant = Grant(
            number=_whole(body["grant"]),
            epsilon=float.fromhex(body["epsilon"]),
            delta=float.fromhex(body["delta"]),
            orders=tuple(_whole(order) for order in body["orders"]),
            purpose=str(body["purpose"]),
            at=at,
        )
        if grant.number != len(self.grants) + 1:
            raise LedgerDamaged(f"grant {grant.number} is out of order")
        if grant.orders != filter_orders(grant.epsilon, grant.delta):
            raise LedgerDamaged("a grant's orders are not those of its epsilon and delta")
        return grant

    def _parse_reservation(self, body: dict[str, Any], at: str) -> Reservation:
        reservation = Reservation(
            run=str(body["run"]),
            grant=_whole(body["grant"]),
            event=parse_event(body["event"]),
            rounds=_whole(body["rounds"]),
            plan=str(body["plan"]),
            purpose=str(body["purpose"]),
            at=at,
            dataset=parse_dataset(body["dataset"]) if "dataset" in body else None,
        )
        if reservation.run in self.reservations:
            raise LedgerDamaged(f"run {reservation.run} reserves twice")
        if reservation.rounds < 1:  # fewer would take back what others spent
            raise LedgerDamaged(f"run {reservation.run} reserves {reservation.rounds} rounds")
        orders = self._grant(reservation.grant).orders
        computed = rdp_cost(reservation.event, orders)
        for order, cost in computed.items():
            stored = body["cost"][str(order)]
            if cost is None or abs(_whole(stored) - cost) > _COST_TOLERANCE * cost + 1:
                raise LedgerDamaged(f"the cost stored at order {order} is not the event's")
        return reservation

    def _grant(self, number: int) -> Grant:
        if not 1 <= number <= len(self.grants):
            raise LedgerDamaged(f"grant {number} does not exist")
        return self.grants[number - 1]

    def require_open(self, run: str) -> Reservation:
        """The open reservation of a run.

        Raises:
            LedgerError: There is none.
        """
        reservation = self.reservations.get(run)
        if reservation is None or not reservation.open:
            raise LedgerError(
                f"run {run} has no open reservation",
                hint="A run reserves its whole budget before it reads data.",
            )
        return reservation

    def _require_remaining(self, reservation: Reservation) -> None:
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

    def require_commit(self, run: str) -> Reservation:
        """The reservation, if one more training may begin under it.

        Raises:
            LedgerError: No open reservation, or nothing of it is left.
        """
        reservation = self.require_open(run)
        self._require_remaining(reservation)
        return reservation

    def require_affordable(
        self,
        event: Event,
        rounds: int,
        *,
        grant: int | None = None,
        dataset: Dataset | None = None,
    ) -> int:
        """The number of the first grant (or of the given one) that still covers this.

        Args:
            event: What one round does.
            rounds: How many, at least 0.
            grant: The only grant that may cover it; None for any.
            dataset: The data set; its cap, if it has one, has to cover it too.

        Raises:
            BudgetExhausted: No grant does.
            PolicyRefusal: The data set's cap does not.
        """
        headroom = self.headroom(dataset)
        allowances = enumerate(headroom.grants, start=1)
        covering = [n for n, a in allowances if grant in {None, n} and a.admits(event, rounds)]
        if not covering:
            raise self._exhausted(event, rounds, headroom)
        self._require_dataset(dataset, event, rounds, headroom)
        return covering[0]

    def require_still_capped(self, held: Reservation, dataset: Dataset | None) -> None:
        """Check a reservation that is held against its data set's cap as it is now.

        Raises:
            PolicyRefusal: The cap was lowered below what is charged.
        """
        self._require_dataset(dataset, held.event, 0, self.headroom(dataset))

    def _require_dataset(
        self, dataset: Dataset | None, event: Event, rounds: int, headroom: Headroom
    ) -> None:
        own = headroom.dataset
        if dataset is None or own is None or own.admits(event, rounds):
            return
        raise PolicyRefusal(
            "epsilon_per_dataset",
            f"data set {dataset.name!r} may cost epsilon {own.epsilon:g} at delta {own.delta:g}, "
            f"and runs on it hold {own.epsilon_spent:.4f}: "
            + (f"{_count(rounds)} more would go beyond" if rounds else "that is above it already"),
            hint=_what_would_fit(event, rounds, headroom)
            if rounds
            else "Raise the data set's cap.",
        )

    def headroom(self, dataset: Dataset | None = None, *, slack: float = 0.0) -> Headroom:
        """What is left: of every grant and, if a data set has a cap, of that.

        Args:
            dataset: The data set that a run would name.
            slack: Share by which its cap is exceeded; for what was admitted once, by a library
                that may have rounded otherwise.
        """
        grants = tuple(
            Allowance(status.charged, status.grant.epsilon, status.grant.delta)
            for status in self.status()
        )
        if dataset is None or dataset.cap is None:
            return Headroom(grants)
        cap = dataset.cap
        charged = self._charged(
            cap.orders, lambda held: held.dataset is None or held.dataset.name == dataset.name
        )
        return Headroom(grants, Allowance(charged, cap.epsilon * (1.0 + slack), cap.delta))

    def _charged(
        self, orders: Sequence[int], counts: Callable[[Reservation], bool]
    ) -> dict[int, int | None]:
        """Cost of the reservations that count, open ones in full."""
        if self.non_private:
            return dict.fromkeys(orders)
        charged = zero_cost(orders)
        for held in self.reservations.values():
            if counts(held):
                charged = add_costs(charged, rdp_cost(held.event, orders), held.charged_rounds)
        return charged

    def _exhausted(self, event: Event, rounds: int, headroom: Headroom) -> BudgetExhausted:
        left = "; ".join(
            f"grant {s.grant.number}: {s.epsilon_charged:.4f} of epsilon {s.grant.epsilon:g} "
            f"at delta {s.grant.delta:g} is spent or reserved"
            for s in self.status()
        )
        asked = "a non-private use" if isinstance(event, NonPrivate) else _count(rounds)
        return BudgetExhausted(
            f"population {self.population!r} cannot afford {asked} ({left or 'nothing granted'})",
            asked_rounds=rounds,
            affordable_rounds=headroom.rounds(event),
            hint=_what_would_fit(event, rounds, headroom),
        )

    def status(self) -> list[GrantStatus]:
        """Every grant with its committed and charged cost."""
        return [self._grant_status(grant) for grant in self.grants]

    def _grant_status(self, grant: Grant) -> GrantStatus:
        committed = self._committed.get(grant.number, zero_cost(grant.orders))
        charged = self._charged(grant.orders, lambda held: held.grant == grant.number)
        if self.non_private:
            committed = charged
        return GrantStatus(
            grant=grant,
            committed=committed,
            charged=charged,
            epsilon_committed=epsilon_spent(committed, grant.delta),
            epsilon_charged=epsilon_spent(charged, grant.delta),
        )

    def events(self, run: str | None = None) -> list[Event]:
        """One event for each training begun, of one run or of all."""
        events: list[Event] = [
            reservation.event
            for reservation in self.reservations.values()
            if run is None or reservation.run == run
            for _ in reservation.commits
        ]
        return events + [NonPrivate(r) for r in self.non_private if run is None or r == run]

    def guarantee(self) -> tuple[float, float]:
        """(epsilon, delta) of everything this ledger can ever permit: its grants added up."""
        if self.non_private:
            return math.inf, 1.0
        return sum(g.epsilon for g in self.grants), sum(g.delta for g in self.grants)


def _what_would_fit(event: Event, rounds: int, headroom: Headroom) -> str:
    """The largest run that would be admitted: fewer rounds, or as many with more noise."""
    most = headroom.rounds(event)
    fitting = f"{_count(most)} of this mechanism"
    if isinstance(event, PoissonSampledGaussian):
        sampler = Sampler(event.sample_rate, event.steps)
        noise = least_noise_multiplier(headroom, sampler, rounds)
        if noise is not None:
            fitting += (
                f", or {rounds} with noise multiplier {_rounded_up(noise)} instead of "
                f"{event.noise_multiplier:.4g}"
            )
    return (
        f"The largest run that would fit: {fitting}; fmfl-secure ledger afford lists more. Or have "
        "the data owner grant more."
    )


def _count(rounds: int) -> str:
    return "1 round" if rounds == 1 else f"{rounds} rounds"


def _rounded_up(value: float) -> float:
    return math.ceil(value * 1000.0) / 1000.0


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value
