"""How well somebody tells who was in the data, and the most that (epsilon, delta)-DP lets anybody.

An attack gives each unit a score, higher where it speaks for the unit having been in. What of it
can be said without a threshold is the area under its curve of true against false positives, the
chance that a member's score is above that of somebody who was not in.

If training is (epsilon, delta)-DP for adding or removing a unit, every test of whether it was in
satisfies (Wasserman and Zhou 2010, Theorem 2.4; Kairouz, Oh, Viswanath 2015, arXiv 1311.0776, 2)

    true positives <= min(e^epsilon f + delta, 1 - e^-epsilon (1 - delta - f))

at a false positive rate of f. The right side is concave in f, so that it holds of means over units
as well; and the area below it is 1 - (1 - delta)^2 / (1 + e^epsilon). It is of the worst record and
the best attack: what an attack finds is far below it as a rule, and proves nothing where it is.

What a secret's exposure is: Carlini et al. 2019, arXiv 1802.08232, Section 4. Of a secret drawn at
random out of R that one unit holds, the same inequality bounds how likely a rank among them is,
since without that unit every rank is as likely.

`attacks.attack` sets what attacks of `attacks.membership`, `attacks.secrets` and `attacks.sites`
reached beside the bounds here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from privacy.errors import AuditError


@dataclass(frozen=True, slots=True)
class Told:
    """How well scores tell members from others.

    Attributes:
        auc: Area under the curve, 0.5 where they tell nothing.
        low: Lower end of its interval.
        high: Upper end.
    """

    auc: float
    low: float
    high: float


def told_apart(
    members: NDArray[np.float64], others: NDArray[np.float64], *, confidence: float
) -> Told:
    """The area under the curve, with an interval that holds for any scores.

    Its variance is at most AUC (1 - AUC) / min(m, n) (van Dantzig 1951): Wilson's interval of a
    share of so many. Scores may come from whatever else, but not from one another.

    Args:
        members: Scores of units that were in, shape (m,).
        others: Scores of units that were not, shape (n,).
        confidence: Of the interval, both sides together.

    Raises:
        AuditError: There are none of one sort, or a score is not finite.
    """
    _require_scores(members, others)
    ranks = rankdata(np.concatenate([members, others]))
    least = len(members) * (len(members) + 1) / 2.0
    auc = float((ranks[: len(members)].sum() - least) / (len(members) * len(others)))
    count = min(len(members), len(others))
    z = float(norm.ppf(0.5 + confidence / 2.0))
    middle = (auc + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(auc * (1 - auc) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    return Told(auc, max(0.0, middle - half), min(1.0, middle + half))


def true_positives(
    members: NDArray[np.float64], others: NDArray[np.float64], *, false_positives: float
) -> float:
    """The share of members above a threshold that at most so large a share of others is above.

    Args:
        members: Scores of units that were in, shape (m,).
        others: Scores of units that were not, shape (n,).
        false_positives: At most this share of others.

    Raises:
        AuditError: There are none of one sort, or a score is not finite.
    """
    _require_scores(members, others)
    allowed = math.floor(false_positives * len(others))
    threshold = np.sort(others)[len(others) - 1 - allowed] if allowed < len(others) else -np.inf
    return float((members > threshold).mean())


def most_true_positives(false_positives: float, *, epsilon: float, delta: float) -> float:
    """The most of any attack, at a rate of false positives.

    Args:
        false_positives: f, 0 to 1.
        epsilon: >= 0; infinite where nothing is promised.
        delta: Beside it.
    """
    if math.isinf(epsilon):
        return 1.0
    first = math.exp(min(epsilon, 700.0)) * false_positives + delta
    second = 1.0 - math.exp(-epsilon) * (1.0 - delta - false_positives)
    return max(0.0, min(1.0, first, second))


def most_auc(*, epsilon: float, delta: float) -> float:
    """The largest area under the curve of any attack.

    Args:
        epsilon: >= 0; infinite where nothing is promised.
        delta: Beside it.
    """
    return 1.0 - (1.0 - delta) ** 2 / (1.0 + math.exp(min(epsilon, 700.0)))


def most_right_site(sites: int, *, epsilon: float, delta: float) -> float:
    """The most that anybody guesses right of which of so many sites a unit is at.

    A unit that moves is one removal and one addition: likelihoods differ by e^(2 epsilon), and by
    delta (1 + e^epsilon) beside.

    Args:
        sites: How many, each as likely beforehand.
        epsilon: Of one site; infinite where nothing is promised.
        delta: Beside it.
    """
    if math.isinf(epsilon) or epsilon > 300.0:
        return 1.0
    odds = math.exp(2.0 * epsilon)
    return min(1.0, odds / (odds + sites - 1) + delta * (1.0 + math.exp(epsilon)))


def exposure(planted: float, candidates: NDArray[np.float64]) -> float:
    """Of a secret, log2 of how many candidates there are over its rank among them.

    Args:
        planted: The secret's loss.
        candidates: Losses of all candidates, the secret among them, shape (r,).

    Raises:
        AuditError: There is no other candidate, or a loss is not finite.
    """
    if len(candidates) < 2 or not np.isfinite(candidates).all():
        raise AuditError(f"{len(candidates)} losses of candidates, expected 2 finite ones at least")
    # Of equal ones the secret is the last: a model that tells nothing apart exposes nothing.
    rank = int((candidates <= planted).sum())
    return math.log2(len(candidates)) - math.log2(max(rank, 1))


def most_exposed(found: float, *, epsilon: float, delta: float, units: int = 1) -> float:
    """How likely an exposure so large is at most, of a secret drawn at random.

    Args:
        found: The exposure, in bits.
        epsilon: Of one unit; infinite where nothing is promised.
        delta: Beside it.
        units: How many hold the secret: a group's epsilon is so many times one unit's, and its
            delta units x e^((units - 1) epsilon) x delta.
    """
    together = epsilon * units
    if math.isinf(together) or together > 300.0:
        return 1.0
    beside = delta * units * math.exp(epsilon * (units - 1))
    return most_true_positives(min(1.0, 2.0**-found), epsilon=together, delta=min(1.0, beside))


def _require_scores(members: NDArray[np.float64], others: NDArray[np.float64]) -> None:
    if not len(members) or not len(others):
        raise AuditError(
            f"scores of {len(members)} members and of {len(others)} others, expected some of both"
        )
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        raise AuditError("a score is not finite")
