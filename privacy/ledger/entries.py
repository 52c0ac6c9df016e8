"""What a ledger's records say, as values: grants, runs' reservations, charges, recoveries.

`parse` reads a record's body and trusts none of it: whatever is missing, malformed or impossible
raises, and `Budget.replay` makes that `LedgerDamaged`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Any

from privacy.accounting.events import (
    Event,
    PoissonSampledGaussian,
    parse_event,
    seen_by_sites,
)
from privacy.accounting.exact import renyi_epsilon, require_exact
from privacy.accounting.rdp import (
    FAILURE_SHARE,
    MAX_ORDER,
    RdpCost,
    epsilon_spent,
    filter_delta,
    rdp_cost,
)
from privacy.errors import LedgerDamaged
from privacy.ledger.datasets import Dataset
from privacy.ledger.times import read_time
from privacy.limits import check_delta, check_epsilon, check_population_size

# A library update may move a recomputed cost by rounding; more means the record was forged.
COST_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class ExactTerms:
    """The one run that an exact grant is for, as it was fixed beforehand.

    Attributes:
        event: What one training does.
        rounds: Trainings, repeats included.
        plan: Digest of the plan that the run follows.
    """

    event: PoissonSampledGaussian
    rounds: int
    plan: str

    def body(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"event": self.event.canonical(), "rounds": self.rounds, "plan": self.plan}

    @classmethod
    def parse(cls, body: dict[str, Any]) -> ExactTerms:
        """Read what `body` gave."""
        terms = cls(
            require_exact(parse_event(body["event"])), whole(body["rounds"]), text(body["plan"])
        )
        if terms.rounds < 1 or terms.body() != body:
            raise LedgerDamaged("the terms of an exact grant are malformed")
        return terms


def _cap(given: Any) -> tuple[float, float]:
    epsilon, delta = (float.fromhex(each) for each in given)
    check_epsilon(epsilon)
    check_delta(delta)
    return epsilon, delta


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
        insider_epsilon: What all other sites together may learn besides, where shares of
            distributed noise are permitted; None permits none.
        insider_orders: The orders that is filtered at.
        population_size: Declared, rounded number of units; None in records of 0.1.0, and where
            an earlier grant of the ledger says it.
        delta_reason: Why delta, added to that of earlier grants, may be above
            1 / (10 population_size), in the granting person's words; empty where none was given.
        exact: What it is for, if it is for one run that was fixed beforehand.
        cap: Most epsilon and delta that all exact grants of the ledger may come to together, fixed
            by the first of them.
        lowered_from: What epsilon was, where it was lowered after trainings were charged.
        closed: Why nothing more may be reserved of it; empty while that is not so.
    """

    number: int
    epsilon: float
    delta: float
    orders: tuple[int, ...]
    purpose: str
    at: str
    insider_epsilon: float | None = None
    insider_orders: tuple[int, ...] = ()
    population_size: int | None = None
    delta_reason: str = ""
    lowered_from: float | None = None
    closed: str = ""
    exact: ExactTerms | None = None
    cap: tuple[float, float] | None = None

    @property
    def counted_delta(self) -> float:
        """What of delta a sum over grants counts: of exact ones, their cap's, and once."""
        if self.cap is not None:
            return self.cap[1]
        return 0.0 if self.exact else self.delta

    def spent_exactly(self, trainings: int) -> float:
        """Epsilon after so many trainings of an exact grant's run: a bound that is quick to have.

        The terms were fixed beforehand, so every order may be used, and the whole run's price
        bounds that of its beginning.
        """
        if self.exact is None or trainings == 0:
            return 0.0
        bound = renyi_epsilon(self.exact.event, trainings, self.delta)
        return min(bound, self.epsilon) if trainings <= self.exact.rounds else bound

    @property
    def pledged(self) -> float:
        """The epsilon that a guarantee counts it with.

        One that was lowered after trainings were charged to it keeps what it was: whoever lowered
        it may have done so for what these trainings released, and then only the larger amount was
        fixed beforehand.
        """
        return self.epsilon if self.lowered_from is None else self.lowered_from

    @property
    def filter_delta(self) -> float:
        """The part of delta that the filters convert at."""
        return self.delta if self.insider_epsilon is None else filter_delta(self.delta)

    @property
    def failures(self) -> Fraction:
        """The part of delta that distributed noise may fail with."""
        return Fraction(0 if self.insider_epsilon is None else self.delta * FAILURE_SHARE)

    def body(self) -> dict[str, Any]:
        """What a record says of it."""
        body: dict[str, Any] = {
            "grant": self.number,
            "epsilon": float(self.epsilon).hex(),
            "delta": float(self.delta).hex(),
            "orders": list(self.orders),
            "purpose": self.purpose,
        }
        if self.insider_epsilon is not None:
            body["insider_epsilon"] = float(self.insider_epsilon).hex()
            body["insider_orders"] = list(self.insider_orders)
        if self.population_size is not None:
            body["population_size"] = self.population_size
        if self.delta_reason:
            body["delta_reason"] = self.delta_reason
        if self.exact is not None:
            body["exact"] = self.exact.body()
        if self.cap is not None:
            body["cap"] = [each.hex() for each in self.cap]
        return body

    @classmethod
    def parse(cls, body: dict[str, Any], at: str) -> Grant:
        """Read the body of a `grant` record."""
        grant = cls(
            number=whole(body["grant"]),
            epsilon=float.fromhex(body["epsilon"]),
            delta=float.fromhex(body["delta"]),
            orders=tuple(whole(order) for order in body["orders"]),
            purpose=str(body["purpose"]),
            at=at,
            insider_epsilon=(
                float.fromhex(body["insider_epsilon"]) if "insider_epsilon" in body else None
            ),
            insider_orders=tuple(whole(order) for order in body.get("insider_orders", ())),
            population_size=declared_size(body),
            delta_reason=text(body.get("delta_reason", "")).strip(),
            exact=ExactTerms.parse(body["exact"]) if "exact" in body else None,
            cap=_cap(body["cap"]) if "cap" in body else None,
        )
        # Only what makes no sense at all is damage; whether it affords anything: `standing`.
        check_epsilon(grant.epsilon, most=math.inf)
        check_delta(grant.delta)
        if grant.insider_epsilon is not None:
            check_epsilon(grant.insider_epsilon, "insider_epsilon", most=math.inf)
            if grant.insider_epsilon < grant.epsilon:
                raise LedgerDamaged("a grant allows other sites less than it allows everyone")
            _check_orders(grant.insider_orders)
        elif grant.insider_orders:
            raise LedgerDamaged("a grant has orders for other sites and no epsilon for them")
        # Which orders they are is the grant's own affair: rho_max at delta / |A| makes the filter
        # sound at any that stood here before data were used.
        _check_orders(grant.orders)
        return grant


def declared_size(body: dict[str, Any]) -> int | None:
    """The population size that a record declares; None if it declares none.

    Raises:
        PlanError: It is no size.
    """
    if "population_size" not in body:
        return None
    size: int = body["population_size"]
    check_population_size(size)
    return size


def text(value: object) -> str:
    """A text, and nothing that merely prints as one.

    Raises:
        LedgerDamaged: It is something else.
    """
    if not isinstance(value, str):
        raise LedgerDamaged(f"{value!r} is not a text")
    return value


def read_orders(given: Iterable[object]) -> tuple[int, ...]:
    """Orders as a record has them, or none.

    Raises:
        LedgerDamaged, TypeError: They are not ascending whole numbers of the filter's range.
    """
    orders = tuple(whole(order) for order in given)
    if orders:
        _check_orders(orders)
    return orders


def _check_orders(orders: tuple[int, ...]) -> None:
    if not orders or sorted(set(orders)) != list(orders):
        raise LedgerDamaged(f"a grant's orders are {orders}, expected ascending ones")
    if not (orders[0] >= 2 and orders[-1] <= MAX_ORDER):
        raise LedgerDamaged(f"a grant's orders are {orders}, expected 2 to {MAX_ORDER}")


@dataclass(frozen=True, slots=True)
class Cost:
    """What an event costs at a filter's orders.

    Attributes:
        recorded: By order, in RDP_UNIT, as it was recorded; None is infinite.
        counted: What counts from now on: the recorded cost, or today's where that is more.
    """

    recorded: RdpCost
    counted: RdpCost

    @classmethod
    def of(cls, event: Event, orders: tuple[int, ...]) -> Cost:
        """Today's."""
        cost = rdp_cost(event, orders)
        return cls(cost, cost)

    def body(self) -> dict[str, int | None]:
        """What a record says of it."""
        return {str(order): cost for order, cost in self.recorded.items()}

    @classmethod
    def parse(cls, body: dict[str, Any], event: Event, orders: tuple[int, ...]) -> Cost:
        """Read what `body` gave, and hold it against today's."""
        recorded: dict[int, int | None] = {}
        counted: dict[int, int | None] = {}
        for order, computed in rdp_cost(event, orders).items():
            stored = body[str(order)]
            if computed is None or stored is None:
                if computed is not stored:
                    raise LedgerDamaged(f"the cost stored at order {order} is not the event's")
                recorded[order] = counted[order] = None
            elif abs(whole(stored) - computed) > COST_TOLERANCE * computed + 1:
                raise LedgerDamaged(f"the cost stored at order {order} is not the event's")
            else:
                recorded[order], counted[order] = stored, max(stored, computed)
        return cls(recorded, counted)


@dataclass(frozen=True, slots=True)
class Charge:
    """So many times an event, on one grant.

    Attributes:
        grant: Number of the grant.
        event: What is charged.
        rounds: How many times, at least 1.
        cost: Of one, to everyone who sees what is released.
        insider_cost: Of one, to all other sites together; empty where the grant keeps no such
            filter.
    """

    grant: int
    event: Event
    rounds: int
    cost: Cost = field(repr=False)
    insider_cost: Cost = field(repr=False)

    @classmethod
    def of(cls, event: Event, rounds: int, grant: Grant) -> Charge:
        """A new charge on a grant, at today's cost."""
        return cls(
            grant.number,
            event,
            rounds,
            Cost.of(event, grant.orders),
            Cost.of(seen_by_sites(event), grant.insider_orders),
        )

    def body(self) -> dict[str, Any]:
        """What a record says of it."""
        body: dict[str, Any] = {
            "grant": self.grant,
            "event": self.event.canonical(),
            "rounds": self.rounds,
            "cost": self.cost.body(),
        }
        if self.insider_cost.recorded:
            body["insider_cost"] = self.insider_cost.body()
        return body

    @classmethod
    def parse(cls, body: dict[str, Any], grants: list[Grant]) -> Charge:
        """Read what `body` gave."""
        number, rounds = whole(body["grant"]), whole(body["rounds"])
        if not 1 <= number <= len(grants):
            raise LedgerDamaged(f"grant {number} does not exist")
        if rounds < 1:  # fewer would take back what others spent
            raise LedgerDamaged(f"{rounds} rounds are charged, expected at least 1")
        event, grant = parse_event(body["event"]), grants[number - 1]
        return cls(
            number,
            event,
            rounds,
            Cost.parse(body["cost"], event, grant.orders),
            Cost.parse(body.get("insider_cost", {}), seen_by_sites(event), grant.insider_orders),
        )


@dataclass(slots=True)
class Reservation:
    """A run's hold on a grant.

    Attributes:
        run: Run id.
        charge: The worst case that is held, and the grant it is held against.
        plan: Digest of the privacy plan and the training it belongs to.
        purpose: What the run is for.
        at: UTC time of the record.
        commits: Round number and UTC time of each training begun, in order.
        dataset: The data set it named; None if it named none.
        population_size: Declared, rounded number of units; None in records of 0.1.0.
        expires: UTC time from which nothing is committed against it; empty in records of versions
            whose reservations never expired.
        call: Digest of the coordinator's signed call to the run; empty where there was none.
        signer: Which identity reserved, as `privacy.ledger.signers` names it.
        open: Whether it may still be committed against.
        evidence: What closed it: digest of the coordinator's signed end of the run.
        released: Why its owner closed it, or that it expired; empty for any other end.
    """

    run: str
    charge: Charge
    plan: str
    purpose: str
    at: str
    dataset: Dataset | None = None
    population_size: int | None = None
    expires: str = ""
    call: str = ""
    signer: str = ""
    commits: list[tuple[int, str]] = field(default_factory=list)
    open: bool = True
    evidence: str = ""
    released: str = ""

    @property
    def grant(self) -> int:
        """Number of the grant it is charged to."""
        return self.charge.grant

    @property
    def event(self) -> Event:
        """What one round does."""
        return self.charge.event

    @property
    def rounds(self) -> int:
        """Trainings reserved, repeats included."""
        return self.charge.rounds

    def has_expired(self, now: datetime) -> bool:
        """Whether it is open, and its time is over."""
        return self.open and bool(self.expires) and now >= read_time(self.expires)

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
    """One training that began, or one charge for a lost history, and where it left its grant.

    Attributes:
        run: Run id; empty for a lost history.
        round: Round number; 0 for a lost history.
        grant: Number of the grant.
        epsilon: Epsilon of all that was spent of this grant so far, this included.
        at: UTC time of the record.
    """

    run: str
    round: int
    grant: int
    epsilon: float
    at: str


@dataclass(frozen=True, slots=True)
class Recovery:
    """What an officer recorded of a history that the ledger lost.

    Attributes:
        heads: Heads that others kept of the lost history, `SEQUENCE:DIGEST`.
        charges: What is charged for it.
        reason: In the officer's words.
        at: UTC time of the record.
    """

    heads: tuple[str, ...]
    charges: tuple[Charge, ...]
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class GrantStatus:
    """A grant and what has become of it.

    Attributes:
        grant: The grant.
        committed: Renyi cost by order of trainings begun, in RDP_UNIT; None is infinite.
        charged: The same with open reservations in full.
        insider_committed: What `committed` is to all other sites together; empty where the grant
            keeps no such filter.
        insider_charged: The same of `charged`.
        failures: Probability that distributed noise, open reservations included, failed.
        objection: Why the grant affords nothing, whatever is left of it; empty where it stands.
        is_charged: Whether anything counts against it, trainings, reservations or what was lost.
        begun: Of an exact grant, trainings begun or charged as lost; None is without a bound.
        held: The same with an open reservation in full.
        is_used: Whether an exact grant's one reservation was made.
    """

    grant: Grant
    committed: dict[int, int | None]
    charged: dict[int, int | None]
    insider_committed: dict[int, int | None]
    insider_charged: dict[int, int | None]
    failures: Fraction
    objection: str = ""
    is_charged: bool = False
    begun: int | None = 0
    held: int | None = 0
    is_used: bool = False

    @property
    def counts(self) -> bool:
        """Whether it is part of what the ledger guarantees: it stands, or something is charged."""
        return self.is_charged or self.is_open

    @property
    def is_open(self) -> bool:
        """Whether anything may still be reserved of it, if enough is left."""
        return not (self.objection or self.grant.closed or self.is_used)

    @property
    def epsilon_committed(self) -> float:
        """What `committed` converts to at the grant's delta."""
        if self.grant.exact is not None:
            return math.inf if self.begun is None else self.grant.spent_exactly(self.begun)
        return epsilon_spent(self.committed, self.grant.filter_delta)

    @property
    def epsilon_charged(self) -> float:
        """What `charged` converts to; of an exact grant that holds a run, all of it."""
        if self.grant.exact is not None:
            return math.inf if self.held is None else self.grant.spent_exactly(self.held)
        return epsilon_spent(self.charged, self.grant.filter_delta)

    @property
    def insider_epsilon_committed(self) -> float | None:
        """What `insider_committed` converts to; None where the grant keeps no such filter."""
        if not self.insider_committed:
            return None
        return epsilon_spent(self.insider_committed, self.grant.filter_delta)

    @property
    def insider_epsilon_charged(self) -> float | None:
        """What `insider_charged` converts to; None where the grant keeps no such filter."""
        if not self.insider_charged:
            return None
        return epsilon_spent(self.insider_charged, self.grant.filter_delta)

    @property
    def epsilon_left(self) -> float:
        """Granted less charged epsilon, at least 0. Informative: the filter works on costs."""
        if not self.is_open:
            return 0.0
        return max(0.0, self.grant.epsilon - self.epsilon_charged)


def whole(value: object) -> int:
    """A whole number, and nothing that merely compares like one.

    Raises:
        TypeError: It is something else.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value
