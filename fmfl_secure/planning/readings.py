"""Reads how far a gradient stands out from its noise, in one step and over a run.

With the mean gradient of length s over d numbers, and noise of deviation n on each, the
signal-to-noise ratio of a step is r = s / (n sqrt(d)); over T steps the signal adds up T-fold and
the noise sqrt(T)-fold. How long single numbers are nobody knows beforehand; spread as a normal
law has it, a share erfc(1 / (sqrt(2) r)) of them is longer than its noise: a third at r = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from fmfl_secure.planning.noise import noise_of
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.noise import NOISE
from privacy import DistributedPlan, PlanError

UNLIMITED = 1e9  # what the other sites may learn, where only the figure is asked for


@dataclass(frozen=True, slots=True)
class Signal:
    """Lengths of the mean clipped gradient, over C.

    Attributes:
        head: Of the head's part.
        adapter: Of the adapter's; 0 where there is none.
        head_size: Trained numbers of the head.
        adapter_size: The same of the adapter.
    """

    head: float
    adapter: float
    head_size: int
    adapter_size: int


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise that settings add to a step, and for how many steps.

    Attributes:
        deviation: On each number of the mean gradient, over C.
        steps: Of the run.
        insider_epsilon: What all other sites together may learn; None where each has its own noise.
    """

    deviation: float
    steps: int
    insider_epsilon: float | None = None


def noise_in(config: FederationConfig, size: int) -> Noise:
    """Computes the noise that these settings add to a step.

    Args:
        config: The settings, with privacy.
        size: Trained numbers.

    Raises:
        PlanError: They cannot be met.
    """
    plan = site_plan(config, config.sites[0], size)
    if plan is None:
        raise PlanError("a run without privacy has no noise")
    return Noise(
        deviation=noise_of(config).noise_of_mean(config, plan),
        steps=config.federation.rounds * config.privacy.steps_per_round,
        insider_epsilon=plan.insider_epsilon() if isinstance(plan, DistributedPlan) else None,
    )


def with_noise(config: FederationConfig, name: str) -> FederationConfig:
    """The settings with another mechanism, steps at the server.

    Raises:
        ValueError: They do not go with it.
    """
    replace = msgspec.structs.replace
    shares = NOISE.get(name).in_shares
    return replace(
        config,
        privacy=replace(
            config.privacy,
            noise=name,
            insider_epsilon=UNLIMITED if shares else 0.0,
            accounting="filter" if shares else config.privacy.accounting,
        ),
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """An adapter's signal beside the noise.

    Attributes:
        kind: Of the adapter.
        signal: What to expect.
        noise: What is added.
    """

    kind: str
    signal: Signal
    noise: Noise

    @property
    def head(self) -> float:
        """Signal-to-noise ratio of the head in a step."""
        return _ratio(self.signal.head, self.signal.head_size, self.noise)

    @property
    def adapter(self) -> float:
        """Of the adapter in a step; 0 where there is none."""
        return _ratio(self.signal.adapter, self.signal.adapter_size, self.noise)

    @property
    def head_in_run(self) -> float:
        """Of the head over all steps."""
        return self.head * math.sqrt(self.noise.steps)

    @property
    def numbers(self) -> int:
        """Numbers trained, of head and adapter."""
        return self.signal.head_size + self.signal.adapter_size

    @property
    def above(self) -> int:
        """How many of them rise above their noise in a step."""
        head = self.signal.head_size * share_above(self.head)
        return round(head + self.signal.adapter_size * share_above(self.adapter))


def share_above(ratio: float) -> float:
    """The share of numbers longer than their noise, at a signal-to-noise ratio."""
    return math.erfc(1.0 / (math.sqrt(2.0) * ratio)) if ratio > 0.0 else 0.0


def _ratio(length: float, size: int, noise: Noise) -> float:
    return length / (noise.deviation * math.sqrt(size)) if size else 0.0
