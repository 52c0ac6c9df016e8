"""How precise an answer would be, before it is asked: from public settings alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.questions.registry import questions_of
from fmfl_secure.settings.federation import FederationConfig
from privacy.queries import count, half_width_of_share

_HALF: Final = 0.5  # the share whose sampling error is largest


@dataclass(frozen=True, slots=True)
class Precision:
    """One question's, all sites taking part.

    Attributes:
        question: Its name.
        said: What is asked, for people.
        cells: How many figures its sum has.
        units: Whom it is asked of, as declared.
        stddev: Of the noise in a cell.
        count: Half width of a count's 95 % interval, of the noise alone.
        share: The same of a share of all units, of two cells and about a half.
        sampling: The same with sampling.
    """

    question: str
    said: str
    cells: int
    units: float
    stddev: float
    count: float
    share: float
    sampling: float


def precisions(config: FederationConfig) -> tuple[Precision, ...]:
    """What an answer to these settings would come to, question by question.

    Raises:
        ConfigError: The settings ask nothing, or what the task has not.
        PlanError: The settings cannot be met.
    """
    plan = answer_plan(config)
    everybody = float(sum(site.population for site in config.sites))
    found = []
    for question, query in zip(questions_of(asked_of(config)), plan.release.queries, strict=True):
        stddev = plan.answer_stddev(query, len(config.sites))
        held_out = question.of_held_out and config.evaluation.holdout
        units = everybody * (config.evaluation.holdout if held_out else 1.0)
        noise, sampling = half_width_of_share(_HALF, units, stddev)
        _, end = count(0.0, stddev).noise or (0.0, 0.0)
        found.append(
            Precision(
                question=query.name,
                said=question.said,
                cells=query.dimension,
                units=units,
                stddev=stddev,
                count=end,
                share=noise,
                sampling=sampling,
            )
        )
    return tuple(found)
