"""Who shares a mask with whom: all pairs in a small cohort, a k-regular graph in a large one.

Masks cancel for any graph. What the graph decides is how many sites must collude to see more than
the sum over all honest sites: if the honest sites form one connected piece, whoever knows every
other site's secrets still sees those of the honest ones only summed (Bell et al., CCS 2020,
eprint 2020/704, Lemma 3.1). All pairs are connected whoever colludes. With a thousand sites they
cost a thousand streams each; there the sites stand on a ring, in an order drawn from the
transcript, and share masks with the k / 2 next on either side (their Harary graph).

Bound. Two honest sites that follow one another on the ring are neighbours unless k / 2 or more
colluding ones stand between them. One such gap leaves a path, so to fall into pieces the honest
sites need two. Two disjoint runs of k / 2 places, all colluding, have probability at most

    C(n, 2) C(n - k, c - k) / C(n, c)

for c colluding sites of n, in places they did not choose; none if c < k. The order comes from a
hash that the coordinator and the last site to announce its key can try again: a factor of 2^40
is set aside for that. Nobody drops out between masking and opening in this protocol (the attempt
ends instead), so no further honest site is lost.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from aggregation.errors import ParameterError

ALL_PAIRS_UP_TO: Final = 32  # sites
COLLUDING_SHARE: Final = 0.5  # of a larger cohort, together with aggregator and decryptor
LOG2_GRINDING: Final = 40  # transcripts an adversary may try
LOG2_FAILURE_LIMIT: Final = -40

_DOMAIN: Final = b"fmfl-secure/aggregation/v1/graph"


def log2_failure(sites: int, degree: int, colluding: int) -> float:
    """Bound log2 of the probability that the honest sites fall into pieces.

    Args:
        sites: Size n of the cohort.
        degree: Even number k of neighbours of each, or n - 1 for all pairs.
        colluding: Sites c that pool what they know; their places are not theirs to choose.

    Returns:
        At most 0; -inf where it cannot happen.

    Raises:
        ParameterError: A degree no such graph has, or more colluding sites than there are.
    """
    if not 0 <= colluding <= sites:
        raise ParameterError(f"{colluding} colluding sites of {sites} are not possible")
    if degree == sites - 1:
        return -math.inf
    if degree % 2 or not 2 <= degree < sites:
        raise ParameterError(f"degree {degree} is not an even number from 2 to {sites - 1}")
    if colluding < degree:
        return -math.inf
    runs = _log2_choose(sites, 2)
    placed = _log2_choose(sites - degree, colluding - degree) - _log2_choose(sites, colluding)
    return min(0.0, runs + placed)


@lru_cache(maxsize=64)
def degree(sites: int) -> int:
    """Neighbours of each site: all others, or the fewest that meet the bound.

    With `COLLUDING_SHARE` of the sites colluding, the honest ones stay connected but with
    probability 2**-40, even for an adversary that tries 2**40 transcripts.
    """
    if sites <= ALL_PAIRS_UP_TO:
        return sites - 1
    colluding = int(sites * COLLUDING_SHARE)
    for even in range(2, sites - 1, 2):
        if log2_failure(sites, even, colluding) <= LOG2_FAILURE_LIMIT - LOG2_GRINDING:
            return even
    return sites - 1


@dataclass(frozen=True, slots=True)
class MaskGraph:
    """The graph of one attempt.

    Attributes:
        ring: Positions in the cohort, in the order of the ring.
        degree: Neighbours of each.
    """

    ring: tuple[int, ...]
    degree: int

    @classmethod
    def of(cls, sites: int, transcript: bytes) -> MaskGraph:
        """The graph that everybody derives from a transcript."""
        return cls(_ring(sites, transcript), degree(sites))

    def initiates(self, index: int) -> tuple[int, ...]:
        """Neighbours that `index` sends key material to: half of each site's pairs."""
        sites = len(self.ring)
        own = self.ring.index(index)
        after = [self.ring[(own + step) % sites] for step in range(1, self.degree // 2 + 1)]
        # All pairs of an even cohort: half of the sites reach across the ring.
        if self.degree % 2 and own < sites // 2:
            after.append(self.ring[own + sites // 2])
        return tuple(sorted(after))

    def neighbours(self, index: int) -> tuple[int, ...]:
        """Sites that `index` shares masks with, in cohort order."""
        sites = len(self.ring)
        own = self.ring.index(index)
        if self.degree == sites - 1:
            return tuple(j for j in range(sites) if j != index)
        steps = range(1, self.degree // 2 + 1)
        near = {self.ring[(own + sign * step) % sites] for step in steps for sign in (1, -1)}
        return tuple(sorted(near))


@lru_cache(maxsize=16)
def _ring(sites: int, transcript: bytes) -> tuple[int, ...]:
    def place(index: int) -> bytes:
        return hashlib.sha256(_DOMAIN + transcript + index.to_bytes(4, "big")).digest()

    return tuple(sorted(range(sites), key=place))


def _log2_choose(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
