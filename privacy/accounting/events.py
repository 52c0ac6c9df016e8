"""Immutable events: how data were used, in a form whose meaning never changes.

An event is what a ledger stores and what every accountant here reads. Its canonical form holds
floats as `float.hex()`, so that a cost computed from it years later is the same cost, bit for
bit. A kind that is not known is refused: it cannot be accounted.

A plan makes the event (`mechanism.distributed`, `mechanism.plan`), the ledger stores it, and
`accounting.rdp` computes its cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from privacy.errors import PlanError


@dataclass(frozen=True, slots=True)
class PoissonSampledGaussian:
    """`steps` releases of a Gaussian mechanism on independently Poisson-sampled units.

    Each step includes every unit with probability `sample_rate`, sums vectors of L2 norm at
    most C, and adds N(0, (noise_multiplier * C)^2) to every coordinate. Neighbouring relation:
    add or remove one unit.

    Attributes:
        sample_rate: Inclusion probability q, 0 < q <= 1.
        noise_multiplier: Noise standard deviation over C, > 0.
        steps: Number of steps, >= 1.
    """

    sample_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0.0 < self.sample_rate <= 1.0:
            raise PlanError(f"sample_rate is {self.sample_rate}, expected 0 < q <= 1")
        if not (self.noise_multiplier > 0.0 and math.isfinite(self.noise_multiplier)):
            raise PlanError(f"noise_multiplier is {self.noise_multiplier}, expected > 0")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise PlanError(f"steps is {self.steps}, expected a whole number, at least 1")

    def canonical(self) -> dict[str, Any]:
        """The event as JSON-ready data, floats exact."""
        return {
            "kind": "poisson-sampled-gaussian",
            "sample_rate": float(self.sample_rate).hex(),
            "noise_multiplier": float(self.noise_multiplier).hex(),
            "steps": self.steps,
        }


@dataclass(frozen=True, slots=True)
class PoissonSampledSkellam:
    """`steps` releases of a sum that carries Skellam noise in shares, one from each site.

    Each step includes every unit with probability `sample_rate`; one unit moves the integer sum
    by a vector within the norms below, except with probability `failure_probability`. Whoever
    sees released sums only faces the noise of all honest sites, `variance` on each coordinate;
    whoever knows every other site's part faces `own_variance`. Neighbouring relation: add or
    remove one unit. Source: `docs/distributed-noise.md`.

    Attributes:
        sample_rate: Inclusion probability q, 0 < q <= 1.
        squared_l2: Bound on a shift's squared L2 norm, whole, >= 1.
        l1: Bound on its L1 norm, whole, >= 1.
        variance: Of the honest sites' noise together, whole.
        own_variance: Of this site's share alone, 1 <= own_variance <= variance.
        failure_probability: Added to delta by each step, 0 <= p < 1.
        steps: Number of steps, >= 1.
    """

    sample_rate: float
    squared_l2: int
    l1: int
    variance: int
    own_variance: int
    failure_probability: float
    steps: int

    def __post_init__(self) -> None:
        if not 0.0 < self.sample_rate <= 1.0:
            raise PlanError(f"sample_rate is {self.sample_rate}, expected 0 < q <= 1")
        if not 0.0 <= self.failure_probability < 1.0:
            raise PlanError(f"failure_probability is {self.failure_probability}, not in [0, 1)")
        for name in ("squared_l2", "l1", "variance", "own_variance", "steps"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise PlanError(f"{name} is {value}, expected a whole number, at least 1")
        if self.own_variance > self.variance:
            raise PlanError(
                f"own_variance {self.own_variance} is above variance {self.variance}, of which it "
                "is a part"
            )

    @property
    def noise_multiplier(self) -> float:
        """Deviation of the honest sites' noise over what one unit moves, as of a Gaussian."""
        return math.sqrt(self.variance / self.squared_l2)

    def seen_by_sites(self) -> PoissonSampledSkellam:
        """The same event to all other sites together: this site's own share protects alone."""
        return replace(self, variance=self.own_variance)

    def canonical(self) -> dict[str, Any]:
        """The event as JSON-ready data, floats exact."""
        return {
            "kind": "poisson-sampled-skellam",
            "sample_rate": float(self.sample_rate).hex(),
            "squared_l2": self.squared_l2,
            "l1": self.l1,
            "variance": self.variance,
            "own_variance": self.own_variance,
            "failure_probability": float(self.failure_probability).hex(),
            "steps": self.steps,
        }


@dataclass(frozen=True, slots=True)
class NonPrivate:
    """Data were, or may have been, used without a known mechanism: an infinite cost.

    Attributes:
        reason: What was done, for whoever reads the ledger.
    """

    reason: str

    def canonical(self) -> dict[str, Any]:
        """The event as JSON-ready data."""
        return {"kind": "non-private", "reason": self.reason}


Event = PoissonSampledGaussian | PoissonSampledSkellam | NonPrivate


def seen_by_sites(event: Event) -> Event:
    """The event as all other sites of the federation together face it."""
    return event.seen_by_sites() if isinstance(event, PoissonSampledSkellam) else event


def failure_of(event: Event) -> Fraction:
    """Probability, exact, that an event's divergences do not hold: what it adds to delta."""
    if isinstance(event, PoissonSampledSkellam):
        return event.steps * Fraction(event.failure_probability)
    return Fraction(0)


def repeated(event: Event, times: int) -> Event:
    """So many of an event as one event."""
    if isinstance(event, NonPrivate):
        return event
    return replace(event, steps=event.steps * times)


def parse_event(data: Any) -> Event:
    """Read an event from its canonical form.

    Raises:
        PlanError: The kind is unknown or a field is missing, malformed or too much.
    """
    try:
        fields = dict(data)
        kind = fields.pop("kind")
        if kind == "poisson-sampled-gaussian":
            event: Event = PoissonSampledGaussian(
                sample_rate=float.fromhex(fields.pop("sample_rate")),
                noise_multiplier=float.fromhex(fields.pop("noise_multiplier")),
                steps=fields.pop("steps"),
            )
        elif kind == "poisson-sampled-skellam":
            event = PoissonSampledSkellam(
                sample_rate=float.fromhex(fields.pop("sample_rate")),
                squared_l2=fields.pop("squared_l2"),
                l1=fields.pop("l1"),
                variance=fields.pop("variance"),
                own_variance=fields.pop("own_variance"),
                failure_probability=float.fromhex(fields.pop("failure_probability")),
                steps=fields.pop("steps"),
            )
        elif kind == "non-private":
            event = NonPrivate(reason=str(fields.pop("reason")))
        else:
            raise PlanError(f"event kind {kind!r} is unknown, so its cost is unknown")
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise PlanError(f"malformed event: {error!r}") from error
    if fields:
        raise PlanError(f"event of kind {kind!r} has unknown fields {sorted(fields)}")
    if event.canonical() != data:
        raise PlanError(f"event of kind {kind!r} is not in canonical form")
    return event
