"""Outcomes of a model on each record, from which the measures of a task are computed.

All of it is private and stays at the site. Nothing is required of its values: whatever a unit
brings about, its vector is projected to the bound, and nobody is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Outcomes:
    """Of some records, in order. Private: has no useful repr.

    Attributes:
        losses: float64, shape (records,).
        groups: The declared subgroup that each is in, int64, shape (records,): an index, -1 for
            none of them; None where no column is declared.
    """

    losses: NDArray[np.float64]
    groups: NDArray[np.int64] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<private>)"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Labelled(Outcomes):
    """One label a record.

    Attributes:
        probabilities: float64, shape (records, labels).
        labels: The right ones, int64, shape (records,).
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]


class OneOfSeveral(Protocol):
    """Outcomes of one label a record, whether a head gives it or a response says it."""

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Of each label, float64, shape (records, labels)."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The right ones, int64, shape (records,); -1 where it is none of them."""


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class LabelSets(Outcomes):
    """Any number of labels a record.

    Attributes:
        claimed: bool, shape (records, labels).
        truth: bool, shape (records, labels).
    """

    claimed: NDArray[np.bool_]
    truth: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Tagged(Outcomes):
    """Words with a tag each.

    Attributes:
        right: Share of a record's words with the right tag, float64, shape (records,).
        entities: Those of each type.
    """

    right: NDArray[np.float64]
    entities: Entities


@dataclass(frozen=True, slots=True, repr=False)
class Entities:
    """Counts of entities by type; each float64, shape (records, types).

    Attributes:
        found: Claimed, and there.
        missed: There, and not claimed.
        invented: Claimed, and not there.
    """

    found: NDArray[np.float64]
    missed: NDArray[np.float64]
    invented: NDArray[np.float64]

    def __repr__(self) -> str:
        return "Entities(<private>)"


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Responses(Outcomes):
    """Texts that a language model was to write.

    Attributes:
        next_tokens: Share of a response's own tokens that were the likeliest, float64,
            shape (records,).
        whole: Whether all of them were, and the one that ends it; float64, shape (records,).
        probabilities: Of each declared response, against the others; float64, shape (records,
            responses), without columns where none is declared.
        labels: Place of the right one among them, -1 for none; int64, shape (records,).
    """

    next_tokens: NDArray[np.float64]
    whole: NDArray[np.float64]
    probabilities: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Preferences(Outcomes):
    """Pairs of answers, one of which was chosen.

    Attributes:
        preferred: 1 where training made the chosen one likelier by more than the other, a half
            where it made no difference; float64, shape (records,).
    """

    preferred: NDArray[np.float64]


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class Pairs(Outcomes):
    """Images with a text each.

    Attributes:
        cosines: Of image and text, float64, shape (records,).
        matched: Whether the image is nearer to its own text than to every public anchor that is
            another; float64, shape (records,).
    """

    cosines: NDArray[np.float64]
    matched: NDArray[np.float64]
