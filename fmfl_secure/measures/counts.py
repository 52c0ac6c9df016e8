"""Measures of what is found, missed and invented: entities of texts, labels out of many.

`measures.registry` makes these for tasks that tag words or give a record several labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.measures.base import RATES, Finding, Measure, Rate
from fmfl_secure.measures.outcomes import LabelSets, Tagged
from privacy.queries import Figure, Query, ratio

# Of cells (found, missed, invented): what a unit's part is, and its whole.
_SCORES = {
    "F1": ((1.0, 0.0, 0.0), (1.0, 0.5, 0.5)),
    "precision": ((1.0, 0.0, 0.0), (1.0, 0.0, 1.0)),
    "recall": ((1.0, 0.0, 0.0), (1.0, 1.0, 0.0)),
}


class Counts(Measure):
    """F1, precision and recall from counts a unit, its vector cut to a length.

    A unit with longer counts is shortened in proportion, so its own scores stay as they are, and it
    weighs less among the others. With one unit's whole bounded, so is what sampling does.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The names that are counted, in order."""
        raise NotImplementedError

    @property
    def l2(self) -> float:
        """Bound on a unit's counts."""
        raise NotImplementedError

    @property
    def query(self) -> Query:
        """Three cells for each name."""
        cells = tuple(f"{n}: {end}" for n in self.names for end in ("found", "missed", "invented"))
        return Query(self.name, cells, self.l2)

    def findings(self, cells: NDArray[np.float64], stddev: float) -> Iterator[Finding]:
        """Over all names together, and the F1 of each."""
        everything = cells.reshape(len(self.names), 3)
        for score, (part, whole) in _SCORES.items():
            yield Finding(score, self._score(everything, part, whole, stddev))
        for row, name in zip(everything, self.names, strict=True):
            yield Finding(f"F1 of {name}", self._score(row[np.newaxis], *_SCORES["F1"], stddev))

    def _score(
        self,
        rows: NDArray[np.float64],
        part: tuple[float, ...],
        whole: tuple[float, ...],
        stddev: float,
    ) -> Figure:
        of_whole = np.tile(whole, len(rows))
        return ratio(
            rows.reshape(-1),
            part=np.tile(part, len(rows)),
            whole=of_whole,
            stddev=stddev,
            most=max(1.0, self.l2 * float(np.linalg.norm(of_whole))),
        )

    @override
    def sums(self, units: float) -> NDArray[np.float64]:
        """Every unit has one to find, each name as often; as many are invented."""
        rates = (*RATES, *(1.0 - rate for rate in RATES))
        rows = [np.tile([rate, 1.0 - rate, 1.0 - rate], len(self.names)) for rate in rates]
        return np.array(rows) * units / len(self.names)


def types_of(tags: Sequence[str]) -> tuple[str, ...]:
    """The types of entities that tags name, in order."""
    return tuple(dict.fromkeys(tag[2:] for tag in tags if tag != "O"))


@dataclass(frozen=True)
class EntityCounts(Counts):
    """Entities of a unit's texts, by type.

    Attributes:
        types: In order.
        bound: On the length of a unit's counts.
    """

    name = "entities"
    said = "F1, precision and recall of entities, a person's counts cut to a length"
    combine = "sum"

    types: tuple[str, ...]
    bound: float

    @property
    @override
    def names(self) -> tuple[str, ...]:
        return self.types

    @property
    @override
    def l2(self) -> float:
        return self.bound

    @override
    def vectors(self, outcomes: Tagged) -> NDArray[np.float64]:
        counted = outcomes.entities
        stacked = np.stack([counted.found, counted.missed, counted.invented], axis=2)
        return stacked.reshape(len(stacked), -1)


@dataclass(frozen=True)
class LabelCounts(Counts):
    """Labels out of many, each found, missed, invented, or none of these.

    Attributes:
        labels: In order.
    """

    name = "label-scores"
    said = "F1, precision and recall over all labels, and F1 of each"

    labels: tuple[str, ...]

    @property
    @override
    def names(self) -> tuple[str, ...]:
        return self.labels

    @property
    def l2(self) -> float:
        """At most one cell of each label is 1."""
        return math.sqrt(len(self.labels))

    @override
    def vectors(self, outcomes: LabelSets) -> NDArray[np.float64]:
        truth, claimed = outcomes.truth, outcomes.claimed
        stacked = np.stack([truth & claimed, truth & ~claimed, ~truth & claimed], axis=2)
        return stacked.reshape(len(stacked), -1).astype(np.float64)


class ExactSets(Rate):
    """Share of records whose labels are all right."""

    name = "exact-sets"
    said = "share of records that get just their labels"

    def values(self, outcomes: LabelSets) -> NDArray[np.float64]:
        """Returns 1 for each record whose labels are all right, else 0."""
        right: NDArray[np.bool_] = (outcomes.truth == outcomes.claimed).all(axis=1)
        return right.astype(np.float64)


class WordAccuracy(Rate):
    """Mean share of a record's words with the right tag."""

    name = "tags"
    said = "mean share of a record's words that get the right tag"

    def values(self, outcomes: Tagged) -> NDArray[np.float64]:
        """Returns the share of right tags of each record."""
        return outcomes.right
