"""Exact Skellam noise: the integer noise whose shares add up.

A symmetric Skellam variable of variance mu is the difference of two Poisson(mu / 2); its
probabilities are exp(-mu) I_k(mu). Sums of independent ones are Skellam again, variances added,
which the discrete Gaussian does not do (Kairouz, Liu and Steinke 2021, arXiv 2102.06387): a sum
of shares has exactly the law that is accounted.

Sampling inverts a table of cumulative probabilities, computed in integers of 500 bits by the
downward recurrence I_{k-1} = I_{k+1} + (2k / mu) I_k, which is stable, and normalised by
sum_k I_k exp(-mu) = 1. Uniforms have 192 bits, of which the last 128 are drawn only in the rare
case that the first 64 do not decide. Nothing is floating point, so nothing is approximate but
the two bounds that `Table` states.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanError
from privacy.mechanism.keystream import KeyStream

MAX_VARIANCE = 1 << 34  # a table of 2 x 15 standard deviations, and integers far below 2^31
TAIL_BITS = 160  # probability beyond the support, at most 2^-160
_THRESHOLD_BITS = 192
_START_BITS = 256  # of the recurrence's first value: its relative error stays below 2^-230


@dataclass(frozen=True, slots=True)
class Table:
    """Cumulative probabilities of a symmetric Skellam variable, cut off at its support.

    **Guarantee.** The law sampled is the Skellam law conditioned on |X| <= support, an event of
    probability at least 1 - 2^-160, within total variation (2 support + 1) 2^-192.

    Attributes:
        variance: mu, at least 1.
        support: Largest absolute value.
        thresholds: floor(2^192 P(X <= x)) for x = -support .. support - 1.
        high_words: Their first 64 bits, uint64, ascending, shape (2 support,).
    """

    variance: int
    support: int
    thresholds: tuple[int, ...] = field(repr=False)
    high_words: NDArray[np.uint64] = field(repr=False)


@functools.lru_cache(maxsize=8)
def skellam_table(variance: int) -> Table:
    """The table of a variance.

    Raises:
        PlanError: The variance is not a whole number of 1 to 2^34.
    """
    if type(variance) is not int or not 1 <= variance <= MAX_VARIANCE:
        raise PlanError(f"noise variance is {variance}, expected a whole number of 1 to 2^34")
    support = support_of(variance)
    # Chernoff at twice the exponent: starting there moves nothing inside the support by 2^-160.
    start = _chernoff_point(variance, 2 * TAIL_BITS) + 32
    weights = [0] * (start + 2)
    weights[start] = 1 << _START_BITS
    for k in range(start, 0, -1):
        weights[k - 1] = weights[k + 1] + 2 * k * weights[k] // variance
    kept = weights[support:0:-1] + weights[: support + 1]
    total = sum(kept)
    cumulative, thresholds = 0, []
    for weight in kept[:-1]:
        cumulative += weight
        thresholds.append((cumulative << _THRESHOLD_BITS) // total)
    high = np.array([t >> (_THRESHOLD_BITS - 64) for t in thresholds], dtype=np.uint64)
    high.setflags(write=False)
    return Table(variance, support, tuple(thresholds), high)


def support_of(variance: int) -> int:
    """Where the noise of a variance is cut off: P(|X| > support) <= 2^-160."""
    return _chernoff_point(variance, TAIL_BITS + 1)  # two tails


def _chernoff_point(variance: int, bits: int) -> int:
    """The least x that Chernoff's bound gives for P(X > x) <= 2^-bits.

    E exp(t X) = exp(mu (cosh t - 1)), so ln P(X >= x) <= mu (cosh t - 1) - t x; at the best t,
    sinh t = x / mu.
    """

    def exponent(x: int) -> float:
        t = math.asinh(x / variance)
        # cosh t - 1 as 2 sinh^2(t / 2): no cancellation where t is small.
        return t * x - 2.0 * variance * math.sinh(t / 2.0) ** 2

    needed = bits * math.log(2.0) * (1.0 + 1e-9)
    low, high = 0, 1
    while exponent(high) < needed:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exponent(middle) < needed else (low, middle)
    return high


class SkellamSource:
    """A stream of independent symmetric Skellam integers of one variance.

    Args:
        variance: mu, a whole number of 1 to 2^34.

    Raises:
        PlanError: The variance is out of range.
    """

    __slots__ = ("_table", "_words")

    def __init__(self, variance: int) -> None:
        self._table = skellam_table(variance)
        self._words = KeyStream()

    def __repr__(self) -> str:
        return f"SkellamSource(variance={self._table.variance})"

    @property
    def support(self) -> int:
        """Largest absolute value that is ever drawn."""
        return self._table.support

    def integers(self, count: int) -> NDArray[np.int64]:
        """`count` independent draws, int64, shape (count,)."""
        table = self._table
        words = self._words.words(count)
        above = np.searchsorted(table.high_words, words, side="right")
        # A word equal to a threshold's first word decides nothing by itself.
        undecided = np.flatnonzero(
            (above > 0) & (table.high_words[np.maximum(above, 1) - 1] == words)
        )
        for index in undecided:
            above[index] = self._decide(int(words[index]))
        return above.astype(np.int64) - table.support

    def _decide(self, first: int) -> int:
        second, third = (int(word) for word in self._words.words(2))
        return bisect_right(self._table.thresholds, first << 128 | second << 64 | third)
