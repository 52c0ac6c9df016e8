"""Canary units through the path of an answer: projection, exact sum, noise, grid.

A canary is in an answer with probability 1/2, and an auditor who knows everything else guesses
from the noised sum whether it was. An answer is cheap, so there is one canary in each and as many
answers as there are canaries: independent runs of one mechanism, for which the bound of
`privacy.auditing.statistics` holds as it does for canaries of one run. They are charged to nobody:
no data are in them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from privacy.auditing.canaries import Observation
from privacy.auditing.statistics import log_likelihood_ratio
from privacy.errors import AuditError
from privacy.queries.plan import QueryPlan
from privacy.queries.protected_sum import ProtectedSum

# What is left of the bound in a canary's direction at least, or the audit says nothing.
_ARRIVES = 0.98


def observe_answers(
    plan: QueryPlan,
    *,
    vectors: Mapping[str, NDArray[np.float64]],
    trials: int,
    shares: int,
    noise_multiplier: float,
) -> Observation:
    """Ask so often, with and without a canary.

    Args:
        plan: Audited, as a site follows it.
        vectors: Of made-up units by query's name, the canary's last; shape (units, cells). The
            canary's may break every bound.
        trials: Canaries, each in `plan.answers` answers or in none.
        shares: How many sites' shares of noise count; 1 with noise of a site's own.
        noise_multiplier: That is claimed, for scoring.

    Raises:
        AuditError: A canary does not reach its bound.
    """
    joint = plan.release.joint(vectors)
    others, canary = joint[:-1].sum(axis=0), joint[-1]
    norm = float(np.linalg.norm(canary))
    if norm < _ARRIVES:
        raise AuditError(f"a canary's vector has norm {norm:.3f}, expected about 1")
    included = np.random.default_rng(secrets.randbits(128)).random(trials) < 0.5
    without = {name: rows[:-1] for name, rows in vectors.items()}
    empty = np.zeros((0, plan.release.dimension))
    scores = np.zeros(trials)
    for trial in range(trials):
        for _ in range(plan.answers):
            asked = plan.release.joint(vectors if included[trial] else without)
            answer = ProtectedSum(plan).integers(asked)
            for _ in range(shares - 1):
                answer = answer + ProtectedSum(plan).integers(empty)
            seen = float((answer * plan.granularity - others) @ canary) / norm
            scores[trial] += log_likelihood_ratio(
                np.array(seen), sample_rate=1.0, noise_multiplier=noise_multiplier
            )
    return Observation(included, scores, 0)
