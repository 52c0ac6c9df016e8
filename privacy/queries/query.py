"""Queries: bounded vectors, one for each protected unit, of which only a noised sum is seen.

A query is public and fixed before data are read. Its vectors are *projected* to the bound without a
word: an error at the first unit that breaks it would be a release of its own. That a function keeps
its bound is tested on made-up units beforehand, where everything may be said.

Several queries may be asked as one release. Each gets a share of what the release costs: its
vectors are scaled so that all of a unit's vectors together, one after the other, have norm 1 at
most.

Entries of `questions.base` and `measures.base` make queries and their vectors. A site's vectors go
through `joint` to `queries.protected_sum`, which sums and adds noise; `split` takes the released
sum apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanError, TrainingError
from privacy.names import plain

# A joint vector is at most so much longer than its bound, for which the noise is made: norms are
# computed in float64, and values are rounded to multiples of 2^-36 before they are summed.
PROJECTION_TOLERANCE = 2.0**-20
MAX_CELLS = 1 << 16


@dataclass(frozen=True, slots=True)
class Query:
    """One vector a unit.

    Attributes:
        name: What it is called, in plans, ledgers and answers.
        cells: Names of its coordinates, in order.
        l2: Bound C on the L2 norm of a unit's vector, > 0.
    """

    name: str
    cells: tuple[str, ...]
    l2: float

    def __post_init__(self) -> None:
        if not plain(self.name):
            raise PlanError("a query has no name")
        if not 1 <= len(self.cells) <= MAX_CELLS or len(set(self.cells)) != len(self.cells):
            raise PlanError(f"query {self.name!r}: cells must be distinct, 1 to {MAX_CELLS}")
        if not (self.l2 > 0.0 and math.isfinite(self.l2)):
            raise PlanError(f"query {self.name!r}: l2 is {self.l2}, expected a number above 0")

    @property
    def dimension(self) -> int:
        """Coordinates of a unit's vector, one for each cell."""
        return len(self.cells)


@dataclass(frozen=True, slots=True)
class Release:
    """Queries that are asked at once, answered by one sum.

    Attributes:
        queries: At least one, of distinct names.
        shares: What each may cost of the whole, > 0, adding up to 1. A query's deviation is that of
            the same query asked alone, divided by the square root of its share.
    """

    queries: tuple[Query, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        names = [query.name for query in self.queries]
        if not names or len(set(names)) != len(names):
            raise PlanError("a release asks at least one query, and none of them twice")
        if len(self.shares) != len(names) or not all(share > 0.0 for share in self.shares):
            raise PlanError("a release needs a share above 0 for each of its queries")
        if abs(math.fsum(self.shares) - 1.0) > 1e-9:
            raise PlanError(f"shares add up to {math.fsum(self.shares)}, expected 1")
        if self.dimension > MAX_CELLS:
            raise PlanError(f"a release has {self.dimension} cells, expected at most {MAX_CELLS}")

    @classmethod
    def of(cls, *queries: Query) -> Release:
        """A release in which all queries have the same share."""
        return cls(queries, (1.0 / len(queries),) * len(queries) if queries else ())

    @property
    def dimension(self) -> int:
        """Coordinates of all vectors together."""
        return sum(query.dimension for query in self.queries)

    def scale(self, query: Query) -> float:
        """Returns the factor that a query's values are multiplied by in the joint vector."""
        return math.sqrt(self.shares[self.queries.index(query)]) / query.l2

    def joint(self, vectors: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Projected and scaled vectors of some units, side by side.

        **Guarantee.** Every row has L2 norm at most 1 + `PROJECTION_TOLERANCE`, whatever the
        vectors hold. A row with a value that is not finite becomes zero.

        Args:
            vectors: By query's name, float64, shape (units, cells).

        Returns:
            float64, shape (units, dimension).

        Raises:
            TrainingError: A query's vectors are missing or of another shape.
        """
        parts = []
        units = {len(part) for part in vectors.values()}
        if set(vectors) != {query.name for query in self.queries} or len(units) != 1:
            raise TrainingError("the vectors are not those of the release's queries")
        for query in self.queries:
            part = np.asarray(vectors[query.name], dtype=np.float64)
            if part.ndim != 2 or part.shape[1] != query.dimension:
                raise TrainingError(
                    f"query {query.name!r}: vectors have shape {part.shape}, expected (units, "
                    f"{query.dimension})"
                )
            parts.append(project(part, query.l2) * self.scale(query))
        return np.concatenate(parts, axis=1)

    def split(self, joint: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """A joint vector taken apart, each query's values unscaled: shape (cells,) by name."""
        found, start = {}, 0
        for query in self.queries:
            found[query.name] = joint[start : start + query.dimension] / self.scale(query)
            start += query.dimension
        return found


def project(vectors: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """Rows scaled down to a norm where they are longer; float64, shape (units, cells)."""
    finite = np.where(np.isfinite(vectors).all(axis=1, keepdims=True), vectors, 0.0)
    # Divided by the largest value first, so that no square overflows.
    largest = np.abs(finite).max(axis=1, keepdims=True, initial=0.0)
    scaled = finite / np.where(largest > 0.0, largest, 1.0)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        longer = norms * largest > bound
    return np.where(longer, scaled * (bound / np.maximum(norms, 1.0)), finite)


def unit_means(
    records: NDArray[np.float64], units: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """A unit's vector as the mean of its records' vectors, which keeps every bound they keep.

    Args:
        records: float64, shape (records, cells).
        units: Record indices of each unit; of none, the vector is zero.

    Returns:
        float64, shape (units, cells).
    """
    means = np.zeros((len(units), records.shape[1]))
    for row, own in enumerate(units):
        if len(own):
            means[row] = records[own].mean(axis=0)
    return means
