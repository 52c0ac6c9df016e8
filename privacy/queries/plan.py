"""One frozen plan of a release: what is summed, what is added to it, and what that costs.

No unit is left out by chance: a query sees all of them, so its events have `sample_rate` 1.
`docs/private-answers.md` has statements and proofs.

`planning.noise` calibrates a `QueryPlan` to what answers may cost, and `queries.protected_sum`
adds the plan's noise to a site's sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privacy.accounting.events import PoissonSampledGaussian, PoissonSampledSkellam
from privacy.accounting.exact import exact_noise_multiplier
from privacy.accounting.rdp import calibrate_noise_multiplier, filter_orders
from privacy.errors import PlanError
from privacy.limits import check_delta, check_epsilon, check_population_delta, check_population_size
from privacy.mechanism.rounding import MAX_CLAMP, squared_sensitivity
from privacy.mechanism.share_budget import MAX_EPSILON, fits_alone, insider_epsilon
from privacy.mechanism.skellam import MAX_VARIANCE, support_of
from privacy.queries.query import PROJECTION_TOLERANCE, Query, Release

# A unit's vector is so many steps long, and at least 5 sqrt(d): rounding then adds about 1 % to the
# squared sensitivity, as in training with distributed noise. Fewer where a site's sum would not fit
# into `MAX_CLAMP` steps; what rounding adds then is in the event all the same.
_FINENESS = 5.0
_LEAST_STEPS = 1000.0
# A site's sum is clamped at this many times its declared population: nobody is cut off unless the
# declaration is far too low, and then it costs accuracy, never privacy.
_CLAMP_UNITS = 2
_BOUND = 1.0 + PROJECTION_TOLERANCE  # of a unit's joint vector
_ROUNDING_DELTA_SHARE = 2.0**-16
_SAMPLER_FAILURE = 2.0**-60
# Gaussian noise is clamped with the sum, at so many deviations beyond what the units can reach.
_CLAMP_DEVIATIONS = 12.0


@dataclass(frozen=True, slots=True)
class GaussianNoise:
    """Each site's own: its vector is private alone, whoever else conspires.

    Attributes:
        noise_multiplier: Deviation over the bound on a unit's joint vector, > 0.
    """

    noise_multiplier: float


@dataclass(frozen=True, slots=True)
class SkellamShares:
    """A share from every site: the sum of a cohort is private, and one site's vector less so.

    Attributes:
        min_cohort: Smallest number m of sites whose sum is opened, >= 2.
        colluding_sites: How many sites c may give their share away, 0 <= c < m.
        share_variance: Of a share, in squared steps, whole, >= 1.
    """

    min_cohort: int
    colluding_sites: int
    share_variance: int

    def __post_init__(self) -> None:
        for name, least, most in (
            ("min_cohort", 2, 1 << 10),
            ("colluding_sites", 0, self.min_cohort - 1),
            ("share_variance", 1, MAX_VARIANCE),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise PlanError(f"{name} is {value}, expected a whole number, {least} to {most}")


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """One site's part in a release: the queries, their noise, how often, and delta.

    Attributes:
        unit: What one 'person' is: `record`, or the name of a column that identifies units.
        population: Declared, rounded number of units at the site.
        release: What is asked.
        noise: What is added.
        answers: How often it is asked, each a round, >= 1.
        repeats: Answers that may be computed again after a crash, charged in advance.
        delta: Target delta, at most 1 / (10 population).
    """

    unit: str
    population: int
    release: Release
    noise: GaussianNoise | SkellamShares
    answers: int
    repeats: int
    delta: float

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_population_size(self.population, "population")
        if not self.unit:
            raise PlanError("unit is empty, expected 'record' or a column name")
        for name, least in (("answers", 1), ("repeats", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise PlanError(f"{name} is {value}, expected a whole number, at least {least}")
        check_population_delta(self.delta, self.population)
        self.event()

    @classmethod
    def local(
        cls,
        release: Release,
        *,
        unit: str,
        population: int,
        epsilon: float,
        delta: float,
        answers: int = 1,
        repeats: int = 0,
        exact: bool = False,
    ) -> QueryPlan:
        """The plan with the least noise of each site's own whose worst case is epsilon at delta.

        Args:
            release: What is asked.
            unit: What one 'person' is.
            population: Declared, rounded number of units.
            epsilon: Of all answers and repeats.
            delta: At this delta.
            answers: How often it is asked.
            repeats: Answers that may be computed again.
            exact: For an exact grant of these answers alone, in place of the filter of any.

        Raises:
            PlanError: A value is out of range or the target cannot be met.
        """
        least = exact_noise_multiplier if exact else calibrate_noise_multiplier
        noise = GaussianNoise(
            least(epsilon=epsilon, delta=delta, sample_rate=1.0, steps=answers + repeats)
        )
        return cls(unit, population, release, noise, answers, repeats, delta)

    @classmethod
    def distributed(
        cls,
        release: Release,
        *,
        unit: str,
        population: int,
        min_cohort: int,
        colluding_sites: int,
        epsilon: float,
        delta: float,
        answers: int = 1,
        repeats: int = 0,
    ) -> QueryPlan:
        """The plan with the smallest shares whose worst case is epsilon at delta.

        Epsilon is that of whoever sees released sums, up to 40; `insider_epsilon` is the other
        figure.

        Raises:
            PlanError: A value is out of range or the target cannot be met.
        """
        check_epsilon(epsilon, most=MAX_EPSILON)
        orders = filter_orders(epsilon, delta)

        def plan(shares: SkellamShares) -> QueryPlan:
            return cls(unit, population, release, shares, answers, repeats, delta)

        def share(variance: int) -> SkellamShares:
            return SkellamShares(min_cohort, colluding_sites, variance)

        base = plan(share(1))

        def passes(variance: int) -> bool:
            event = base._shares_event(share(variance))
            return fits_alone(event, answers + repeats, orders, epsilon, delta)

        low, high = 0, 1
        while not passes(high):
            low, high = high, high * 2
            if high > MAX_VARIANCE:
                raise PlanError(f"no share up to variance {MAX_VARIANCE} gives epsilon {epsilon}")
        while high - low > max(1, low >> 20):
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle) else (middle, high)
        return plan(share(high))

    @property
    def granularity(self) -> float:
        """Size of a step of the integers that are summed, in units of the joint vector."""
        steps = max(_LEAST_STEPS, _FINENESS * math.sqrt(self.release.dimension))
        return max(_BOUND / steps, self._reach / MAX_CLAMP)

    @property
    def clamp(self) -> int:
        """Largest absolute integer of a site's sum before shares are added."""
        return min(MAX_CLAMP, math.ceil(self._reach / self.granularity))

    @property
    def largest_value(self) -> int:
        """Largest absolute integer that can leave a site, noise included."""
        if isinstance(self.noise, SkellamShares):
            return self.clamp + support_of(self.noise.share_variance)
        return self.clamp + math.ceil(_CLAMP_DEVIATIONS * self.noise_stddev / self.granularity)

    @property
    def bits(self) -> int:
        """Bits of a packed value, its sign included, so that nothing wraps."""
        return self.largest_value.bit_length() + 1

    @property
    def noise_stddev(self) -> float:
        """Deviation of the noise that one site adds to each cell of its joint vector."""
        if isinstance(self.noise, SkellamShares):
            return math.sqrt(self.noise.share_variance) * self.granularity
        return self.noise.noise_multiplier * _BOUND

    def answer_stddev(self, query: Query, cohort: int) -> float:
        """Deviation of the noise in each cell of a query's answer over so many sites.

        The error of rounding is not in it: at most half a step times the square root of the
        cohort.
        """
        return self.noise_stddev * math.sqrt(cohort) / self.release.scale(query)

    def event(self) -> PoissonSampledGaussian | PoissonSampledSkellam:
        """Returns the event of one answer, for ledger and accountants."""
        if isinstance(self.noise, GaussianNoise):
            return PoissonSampledGaussian(1.0, self.noise.noise_multiplier, 1)
        return self._shares_event(self.noise)

    def _shares_event(self, noise: SkellamShares) -> PoissonSampledSkellam:
        squared_l2, failure = self._moved
        dimension = self.release.dimension
        return PoissonSampledSkellam(
            sample_rate=1.0,
            squared_l2=squared_l2,
            l1=min(squared_l2, math.isqrt(dimension * squared_l2) + 1),
            variance=(noise.min_cohort - noise.colluding_sites) * noise.share_variance,
            own_variance=noise.share_variance,
            failure_probability=failure + _SAMPLER_FAILURE,
            steps=1,
        )

    def insider_epsilon(self) -> float:
        """Returns the epsilon, in whole tenths, that a grant must allow all other sites together.

        Raises:
            PlanError: It is above 40.
        """
        if isinstance(self.noise, GaussianNoise):
            raise PlanError("noise of each site's own has one figure, and no second")
        return insider_epsilon(
            self._shares_event(self.noise),
            self.answers + self.repeats,
            self.delta,
            hint="Ask less often, or with more colluding_sites, or a smaller epsilon.",
        )

    @property
    def _reach(self) -> float:
        return _CLAMP_UNITS * self.population * _BOUND

    @property
    def _moved(self) -> tuple[int, float]:
        """The squared distance that one unit moves the integers, and the odds of more."""
        beta = self.delta * _ROUNDING_DELTA_SHARE / (self.answers + self.repeats)
        norm = _BOUND / self.granularity
        return math.ceil(squared_sensitivity(norm, self.release.dimension, beta)), beta
