"""Figures with their intervals: how far noise alone, and noise with sampling, may have moved them.

Cells of an answer carry independent noise of one known deviation, Gaussian or, to within what no
interval shows, a Skellam law of large variance. Nothing here sees data: it is arithmetic on what
was released, and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of an answer.

    Attributes:
        value: The estimate; None where the noise leaves none.
        noise: Interval of the noise alone: where the figure of these very units lies. None where
            nothing can be said.
        sampling: Interval of noise and sampling: where the figure of the people they were drawn
            from lies, if they were drawn at random.
    """

    value: float | None
    noise: Interval | None
    sampling: Interval | None


def count(cell: float, stddev: float, *, level: float = 0.95) -> Figure:
    """A count or a sum from its cell. Sampling is not in it: a count is of these units.

    Args:
        cell: As released.
        stddev: Of the noise in it.
        level: Of the interval.
    """
    reach = _quantile(level) * stddev
    return Figure(cell, (cell - reach, cell + reach), None)


def share(
    cells: NDArray[np.float64],
    *,
    part: Sequence[int],
    whole: Sequence[int],
    stddev: float,
    scale: float = 1.0,
    level: float = 0.95,
) -> Figure:
    """The ratio of two sums of cells, a unit's part of the first being 0 to 1 of the second.

    Args:
        cells: As released, float64, shape (d,).
        part: Indices of the cells that add up to N.
        whole: Indices of those that add up to D.
        stddev: Of the noise in every cell.
        scale: What the ratio is multiplied by: the bound on a clipped value whose mean it is.
        level: Of the intervals.
    """
    numerator, denominator = np.zeros(len(cells)), np.zeros(len(cells))
    numerator[list(part)] = 1.0
    denominator[list(whole)] = 1.0
    return ratio(cells, part=numerator, whole=denominator, stddev=stddev, scale=scale, level=level)


def ratio(
    cells: NDArray[np.float64],
    *,
    part: NDArray[np.float64],
    whole: NDArray[np.float64],
    stddev: float,
    scale: float = 1.0,
    most: float = 1.0,
    level: float = 0.95,
) -> Figure:
    """The ratio of two weighted sums of cells, a unit's part being 0 to 1 of its whole.

    Both intervals are sets of ratios t that the released sums N and D do not speak against:
    (N - t D)^2 <= z^2 v(t), with v the variance of N - t D. Of the noise alone this is Fieller's
    method. With sampling, `most` D t (1 - t) is added, as in a score interval: an upper bound where
    a unit's part is not 0 or 1 of its whole (Bhatia and Davis 2000), or its whole is no more than
    `most`.

    Args:
        cells: As released, float64, shape (d,).
        part: Weights of the cells in N, >= 0, float64, shape (d,).
        whole: Weights of the cells in D, none below its weight in N; float64, shape (d,).
        stddev: Of the noise in every cell.
        scale: What the ratio is multiplied by: the bound on a clipped value whose mean it is.
        most: Of one unit's whole.
        level: Of the intervals.
    """
    numerator, denominator = float(part @ cells), float(whole @ cells)
    z = _quantile(level)
    of_numerator, of_both, of_denominator = (
        stddev**2 * float(weights) for weights in (part @ part, part @ whole, whole @ whole)
    )
    if denominator**2 <= z**2 * of_denominator or denominator <= 0.0:
        return Figure(None, None, None)  # it may be zero: any ratio is as likely

    def interval(spread: float) -> Interval | None:
        return _between_roots(
            denominator**2 - z**2 * of_denominator + z**2 * spread,
            -2.0 * numerator * denominator + 2.0 * z**2 * of_both - z**2 * spread,
            numerator**2 - z**2 * of_numerator,
        )

    noise, sampling = interval(0.0), interval(most * denominator)
    return Figure(
        scale * min(1.0, max(0.0, numerator / denominator)),
        _within(noise, scale),
        _within(sampling, scale),
    )


def half_width_of_share(
    value: float, units: float, stddev: float, *, level: float = 0.95
) -> Interval:
    """What to expect before asking: half widths of noise alone, and of noise with sampling.

    Args:
        value: The share that is expected, of two cells of its own, one for each outcome.
        units: Units that will answer.
        stddev: Of the noise in every cell.
        level: Of the intervals.
    """
    z = _quantile(level)
    noise = stddev**2 * ((1.0 - value) ** 2 + value**2) / units**2
    return z * math.sqrt(noise), z * math.sqrt(noise + value * (1.0 - value) / units)


def on_simplex(cells: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """The nearest counts that are not negative and add up to a total; float64, shape (d,).

    Wang and Carreira-Perpinan 2013 (arXiv 1309.1541), Algorithm 1.
    """
    if total <= 0.0:
        return np.zeros_like(cells)
    ordered = np.sort(cells)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(cells) + 1)
    # Of the largest cell alone it always holds; a total too small for float64 shows it of none.
    kept = int(np.flatnonzero(ordered > excess)[-1:].max(initial=0))
    counts: NDArray[np.float64] = np.maximum(cells - excess[kept], 0.0)
    return counts


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2.0)


def _between_roots(a: float, b: float, c: float) -> Interval | None:
    """Where a t^2 + b t + c <= 0, for a > 0; None where nowhere."""
    discriminant = b * b - 4.0 * a * c
    if a <= 0.0 or discriminant < 0.0:
        return None
    middle, reach = -b / (2.0 * a), math.sqrt(discriminant) / (2.0 * a)
    return middle - reach, middle + reach


def _within(interval: Interval | None, scale: float) -> Interval | None:
    if interval is None:
        return None
    low, high = (scale * min(1.0, max(0.0, end)) for end in interval)
    return low, high
