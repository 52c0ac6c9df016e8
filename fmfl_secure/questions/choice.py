"""Which of several adapters is right most often, by one joint answer.

A unit's vector says of each candidate by how much it is more often right than wrong there: the
task's first rate less 1/2, in [-1/2, 1/2]. So for m candidates it has norm sqrt(m) / 2 at most,
where asked one by one they would share out the epsilon. A last cell counts units, by halves.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.errors import ConfigError
from fmfl_secure.measures import measures_for
from fmfl_secure.measures.base import RATES, Rate
from fmfl_secure.questions.base import Question
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import QuestionSection
from privacy import Queries
from privacy.queries import Figure, Query, ratio

if TYPE_CHECKING:
    from fmfl_secure.questions.respondent import Respondent

LEVEL = 0.95


class Choice(Question):
    """The task's first rate, of every candidate; `question.candidates` names them."""

    name: ClassVar[str] = "choice"
    said: ClassVar[str] = "which candidate is right most often"
    sort: ClassVar[Queries] = "evaluation"
    of_held_out: ClassVar[bool] = True

    def query(self, config: FederationConfig, asked: QuestionSection) -> Query:
        """Makes a query of a candidate a cell, and one cell for all units.

        Raises:
            ConfigError: There is nothing to choose among, or the task has no rate.
        """
        self._rate(config)
        if not asked.candidates:
            raise ConfigError(
                "question.what asks for a choice, and question.candidates names none",
                hint="fmfl-secure choose asks it of a run's rounds and of exported adapters.",
            )
        cells = (*asked.candidates, "all units")
        return Query(self.name, cells, math.sqrt(len(cells)) / 2.0)

    @override
    def vectors(self, asked: QuestionSection, respondent: Respondent) -> NDArray[np.float64]:
        from fmfl_secure.questions.measured import outcomes_of  # noqa: PLC0415 - as Respondent

        rate = self._rate(respondent.config)
        found = np.zeros((len(respondent.data.units), len(asked.candidates) + 1))
        for cell in range(len(asked.candidates)):
            respondent.hold(cell)
            for row, own in outcomes_of(respondent).items():
                values = rate.vectors(own)[:, 0]
                found[row, cell] = values.mean() - 0.5
                found[row, -1] = 0.5
        return found

    @override
    def sums(
        self,
        config: FederationConfig,
        asked: QuestionSection,
        units: float,
    ) -> NDArray[np.float64]:
        """All candidates alike, by their rate."""
        cells = len(asked.candidates) + 1
        found = np.array([np.full(cells, rate - 0.5) for rate in RATES]) * units
        found[:, -1] = units / 2.0
        return found

    def figures(
        self,
        config: FederationConfig,
        asked: QuestionSection,
        cells: NDArray[np.float64],
        stddev: float,
    ) -> dict[str, Figure]:
        """Each candidate's rate, with intervals that hold for all of them at once (Bonferroni)."""
        rate, candidates = self._rate(config), len(cells) - 1
        found = {}
        for cell, name in enumerate(asked.candidates):
            part = np.zeros(len(cells))
            part[cell], part[-1] = 1.0, 1.0
            whole = np.zeros(len(cells))
            whole[-1] = 2.0
            level = 1.0 - (1.0 - LEVEL) / candidates
            found[name] = ratio(
                cells, part=part, whole=whole, stddev=stddev, scale=rate.scale, level=level
            )
        return found

    @staticmethod
    def _rate(config: FederationConfig) -> Rate:
        rates = [each for each in measures_for(config).values() if isinstance(each, Rate)]
        if not rates:
            raise ConfigError(
                f"the task {config.task.kind!r} has no rate that candidates could be compared by"
            )
        return rates[0]


def distance_of_winner(
    cells: NDArray[np.float64], stddev: float
) -> tuple[int, tuple[tuple[float, float], ...], float]:
    """Which candidate is ahead, by how much, and by how much noise alone may have lifted it.

    Args:
        cells: Of a choice's answer, float64, shape (candidates + 1,).
        stddev: Of the noise in every cell.

    Returns:
        Its number; by candidate, a 95 % interval of how many units' worth it is ahead, which hold
        for all at once; and the most that the winner's own figure is too high on average, in
        units: stddev times sqrt(2 ln m).
    """
    scores = cells[:-1]
    winner = int(scores.argmax())
    others = max(1, len(scores) * (len(scores) - 1) // 2)  # the pair was chosen by the data
    z = NormalDist().inv_cdf(1.0 - (1.0 - LEVEL) / (2.0 * others))
    reach = z * math.sqrt(2.0) * stddev
    ahead = tuple((float(d) - reach, float(d) + reach) for d in scores[winner] - scores)
    return winner, ahead, stddev * math.sqrt(2.0 * math.log(len(scores)))
