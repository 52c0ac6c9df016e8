"""Measures that are the mean of one bounded value a record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.measures.base import Rate
from fmfl_secure.measures.outcomes import Outcomes, Pairs, Preferences, Responses


@dataclass(frozen=True)
class ClippedLoss(Rate):
    """Mean loss, each record's cut at a bound: the mean of clipped values, and called so.

    Attributes:
        bound: Largest loss that counts as such.
    """

    name = "clipped-loss"
    said = "mean of losses, each cut at the bound"
    kind = "value"

    bound: float

    @property
    def scale(self) -> float:  # type: ignore[override]
        """The bound: values are in units of it."""
        return self.bound

    def values(self, outcomes: Outcomes) -> NDArray[np.float64]:
        """Over the bound; what is no number counts as the largest."""
        return np.nan_to_num(outcomes.losses, nan=np.inf) / self.bound


class NextToken(Rate):
    """Mean share of a response's tokens that were the likeliest."""

    name = "next-token"
    said = "mean share of a response's tokens that the model would have chosen"

    def values(self, outcomes: Responses) -> NDArray[np.float64]:
        """Returns the share of right next tokens of each response."""
        return outcomes.next_tokens


class ExactMatch(Rate):
    """Share of responses that are predicted whole."""

    name = "exact-match"
    said = "share of responses that the model would have written word for word"

    def values(self, outcomes: Responses) -> NDArray[np.float64]:
        """Returns 1 for each response that would be given whole, else 0."""
        return outcomes.whole


class Preferred(Rate):
    """Share of pairs whose chosen answer has the higher implicit reward."""

    name = "preferred"
    said = "share of pairs in which training moved the model to the answer that was chosen"

    def values(self, outcomes: Preferences) -> NDArray[np.float64]:
        """1 where it did, a half where it moved to neither."""
        return outcomes.preferred


class Matched(Rate):
    """Share of images nearer to their own text than to any public anchor."""

    name = "matched"
    said = "share of images that are nearer to their own text than to every other anchor"

    def values(self, outcomes: Pairs) -> NDArray[np.float64]:
        """Returns 1 for each pair that is matched, else 0."""
        return outcomes.matched


class Similarity(Rate):
    """Mean cosine of an image and its text, those below zero as zero."""

    name = "similarity"
    said = "mean cosine of image and text, those below 0 counted as 0"
    kind = "value"

    def values(self, outcomes: Pairs) -> NDArray[np.float64]:
        """Returns the cosine of each pair."""
        return outcomes.cosines
