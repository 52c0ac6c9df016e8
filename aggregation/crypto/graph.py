"""Who shares a mask with whom: all pairs, or in a very large cohort whom each chooses.

Masks cancel for any graph. What the graph decides is how many sites must collude to see more than
the sum over all honest sites: if the honest sites form one connected piece, whoever knows every
other site's secrets still sees those of the honest ones only summed (Bell et al., CCS 2020,
eprint 2020/704, Lemma 3.1). All pairs are connected whoever colludes, and cost a stream for each
other site; up to `ALL_PAIRS_UP_TO` sites that is what is done.

Above, nothing that anybody can try again decides who is whose neighbour. Once the cohort is fixed,
and with it every site's keys, each site draws k others from its own operating system's randomness
and names them in its signed `exchange` message; it shares masks with those, and with all who name
it. (0.1.0 drew one ring for all from a hash of the `ready` messages, from 33 sites on: whoever
sent the last of them could try again until a victim stood among colluders.) A message that is kept
from its reader leaves a mask on one side only, which hides more and not less: no sum opens then.

Bound. Honest sites fall into pieces only if some set S of s of them, at most half, names nobody
among the other honest ones, and none of those names one of S. With n sites, c of them colluding
since before the cohort was fixed, and h = n - c, the chance is at most

    sum of  C(h, s) [C(c + s - 1, k) / C(n - 1, k)]^s [C(n - s - 1, k) / C(n - 1, k)]^(h - s)

What colluders name only adds neighbours. They can end an attempt whose graph they do not like and
have another made: a site joins at most `MAX_ATTEMPTS` at a round, and k allows for as many.
Nobody drops out between masking and opening (the attempt ends instead).
"""

from __future__ import annotations

import hashlib
import math
import secrets
from functools import lru_cache
from typing import Final

from aggregation.errors import ParameterError

ALL_PAIRS_UP_TO: Final = 128  # sites
COLLUDING_SHARE: Final = 0.5  # of a larger cohort, together with aggregator and decryptor
MAX_ATTEMPTS: Final = 1024  # at a round
LOG2_FAILURE_LIMIT: Final = -40.0  # for a round, all its attempts together

# The rule above, in plans of more sites than 0.1.0 took all pairs of: there it means another thing.
CHOSEN: Final = "chosen-neighbours"
SAME_AS_0_1_0_UP_TO: Final = 32  # sites

_DOMAIN: Final = b"fmfl-secure/aggregation/v1/graph"


def log2_failure(sites: int, choices: int, colluding: int) -> float:
    """Bound log2 of the probability that the honest sites fall into pieces in one attempt.

    Args:
        sites: Size n of the cohort.
        choices: How many others each site names, k.
        colluding: Sites c that pool what they know.

    Returns:
        At most 0; -inf where it cannot happen.

    Raises:
        ParameterError: More choices or colluding sites than there are.
    """
    if not 0 <= colluding <= sites:
        raise ParameterError(f"{colluding} colluding sites of {sites} are not possible")
    if not 1 <= choices < sites:
        raise ParameterError(f"{choices} choices are not 1 to {sites - 1}")
    honest = sites - colluding
    alone = _log2_choose(sites - 1, choices)
    terms = []
    for inside in range(1, honest // 2 + 1):
        outside = honest - inside
        terms.append(
            _log2_choose(honest, inside)
            + inside * (_log2_choose(colluding + inside - 1, choices) - alone)
            + outside * (_log2_choose(colluding + outside - 1, choices) - alone)
        )
    largest = max(terms, default=-math.inf)
    if largest == -math.inf:
        return -math.inf
    return min(0.0, largest + math.log2(sum(2.0 ** (term - largest) for term in terms)))


@lru_cache(maxsize=64)
def choices(sites: int) -> int:
    """How many others each site of a cohort names: the fewest that meet the bound.

    With `COLLUDING_SHARE` of the sites colluding, the honest ones stay connected but with
    probability 2**-40 a round.
    """
    limit = LOG2_FAILURE_LIMIT - math.log2(MAX_ATTEMPTS)
    colluding = int(sites * COLLUDING_SHARE)
    for number in range(1, sites - 1):
        if log2_failure(sites, number, colluding) <= limit:
            return number
    return sites - 1


def choose(sites: int, own: int) -> tuple[int, ...]:
    """Draw a site's choices from the operating system's randomness: positions, in order."""
    others = [index for index in range(sites) if index != own]
    return tuple(sorted(secrets.SystemRandom().sample(others, choices(sites))))


def mean_neighbours(sites: int) -> int:
    """How many neighbours a site has: all others, or on average as many as name or are named."""
    if sites <= ALL_PAIRS_UP_TO:
        return sites - 1
    named = choices(sites)
    return round(2 * named - named * named / (sites - 1))


def initiates(sites: int, index: int, transcript: bytes) -> tuple[int, ...]:
    """Of all pairs, those that a site sends key material for: about half, in an order for all."""
    ring = _ring(sites, transcript)
    own = ring.index(index)
    after = [ring[(own + step) % sites] for step in range(1, (sites - 1) // 2 + 1)]
    # In an even cohort half of the sites reach across the ring.
    if sites % 2 == 0 and own < sites // 2:
        after.append(ring[own + sites // 2])
    return tuple(sorted(after))


@lru_cache(maxsize=16)
def _ring(sites: int, transcript: bytes) -> tuple[int, ...]:
    def place(index: int) -> bytes:
        return hashlib.sha256(_DOMAIN + transcript + index.to_bytes(4, "big")).digest()

    return tuple(sorted(range(sites), key=place))


def _log2_choose(n: int, k: int) -> float:
    if k > n:
        return -math.inf
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
