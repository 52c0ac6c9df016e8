"""A measure: a bounded vector of every record, and figures of what their noised sum says.

An entry of `measures.registry` makes a measure from settings. A site calls `vectors` on what its
model made of each record; whoever has the released sum calls `findings`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.measures.outcomes import Outcomes
from privacy.queries import Figure, Query, share, unit_means

# Rates that figures are foreseen for. Below a half all is as above it, right and wrong changed.
RATES = (0.5, 0.65, 0.8, 0.9, 0.95)


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure of an answer.

    Attributes:
        name: What it is of, as `accuracy` or `recall of asthma`.
        figure: With its intervals.
        kind: `share` of 0 to 1, `count`, or a `value` in units of its own.
    """

    name: str
    figure: Figure
    kind: Literal["share", "count", "value"] = "share"


class Measure(ABC):
    """One question of the fixed set, as public settings fix it.

    Attributes:
        name: In settings.
        said: What its figures are, in a sentence.
        combine: How a unit's records become one vector: their mean, in which every unit weighs the
            same, or their sum, which the bound then cuts.
    """

    name: ClassVar[str]
    said: ClassVar[str]
    combine: ClassVar[Literal["mean", "sum"]] = "mean"

    @property
    @abstractmethod
    def query(self) -> Query:
        """Cells and bound of a unit's vector."""

    @abstractmethod
    def vectors(self, outcomes: Any) -> NDArray[np.float64]:
        """A vector of every record, float64, shape (records, cells).

        Args:
            outcomes: Those of the task that the measure is for.
        """

    @abstractmethod
    def findings(self, cells: NDArray[np.float64], stddev: float) -> Iterator[Finding]:
        """Figures of a released sum, those that matter most first.

        Args:
            cells: float64, shape (cells,).
            stddev: Of the noise in every cell.
        """

    @abstractmethod
    def sums(self, units: float) -> NDArray[np.float64]:
        """Sums that might be, were nothing known but how many answer; see `questions.base`.

        Args:
            units: That will answer, of all sites.

        Returns:
            float64, shape (cases, cells).
        """


class Rate(Measure):
    """The mean of a value from 0 to 1, in two cells of its own: the value, and what it lacks.

    Attributes:
        kind: Of its figure.
        scale: What the value is multiplied by to be shown.
    """

    kind: ClassVar[Literal["share", "value"]] = "share"
    scale: float = 1.0

    @abstractmethod
    def values(self, outcomes: Any) -> NDArray[np.float64]:
        """Of every record, 0 to 1; anything beyond is cut. float64, shape (records,)."""

    @property
    def query(self) -> Query:
        """Two cells of norm 1 at most: x^2 + (1 - x)^2 <= 1."""
        return Query(self.name, (self.name, f"not {self.name}"), 1.0)

    @override
    def vectors(self, outcomes: Any) -> NDArray[np.float64]:
        values = unit_interval(self.values(outcomes))
        return np.stack([values, 1.0 - values], axis=1)

    def findings(self, cells: NDArray[np.float64], stddev: float) -> Iterator[Finding]:
        """Yields the mean, with its interval."""
        figure = share(cells, part=[0], whole=[0, 1], stddev=stddev, scale=self.scale)
        yield Finding(self.name, figure, self.kind)

    @override
    def sums(self, units: float) -> NDArray[np.float64]:
        return rates_of(1, units)


def rates_of(parts: int, units: float) -> NDArray[np.float64]:
    """Two cells a part, hits and misses, where units fall into the parts evenly; by rate.

    Args:
        parts: How many.
        units: In all of them.

    Returns:
        float64, shape (rates, 2 parts).
    """
    return np.array([np.tile([rate, 1.0 - rate], parts) * units / parts for rate in RATES])


def unit_interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values cut to 0 to 1; what is no number is 0."""
    return np.clip(np.nan_to_num(values, nan=0.0), 0.0, 1.0)


def one_hot(places: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
    """1 at each record's place, and nothing where it has none; shape (records, cells)."""
    vectors = np.zeros((len(places), cells))
    rows = np.flatnonzero((places >= 0) & (places < cells))
    vectors[rows, places[rows]] = 1.0
    return vectors


def unit_vectors(
    measure: Measure, outcomes: Outcomes, units: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """A vector of every unit, not yet projected to the bound.

    Args:
        measure: What is asked.
        outcomes: Of the records.
        units: Record indices of each unit.

    Returns:
        float64, shape (units, cells).
    """
    means = unit_means(measure.vectors(outcomes), units)
    if measure.combine == "mean":
        return means
    return means * np.array([[len(own)] for own in units], dtype=np.float64).reshape(-1, 1)
