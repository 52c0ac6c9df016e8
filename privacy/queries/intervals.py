"""Figures with their intervals: how far noise alone, and noise with sampling, may have moved them.

Cells of an answer carry independent noise of one known deviation, Gaussian or, to within what no
interval shows, a Skellam law of large variance. Nothing here sees data: it is arithmetic on what
was released, and costs nothing.

`measures.base` and the questions of `questions.choice` and `questions.counts` turn a released sum
into figures with `share`, `ratio` and `count`. Before an answer is asked, `planning.precision`
shows what `foreseen` simulates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

_DRAWS: Final = 200
_KEPT: Final = 0.95  # of answers, which are no wider than was said


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


@dataclass(frozen=True, slots=True)
class Width:
    """How wide a figure's intervals will be: half widths that 19 of 20 answers keep to.

    Attributes:
        noise: Of the noise alone; infinite where more than one answer in 20 says nothing.
        sampling: With sampling; None of a count.
    """

    noise: float
    sampling: float | None


def foreseen(
    figures: Callable[[NDArray[np.float64]], Mapping[str, Figure]],
    sums: NDArray[np.float64],
    stddev: float,
) -> dict[str, Width]:
    """Simulates answers to made-up data and returns how wide each figure's interval will be.

    The figures themselves are drawn, so what they do (levels for several at once, a denominator
    with noise of its own) is in what is said of them. The draws are the same each time.

    Args:
        figures: What an answer says, from its cells: what will be called of the real one.
        sums: Exact sums that might be, float64, shape (cases, cells). Of each figure the widest
            case is taken.
        stddev: Of the noise in every cell.
    """
    half = np.random.default_rng(20261129).standard_normal((_DRAWS // 2, sums.shape[1]))
    noise = stddev * np.concatenate([half, -half])
    found: dict[str, Width] = {}
    for exact in sums:
        drawn: dict[str, list[Figure]] = {}
        for row in noise:
            for name, figure in figures(exact + row).items():
                drawn.setdefault(name, []).append(figure)
        for name, answers in drawn.items():
            is_count = all(a.noise is not None and a.sampling is None for a in answers)
            own = Width(
                _kept_to(a.noise for a in answers),
                None if is_count else _kept_to(a.sampling for a in answers),
            )
            found[name] = _wider(own, found[name]) if name in found else own
    return found


def _kept_to(intervals: Iterable[Interval | None]) -> float:
    widths = sorted(math.inf if each is None else (each[1] - each[0]) / 2.0 for each in intervals)
    return widths[math.ceil(_KEPT * len(widths)) - 1]


def _wider(one: Width, other: Width) -> Width:
    noise = max(one.noise, other.noise)
    if one.sampling is None or other.sampling is None:
        return Width(noise, None)
    return Width(noise, max(one.sampling, other.sampling))


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
