"""Asks `fmfl_secure.measures` of the units that sites set apart, as questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.measures import measure_named, unit_vectors
from fmfl_secure.questions.base import Question
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import QuestionSection
from privacy import Queries
from privacy.queries import Figure, Query

if TYPE_CHECKING:
    from fmfl_secure.questions.respondent import Respondent


class Measured(Question):
    """A measure of the settings' task.

    A unit is looked at by itself, its records in a batch of their own: in a batch with others, the
    last digits of what a model makes of it would depend on them, and an answer that is right or
    wrong does not shrink such a difference.

    Args:
        name: Of the measure.
        said: What is asked, for people.
    """

    of_held_out = True
    sort: ClassVar[Queries] = "evaluation"

    def __init__(self, name: str, said: str) -> None:
        self.name = name  # type: ignore[misc]
        self.said = said  # type: ignore[misc]

    def query(self, config: FederationConfig, asked: QuestionSection) -> Query:  # noqa: ARG002
        """Makes the query of a measure's cells.

        Raises:
            ConfigError: The task has no such measure.
        """
        return measure_named(config, self.name).query

    @override
    def vectors(self, asked: QuestionSection, respondent: Respondent) -> NDArray[np.float64]:
        """Zero of a unit that is trained on, where others are set apart."""
        measure, data = measure_named(respondent.config, self.name), respondent.data
        outcomes = respondent.once("outcomes", lambda: outcomes_of(respondent))
        found = np.zeros((len(data.units), self.query(respondent.config, asked).dimension))
        for row, own in outcomes.items():
            found[row] = unit_vectors(measure, own, [np.arange(len(data.units[row]))])[0]
        return found

    @override
    def sums(
        self,
        config: FederationConfig,
        asked: QuestionSection,
        units: float,
    ) -> NDArray[np.float64]:
        return measure_named(config, self.name).sums(units)

    @override
    def figures(
        self,
        config: FederationConfig,
        asked: QuestionSection,
        cells: NDArray[np.float64],
        stddev: float,
    ) -> dict[str, Figure]:
        measure = measure_named(config, self.name)
        return {each.name: each.figure for each in measure.findings(cells, stddev)}


def outcomes_of(respondent: Respondent) -> dict[int, Any]:
    """Returns the model's outcomes of each unit that is asked about, by its place among all."""
    data, found = respondent.data, {}
    asked = data.held_out if len(data.held_out) else np.ones(len(data.units), dtype=np.bool_)
    for row in np.flatnonzero(asked).tolist():
        if not len(data.units[row]):
            continue
        own = data.only(data.units[row])
        found[row] = respondent.task.outcomes(respondent.model, own, batch_size=own.records)
    return found
