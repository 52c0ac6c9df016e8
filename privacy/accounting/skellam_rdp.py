"""Renyi divergences of Poisson-subsampled Skellam noise, at integer orders.

Statements and proofs are in `docs/distributed-noise.md`; the tests hold these functions to
numerically integrated divergences, in both directions of adding and removing a unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def skellam_divergence(order: int, *, squared_l2: float, l1: float, variance: float) -> float:
    """Renyi divergence of Skellam noise from itself, moved by an integer vector.

    Agarwal, Kairouz and Liu 2021 (arXiv 2110.04995), Corollary 3.6. Both directions are the
    same, the law being symmetric.

    Args:
        order: Integer a >= 2.
        squared_l2: Largest squared L2 norm of the shift.
        l1: Largest L1 norm of the shift.
        variance: Of the noise on each coordinate, mu.

    Returns:
        An upper bound, in nat.
    """
    gaussian = order * squared_l2 / (2.0 * variance)
    return gaussian + min(
        ((2.0 * order - 1.0) * squared_l2 + 6.0 * l1) / (4.0 * variance**2),
        3.0 * l1 / (2.0 * variance),
    )


def subsampled_divergence(
    order: int, sample_rate: float, divergence: Callable[[int], float]
) -> float:
    """Renyi divergence after Poisson sampling, for noise that a reflection maps onto its shift.

    Bounds both directions: P = (1 - q) Q + q P1 from Q by the binomial expansion, and Q from P
    because it is never larger (Mironov, Talwar and Zhang 2019, arXiv 1908.10530, Theorem 5).

    Args:
        order: Integer a >= 2.
        sample_rate: Inclusion probability q, 0 < q <= 1.
        divergence: Bound on the divergence of P1 from Q at each integer order 2 .. a, in nat.

    Returns:
        An upper bound, in nat; infinite where float64 cannot hold it.
    """
    if sample_rate >= 1.0:
        return divergence(order)
    # The binomial weights add up to 1, so with expm1 the sum is what exceeds 1, without
    # cancellation at small rates.
    logs = []
    for k in range(2, order + 1):
        exponent = (k - 1) * divergence(k)
        if exponent <= 0.0:
            continue
        log_expm1 = exponent + math.log(-math.expm1(-exponent))
        logs.append(
            math.lgamma(order + 1)
            - math.lgamma(k + 1)
            - math.lgamma(order - k + 1)
            + k * math.log(sample_rate)
            + (order - k) * math.log1p(-sample_rate)
            + log_expm1
        )
    if not logs:
        return 0.0
    largest = max(logs)
    log_excess = largest + math.log(math.fsum(math.exp(value - largest) for value in logs))
    # ln(1 + e^x) without overflow.
    log_moment = (
        log_excess + math.log1p(math.exp(-log_excess))
        if log_excess > 0.0
        else math.log1p(math.exp(log_excess))
    )
    return log_moment / (order - 1)
