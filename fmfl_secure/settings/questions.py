"""`[question]`: what sites are asked instead of training, as public as all other settings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from fmfl_secure.settings.types import Positive, Section

# What may be asked: an entry each in `fmfl_secure.questions.registry`, and no other code.
QuestionName = Literal[
    "units", "labels", "lengths",
    "accuracy", "recall", "confusion", "calibration", "likelihood", "clipped-loss",
    "exact-sets", "label-scores", "entities", "tags", "next-token", "exact-match",
    "matched", "similarity", "subgroups",
]  # fmt: skip
_Edge = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class QuestionSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Questions that are answered by one sum and charged as one.

    Attributes:
        what: Which, at least one. All are in one answer and share its epsilon.
        epsilon: What the answer may cost every unit, repeats included, at `privacy.delta`.
        shares: What each may cost of the whole, adding up to 1; empty for the same of all.
        insider_epsilon: As `privacy.insider_epsilon`, of this answer alone.
        repeats: Answers that a site may compute again after a crash, paid for in advance. With
            none, such a site is missing in the answer.
        lengths: Tokens of a record, ascending: where one class of lengths ends and the next begins.
            Empty takes an eighth, a quarter, a half and the whole of `model.max_length`.
    """

    what: Annotated[tuple[QuestionName, ...], msgspec.Meta(min_length=1, max_length=16)]
    epsilon: Positive
    shares: tuple[Positive, ...] = ()
    insider_epsilon: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    repeats: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    lengths: Annotated[tuple[_Edge, ...], msgspec.Meta(max_length=64)] = ()

    def __post_init__(self) -> None:
        if len(set(self.what)) != len(self.what):
            raise ValueError("question.what asks one question twice")
        if self.shares and (
            len(self.shares) != len(self.what) or abs(sum(self.shares) - 1.0) > 1e-9
        ):
            raise ValueError(
                f"question.shares has {len(self.shares)} values that add up to "
                f"{sum(self.shares):g}, expected one for each question of question.what, adding "
                "up to 1"
            )
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError("question.lengths are not ascending")
