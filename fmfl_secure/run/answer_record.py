"""A run's answers as its record keeps them, and as people read them.

Figures are made of released sums by public arithmetic: they cost nothing more, whoever looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from fmfl_secure.run import ranges
from fmfl_secure.run.ranges import Count, Estimate, Number
from privacy.queries import Figure

Interval = tuple[Estimate, Estimate]

# What is said beside every answer, wherever it is shown.
ONE_SITE: Final = (
    "One dishonest site can move any answer by as much as the range allows, and nobody can tell."
)
TWO_INTERVALS: Final = (
    "Each figure has two 95 % intervals: of the noise alone, where the figure of these very units "
    "lies; and with sampling, where that of the people lies whom they were drawn from."
)
# Beyond so much of the noise alone a share is called imprecise; a count or value, of itself.
_IMPRECISE_SHARE, _IMPRECISE_PART = 0.1, 0.5


class FigureRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of an answer.

    Attributes:
        value: The estimate; null where the noise leaves none.
        noise: 95 % interval of the noise alone; null where nothing can be said.
        sampling: 95 % interval of noise and sampling; null of a count, which is of these units.
    """

    value: Estimate | None
    noise: Interval | None
    sampling: Interval | None

    @classmethod
    def of(cls, figure: Figure) -> FigureRecord:
        """A figure as it is kept."""
        return cls(figure.value, figure.noise, figure.sampling)

    @property
    def imprecise(self) -> bool:
        """Whether the noise alone reaches beyond 10 points of a share, or half of anything else."""
        if self.value is None or self.noise is None:
            return True
        half = (self.noise[1] - self.noise[0]) / 2.0
        if self.sampling is not None and self.sampling[1] <= 1.0:
            return half > _IMPRECISE_SHARE
        return half > _IMPRECISE_PART * abs(self.value)

    @property
    def text(self) -> str:
        """The figure with its intervals."""
        if self.value is None or self.noise is None:
            return "none: the noise leaves no figure"
        told = [f"noise {_span(self.noise)}"]
        if self.sampling is not None:
            told.append(f"with sampling {_span(self.sampling)}")
        note = "; imprecise" if self.imprecise else ""
        return f"{number(self.value)} ({', '.join(told)}{note})"


class AnswerRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer.

    Attributes:
        round: The round that asked.
        trained: Rounds of training before it.
        sites: How many sites are in it.
        epsilon: What it costs every unit by itself; together answers cost less than they add up to.
        figures: By question, and by name.
        ahead: Of a choice, by candidate, how far the one ahead is ahead of it, in units: 95 %
            intervals that hold for all at once. Absent of every other answer.
    """

    round: Number
    trained: Count
    sites: Number
    epsilon: ranges.Figure
    figures: dict[str, dict[str, FigureRecord]]
    ahead: dict[str, Interval] | msgspec.UnsetType = msgspec.UNSET

    @property
    def who_is_ahead(self) -> str:
        """Of a choice, who is ahead and whether noise may have done it, in a sentence; else empty.

        It is ahead of itself by an interval around 0, and of every other by one further up.
        """
        if not self.ahead:
            return ""
        winner = min(self.ahead, key=lambda name: sum(self.ahead[name]))  # type: ignore[index]
        close = [n for n, (low, _) in self.ahead.items() if n != winner and low <= 0.0]
        if not close:
            return f"{winner} is ahead of all others, by more than noise does."
        return f"{winner} is ahead; noise may have put it before {', '.join(close)}."

    @property
    def first(self) -> tuple[str, FigureRecord] | None:
        """The figure to watch: the first of the first question."""
        for figures in self.figures.values():
            for name, figure in figures.items():
                return name, figure
        return None

    @property
    def line(self) -> str:
        """The figure to watch, in one line, with what it cost."""
        if self.first is None:
            return ""
        name, figure = self.first
        told = self.who_is_ahead or f"{name} {figure.text}"
        return f"{told}  for epsilon {self.epsilon:.3f} by itself"


def records_of(
    figures: Mapping[str, Mapping[str, Figure]],
) -> dict[str, dict[str, FigureRecord]]:
    """Figures as they are kept."""
    return {
        question: {name: FigureRecord.of(figure) for name, figure in found.items()}
        for question, found in figures.items()
    }


def number(value: float) -> str:
    """A figure to three places, and a large one as a whole number."""
    return f"{value:.3f}" if abs(value) < 10.0 else f"{value:,.0f}"


def _span(interval: Interval) -> str:
    return f"{number(interval[0])} to {number(interval[1])}"
