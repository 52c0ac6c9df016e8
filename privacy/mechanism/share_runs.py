"""Runs with distributed noise, as what can still be afforded is asked of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from privacy.accounting.events import PoissonSampledSkellam
from privacy.mechanism.distributed import DistributedPlan


@dataclass(frozen=True, slots=True)
class ShareRuns:
    """Runs like a plan's, of another noise and length, as a `RunKind` of `affordability`.

    The noise multiplier is that of the noise which counts against whoever sees released sums.

    Attributes:
        plan: Says all the rest. Repeats count as rounds here.
    """

    plan: DistributedPlan
    steps_per_round = 1

    @property
    def sample_rate(self) -> float:
        """Poisson inclusion probability of a unit at each step."""
        return self.plan.sample_rate

    def event(self, noise_multiplier: float, rounds: int = 1) -> PoissonSampledSkellam:
        """One step of a run of so many, with the least share that comes to this noise.

        Raises:
            PlanError: The share would be larger than any that is drawn.
        """
        plan = replace(self.plan, rounds=rounds, repeats=0)
        honest = plan.min_cohort - plan.colluding_sites
        share = math.ceil(noise_multiplier**2 * plan.squared_l2 / honest)
        return replace(plan, share_variance=max(share, 1)).round_event()

    def calibrated(self, epsilon: float, delta: float, rounds: int) -> PoissonSampledSkellam:
        """One step of the run that settings of this epsilon come to.

        Raises:
            PlanError: No noise meets that.
        """
        return self._calibrated(epsilon, delta, rounds).round_event()

    def insider_epsilon(self, epsilon: float, delta: float, rounds: int) -> float:
        """Returns the epsilon that a grant must allow all other sites together for those settings.

        Raises:
            PlanError: It is above 40.
        """
        return self._calibrated(epsilon, delta, rounds).insider_epsilon()

    def _calibrated(self, epsilon: float, delta: float, rounds: int) -> DistributedPlan:
        plan = self.plan
        return DistributedPlan.calibrated(
            unit=plan.unit,
            population=plan.population,
            largest_population=plan.largest_population,
            sample_rate=plan.sample_rate,
            max_grad_norm=plan.max_grad_norm,
            dimension=plan.dimension,
            min_cohort=plan.min_cohort,
            colluding_sites=plan.colluding_sites,
            rounds=rounds,
            repeats=0,
            epsilon=epsilon,
            delta=delta,
        )
