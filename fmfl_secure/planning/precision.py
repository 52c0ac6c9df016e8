"""How precise an answer would be, before it is asked: from public settings alone.

By the figures themselves, of made-up answers (`privacy.queries.foreseen`): there is no second
formula that could say something else than what is shown afterwards.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.questions.registry import questions_of
from fmfl_secure.settings.federation import FederationConfig
from privacy.queries import Width, count, foreseen


@dataclass(frozen=True, slots=True)
class Precision:
    """One question's: what 19 of 20 answers keep to, at the rate or share that is widest.

    All sites take part.

    Attributes:
        question: Its name.
        said: What is asked, for people.
        cells: How many figures its sum has.
        units: Whom it is asked of, as declared.
        stddev: Of the noise in a cell.
        count: Half width of a count's 95 % interval, of the noise alone.
        figure: Name of its first figure that is no count; empty where all are.
        share: Half width of that one's interval, of the noise alone: of a rate up to .95, or a
            share up to a half of all. None where all figures are counts, or where more than one
            answer in 20 would say nothing.
        sampling: The same with sampling.
        widest: As `share`, of the figure of them all that is widest.
    """

    question: str
    said: str
    cells: int
    units: float
    stddev: float
    count: float
    figure: str
    share: float | None
    sampling: float | None
    widest: float | None


@functools.lru_cache(maxsize=64)
def precisions(config: FederationConfig) -> tuple[Precision, ...]:
    """Foresees how precise an answer to these settings would be, question by question.

    Raises:
        ConfigError: The settings ask nothing, or what the task has not.
        PlanError: The settings cannot be met.
    """
    plan, asked = answer_plan(config), asked_of(config)
    everybody = float(sum(site.population for site in config.sites))
    found = []
    for question, query in zip(questions_of(asked), plan.release.queries, strict=True):
        stddev = plan.answer_stddev(query, len(config.sites))
        held_out = question.of_held_out and config.evaluation.holdout
        units = everybody * (config.evaluation.holdout if held_out else 1.0)
        widths = foreseen(
            functools.partial(question.figures, config, asked, stddev=stddev),
            question.sums(config, asked, units),
            stddev,
        )
        shares = {name: width for name, width in widths.items() if width.sampling is not None}
        name = next(iter(shares), "")
        first = shares.get(name, Width(math.inf, math.inf))
        _, end = count(0.0, stddev).noise or (0.0, 0.0)
        found.append(
            Precision(
                question=query.name,
                said=question.said,
                cells=query.dimension,
                units=units,
                stddev=stddev,
                count=end,
                figure=name,
                share=_said(first.noise),
                sampling=_said(first.sampling),
                widest=_said(max((width.noise for width in shares.values()), default=math.inf)),
            )
        )
    return tuple(found)


def _said(half_width: float | None) -> float | None:
    return half_width if half_width is not None and math.isfinite(half_width) else None
