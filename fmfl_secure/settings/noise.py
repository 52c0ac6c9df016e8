"""The noise mechanisms: what each protects, named once.

Everything that depends on a mechanism asks one of these for its properties. A name that none of
them has is refused, so that nothing treats an unknown mechanism like one that it knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from fmfl_secure.registry import Registry

NoiseName = Literal["local", "distributed", "none"]


@dataclass(frozen=True, slots=True)
class NoiseMechanism:
    """One way to make updates private, or none.

    Attributes:
        name: Its name in settings and records.
        private: It has an epsilon, which ledgers are charged.
        in_shares: Sites add shares of the noise, and the sum is private: what a site uploads is
            one clipped gradient on the grid of the plan, and the server takes the step.
    """

    name: NoiseName
    private: bool
    in_shares: bool


LOCAL: Final = NoiseMechanism("local", private=True, in_shares=False)
"""Every site's update is private by itself, and the server averages updates."""

DISTRIBUTED: Final = NoiseMechanism("distributed", private=True, in_shares=True)
"""The sum of a round is private as long as no more sites collude than assumed."""

NONE: Final = NoiseMechanism("none", private=False, in_shares=False)
"""No privacy: baselines on data declared public."""

NOISE: Final[Registry[NoiseMechanism]] = Registry("noise mechanism", (LOCAL, DISTRIBUTED, NONE))
