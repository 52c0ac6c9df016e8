"""What a ledger's records say, as values: grants, runs' reservations, charges, recoveries.

`parse` reads a record's body and trusts none of it: whatever is missing, malformed or impossible
raises, and `Budget.replay` makes that `LedgerDamaged`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from privacy.accounting import MAX_ORDER, RdpCost, check_epsilon_delta, rdp_cost
from privacy.datasets import Dataset
from privacy.errors import LedgerDamaged
from privacy.events import Event, parse_event

# A library update may move a recomputed cost by rounding; more means the record was forged.
COST_TOLERANCE = 1e-6


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
        )
        check_epsilon_delta(grant.epsilon, grant.delta)
        # Which orders they are is the grant's own affair: rho_max at delta / |A| makes the filter
        # sound at any that stood here before data were used.
        if not grant.orders or sorted(set(grant.orders)) != list(grant.orders):
            raise LedgerDamaged(f"a grant's orders are {grant.orders}, expected ascending ones")
        if not (grant.orders[0] >= 2 and grant.orders[-1] <= MAX_ORDER):
            raise LedgerDamaged(f"a grant's orders are {grant.orders}, expected 2 to {MAX_ORDER}")
        return grant


@dataclass(frozen=True, slots=True)
class Charge:
    """So many times an event, on one grant.

    Attributes:
        grant: Number of the grant.
        event: What is charged.
        rounds: How many times, at least 1.
        recorded: Cost of one by order, in RDP_UNIT, as it was recorded; None is infinite.
        cost: What counts from now on: the recorded cost, or today's where that is more.
    """

    grant: int
    event: Event
    rounds: int
    recorded: RdpCost = field(repr=False)
    cost: RdpCost = field(repr=False)

    @classmethod
    def of(cls, event: Event, rounds: int, grant: Grant) -> Charge:
        """A new charge on a grant, at today's cost."""
        cost = rdp_cost(event, grant.orders)
        return cls(grant.number, event, rounds, recorded=cost, cost=cost)

    def body(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "grant": self.grant,
            "event": self.event.canonical(),
            "rounds": self.rounds,
            "cost": {str(order): cost for order, cost in self.recorded.items()},
        }

    @classmethod
    def parse(cls, body: dict[str, Any], grants: list[Grant]) -> Charge:
        """Read what `body` gave."""
        number, rounds = whole(body["grant"]), whole(body["rounds"])
        if not 1 <= number <= len(grants):
            raise LedgerDamaged(f"grant {number} does not exist")
        if rounds < 1:  # fewer would take back what others spent
            raise LedgerDamaged(f"{rounds} rounds are charged, expected at least 1")
        event = parse_event(body["event"])
        recorded: dict[int, int | None] = {}
        counted: dict[int, int | None] = {}
        for order, computed in rdp_cost(event, grants[number - 1].orders).items():
            stored = body["cost"][str(order)]
            if computed is None or stored is None:
                if computed is not stored:
                    raise LedgerDamaged(f"the cost stored at order {order} is not the event's")
                recorded[order] = counted[order] = None
            elif abs(whole(stored) - computed) > COST_TOLERANCE * computed + 1:
                raise LedgerDamaged(f"the cost stored at order {order} is not the event's")
            else:
                recorded[order], counted[order] = stored, max(stored, computed)
        return cls(number, event, rounds, recorded=recorded, cost=counted)


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
        open: Whether it may still be committed against.
        evidence: What closed it: digest of the coordinator's signed end of the run.
    """

    run: str
    charge: Charge
    plan: str
    purpose: str
    at: str
    dataset: Dataset | None = None
    commits: list[tuple[int, str]] = field(default_factory=list)
    open: bool = True
    evidence: str = ""

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


def whole(value: object) -> int:
    """A whole number, and nothing that merely compares like one.

    Raises:
        TypeError: It is something else.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value
