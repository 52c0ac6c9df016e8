"""Charges to a grant: so many times an event, at its RDP cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from privacy.accounting.events import Event, parse_event, seen_by_sites
from privacy.accounting.rdp import RdpCost, rdp_cost
from privacy.errors import LedgerDamaged
from privacy.ledger.grants import Grant
from privacy.ledger.record_values import whole

# A library update may move a recomputed cost by rounding; more means the record was forged.
COST_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Cost:
    """The RDP cost of one event at a filter's orders, as recorded and as it counts now.

    Attributes:
        recorded: By order, in RDP_UNIT, as it was recorded; None is infinite.
        counted: What counts from now on: the recorded cost, or today's where that is more.
    """

    recorded: RdpCost
    counted: RdpCost

    @classmethod
    def of(cls, event: Event, orders: tuple[int, ...]) -> Cost:
        """Computes what an event costs at `orders` by today's accountant."""
        cost = rdp_cost(event, orders)
        return cls(cost, cost)

    def body(self) -> dict[str, int | None]:
        """Returns the recorded cost as a record's JSON object, by order."""
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
        """Returns the charge as a record's JSON object."""
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
        """Reads the JSON object that `body` gave, against the grants so far."""
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
