"""A grant: the epsilon and delta that a custodian permits a population, and what became of it.

`ledger.custody` appends a grant with `body`; a replay reads it back with `parse` and makes the
`GrantStatus` that `cli.ledger` and reports show. An exact grant carries the `ExactTerms` of its
one run, and `ledger.admissions` holds that run to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from privacy.accounting.events import PoissonSampledGaussian, parse_event
from privacy.accounting.exact import renyi_epsilon, require_exact
from privacy.accounting.rdp import FAILURE_SHARE, epsilon_spent, filter_delta
from privacy.errors import LedgerDamaged
from privacy.ledger.decided import UNSAID, Decided
from privacy.ledger.record_values import check_orders, declared_size, text, whole
from privacy.limits import check_delta, check_epsilon


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
        """Returns the terms as a record's JSON object."""
        return {"event": self.event.canonical(), "rounds": self.rounds, "plan": self.plan}

    @classmethod
    def parse(cls, body: dict[str, Any]) -> ExactTerms:
        """Reads the JSON object that `body` gave."""
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
        decided: Why this epsilon, who decided it, and when to look again, as far as anybody said.
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
    decided: Decided = UNSAID

    @property
    def counted_delta(self) -> float:
        """The part of delta that a sum over grants counts: of exact ones, their cap's, and once."""
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
        """Returns the grant as a record's JSON object."""
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
        body |= self.decided.body()
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
            decided=Decided.parse(body),
        )
        # Only what makes no sense at all is damage; whether it affords anything: `standing`.
        check_epsilon(grant.epsilon, most=math.inf)
        check_delta(grant.delta)
        if grant.insider_epsilon is not None:
            check_epsilon(grant.insider_epsilon, "insider_epsilon", most=math.inf)
            if grant.insider_epsilon < grant.epsilon:
                raise LedgerDamaged("a grant allows other sites less than it allows everyone")
            check_orders(grant.insider_orders)
        elif grant.insider_orders:
            raise LedgerDamaged("a grant has orders for other sites and no epsilon for them")
        # Which orders they are is the grant's own affair: rho_max at delta / |A| makes the filter
        # sound at any that stood here before data were used.
        check_orders(grant.orders)
        return grant


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
        """The epsilon that `committed` converts to at the grant's delta."""
        if self.grant.exact is not None:
            return math.inf if self.begun is None else self.grant.spent_exactly(self.begun)
        return epsilon_spent(self.committed, self.grant.filter_delta)

    @property
    def epsilon_charged(self) -> float:
        """The epsilon that `charged` converts to; of an exact grant that holds a run, all of it."""
        if self.grant.exact is not None:
            return math.inf if self.held is None else self.grant.spent_exactly(self.held)
        return epsilon_spent(self.charged, self.grant.filter_delta)

    @property
    def insider_epsilon_committed(self) -> float | None:
        """The epsilon of `insider_committed`; None where the grant keeps no such filter."""
        if not self.insider_committed:
            return None
        return epsilon_spent(self.insider_committed, self.grant.filter_delta)

    @property
    def insider_epsilon_charged(self) -> float | None:
        """The epsilon of `insider_charged`; None where the grant keeps no such filter."""
        if not self.insider_charged:
            return None
        return epsilon_spent(self.insider_charged, self.grant.filter_delta)

    @property
    def epsilon_left(self) -> float:
        """Granted less charged epsilon, at least 0. Informative: the filter works on costs."""
        if not self.is_open:
            return 0.0
        return max(0.0, self.grant.epsilon - self.epsilon_charged)
