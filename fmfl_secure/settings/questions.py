"""`[question]`: what sites are asked instead of trained, or between rounds of training.

As public as all other settings. Each answer is a round of its own; `Turn` says what a round is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from fmfl_secure.settings.types import Digest, NonEmpty, Positive, Section

# What may be asked: an entry each in `fmfl_secure.questions.registry`, and no other code.
MeasureName = Literal[
    "accuracy", "recall", "confusion", "calibration", "likelihood", "clipped-loss",
    "exact-sets", "label-scores", "entities", "tags", "next-token", "exact-match",
    "preferred", "matched", "similarity", "subgroups",
]  # fmt: skip
QuestionName = Literal["units", "labels", "lengths", MeasureName, "choice"]
# What is asked of a task's models where settings do not say, by kind of task.
FIRST_MEASURES: Mapping[str, MeasureName] = MappingProxyType(
    {
        "text-classification": "accuracy",
        "image-classification": "accuracy",
        "image-text-classification": "accuracy",
        "multi-label-classification": "exact-sets",
        "token-classification": "entities",
        "causal-lm": "next-token",
        "preference": "preferred",
        "image-text": "similarity",
    }
)
_Edge = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class QuestionSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Questions that are answered by one sum and charged as one.

    Attributes:
        what: Which, at least one. All are in one answer and share its epsilon.
        epsilon: What all answers of a run may cost every unit, repeats included, at
            `privacy.delta`. Training is charged beside it.
        every: Training rounds from one answer to the next; the last round is always followed by
            one. 0 for a run that trains nothing and gives one answer.
        shares: What each may cost of the whole, adding up to 1; empty for the same of all.
        insider_epsilon: As `privacy.insider_epsilon`, of these answers alone.
        adapter: Digest of the adapter that is asked about, where nothing is trained and it is not
            the one that training would start from.
        repeats: Answers that a site may compute again after a crash, paid for in advance. With
            none, such a site is missing in the answer.
        candidates: For a choice: names of the adapters that are joined in `adapter`, in order.
        lengths: Tokens of a record, ascending: where one class of lengths ends and the next begins.
            Empty takes 16, 32, 64 and so on to 4096.
    """

    what: Annotated[tuple[QuestionName, ...], msgspec.Meta(min_length=1, max_length=16)]
    epsilon: Positive
    every: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    shares: tuple[Positive, ...] = ()
    insider_epsilon: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    repeats: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    adapter: Digest = ""
    candidates: Annotated[tuple[NonEmpty, ...], msgspec.Meta(max_length=16)] = ()
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
        if self.every and self.adapter:
            raise ValueError("question.adapter is for a run that trains nothing: every = 0")
        if self.candidates and (
            self.what != ("choice",) or len(set(self.candidates)) < max(2, len(self.candidates))
        ):
            raise ValueError(
                "question.candidates are for a choice by itself, at least two and none twice"
            )
        if list(self.lengths) != sorted(set(self.lengths)):
            raise ValueError("question.lengths are not ascending")

    def answers(self, rounds: int) -> int:
        """How many answers a run of so many rounds of training gives."""
        return -(-rounds // self.every) if self.every else 1


@dataclass(frozen=True, slots=True)
class Turn:
    """The purpose of one round of a run.

    Attributes:
        training: How many rounds of training there are up to its end.
        asked: What is asked in it; None where it trains.
    """

    training: int
    asked: QuestionSection | None = None


def rounds_of(training: int, asked: QuestionSection | None) -> int:
    """All rounds of a run that trains for so many and asks this."""
    if asked is None:
        return training
    return asked.answers(training) + (training if asked.every else 0)


def turn_of(number: int, training: int, asked: QuestionSection | None) -> Turn:
    """Returns the purpose of a round of such a run; rounds count from 1."""
    if asked is None:
        return Turn(number)
    if not asked.every:
        return Turn(0, asked)
    block, place = divmod(number - 1, asked.every + 1)
    trained = block * asked.every + place + 1
    if place == asked.every or trained > training:
        return Turn(min((block + 1) * asked.every, training), asked)
    return Turn(trained)
