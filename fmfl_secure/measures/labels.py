"""Measures of models that give each record one label.

`measures.registry` makes these for tasks that give a record one label.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.measures.base import Finding, Measure, Rate, one_hot, rates_of, unit_interval
from fmfl_secure.measures.outcomes import OneOfSeveral
from privacy.queries import Query, count, on_simplex, share

# So wide that some hundred units leave each a figure.
BINS: Final = 5


class Accuracy(Rate):
    """Share of records with the right label."""

    name = "accuracy"
    said = "share of records that get the right label"

    def values(self, outcomes: OneOfSeveral) -> NDArray[np.float64]:
        """1 where the likeliest label is the right one."""
        return _right(outcomes)


class Likelihood(Rate):
    """Mean probability of the right label."""

    name = "likelihood"
    said = "mean probability that the model gives the right label"

    def values(self, outcomes: OneOfSeveral) -> NDArray[np.float64]:
        """Returns the probability of each record's right label."""
        return _of_right_label(outcomes)


@dataclass(frozen=True)
class Recall(Measure):
    """Accuracy among the records of each label.

    Attributes:
        labels: All of them, in order.
    """

    name = "recall"
    said = "of the records with a label, the share that get it"

    labels: tuple[str, ...]

    @property
    def query(self) -> Query:
        """For each label, right and wrong: one of them is 1."""
        cells = tuple(f"{label}: {end}" for label in self.labels for end in ("right", "wrong"))
        return Query(self.name, cells, 1.0)

    @override
    def vectors(self, outcomes: OneOfSeveral) -> NDArray[np.float64]:
        places = 2 * outcomes.labels + (_right(outcomes) == 0.0)
        return one_hot(places.astype(np.int64), 2 * len(self.labels))

    def findings(self, cells: NDArray[np.float64], stddev: float) -> Iterator[Finding]:
        """Yields the recall of each label."""
        for n, label in enumerate(self.labels):
            own = [2 * n, 2 * n + 1]
            yield Finding(
                f"recall of {label}", share(cells, part=own[:1], whole=own, stddev=stddev)
            )

    @override
    def sums(self, units: float) -> NDArray[np.float64]:
        """Each label has as many."""
        return rates_of(len(self.labels), units)


@dataclass(frozen=True)
class Confusion(Measure):
    """How many records of each label get which.

    Attributes:
        labels: All of them, in order.
    """

    name = "confusion"
    said = "how many of each label get which one"

    labels: tuple[str, ...]

    @property
    def query(self) -> Query:
        """A cell for each label and what was said in its place: one of them is 1."""
        cells = tuple(f"{right} as {said}" for right in self.labels for said in self.labels)
        return Query(self.name, cells, 1.0)

    @override
    def vectors(self, outcomes: OneOfSeveral) -> NDArray[np.float64]:
        said = _likeliest(outcomes)
        places = outcomes.labels * len(self.labels) + said  # below 0 of a label that is none
        return one_hot(places.astype(np.int64), len(self.labels) ** 2)

    def findings(self, cells: NDArray[np.float64], stddev: float) -> Iterator[Finding]:
        """Counts: values none below zero that add up as released, intervals as released."""
        counts = on_simplex(cells, max(0.0, float(cells.sum())))
        for name, cell, positive in zip(self.query.cells, cells, counts, strict=True):
            figure = count(float(cell), stddev)
            yield Finding(name, type(figure)(float(positive), figure.noise, None), "count")

    @override
    def sums(self, units: float) -> NDArray[np.float64]:
        """All alike, which is as good as any, for counts are as wide whatever is."""
        cells = len(self.labels) ** 2
        return np.full((1, cells), units / cells)


class Calibration(Measure):
    """Among records that the model is about so sure of, the share that it gets right."""

    name = "calibration"
    said = f"share that is right, in {BINS} bins of how sure the model is of its label"

    @property
    def query(self) -> Query:
        """For each bin, right and wrong: one of them is 1."""
        cells = tuple(f"{name}: {end}" for name in _bins() for end in ("right", "wrong"))
        return Query(self.name, cells, 1.0)

    @override
    def vectors(self, outcomes: OneOfSeveral) -> NDArray[np.float64]:
        sure = unit_interval(outcomes.probabilities.max(axis=1, initial=0.0))
        bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
        return one_hot(2 * bins + (_right(outcomes) == 0.0), 2 * BINS)

    def findings(self, cells: NDArray[np.float64], stddev: float) -> Iterator[Finding]:
        """Yields the share that is right in each bin."""
        for n, name in enumerate(_bins()):
            own = [2 * n, 2 * n + 1]
            yield Finding(
                f"right where sure of {name}", share(cells, part=own[:1], whole=own, stddev=stddev)
            )

    @override
    def sums(self, units: float) -> NDArray[np.float64]:
        """Each bin has as many."""
        return rates_of(BINS, units)


def _bins() -> list[str]:
    step = math.ceil(100 / BINS)
    return [f"{n * step}-{(n + 1) * step} %" for n in range(BINS)]


def _likeliest(outcomes: OneOfSeveral) -> NDArray[np.int64]:
    found: NDArray[np.int64] = unit_interval(outcomes.probabilities).argmax(axis=1)
    return found


def _right(outcomes: OneOfSeveral) -> NDArray[np.float64]:
    right: NDArray[np.bool_] = _likeliest(outcomes) == outcomes.labels
    return right.astype(np.float64)


def _of_right_label(outcomes: OneOfSeveral) -> NDArray[np.float64]:
    rows, right = np.arange(len(outcomes.labels)), np.maximum(outcomes.labels, 0)
    found: NDArray[np.float64] = outcomes.probabilities[rows, right]
    return np.where(outcomes.labels < 0, 0.0, found)
