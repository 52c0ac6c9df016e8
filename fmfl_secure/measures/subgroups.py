"""A rate by subgroups: of a declared public column, with declared values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.measures.base import Finding, Measure, Rate, one_hot, rates_of
from privacy.queries import Query, share

OTHERS = "any other"


@dataclass(frozen=True)
class BySubgroup(Measure):
    """A rate among the records of each subgroup, and of those in none of them.

    Attributes:
        rate: Of what.
        column: Its name, as declared.
        values: Of the column, as declared, in order.
    """

    name = "subgroups"
    said = "the same rate among the records of each subgroup"

    rate: Rate
    column: str
    values: tuple[str, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """As declared, and whatever else there is."""
        return (*self.values, OTHERS)

    @property
    def query(self) -> Query:
        """The rate's two cells for each group, of which a record has one."""
        cells = (f"{group}: {cell}" for group in self.groups for cell in self.rate.query.cells)
        return Query(self.name, tuple(cells), self.rate.query.l2)

    @override
    def vectors(self, outcomes: Any) -> NDArray[np.float64]:
        own = self.rate.vectors(outcomes)
        places = np.full(len(own), -1) if outcomes.groups is None else outcomes.groups
        places = np.where((places >= 0) & (places < len(self.values)), places, len(self.values))
        groups = one_hot(places, len(self.groups))
        return (groups[:, :, np.newaxis] * own[:, np.newaxis, :]).reshape(len(own), -1)

    def findings(self, cells: NDArray[np.float64], stddev: float) -> Iterator[Finding]:
        """Yields the figure of each group."""
        for n, group in enumerate(self.groups):
            own = [2 * n, 2 * n + 1]
            figure = share(cells, part=own[:1], whole=own, stddev=stddev, scale=self.rate.scale)
            yield Finding(f"{self.rate.name}, {self.column} {group}", figure, self.rate.kind)

    @override
    def sums(self, units: float) -> NDArray[np.float64]:
        """Each group has as many, and as many are in none of them."""
        return rates_of(len(self.groups), units)
