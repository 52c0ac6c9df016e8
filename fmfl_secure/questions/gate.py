"""That questions keep what they promise, measured on made-up records before any others are read.

Here everything may be said: nobody's data are in it. At a site a vector that is too long is
projected without a word.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from fmfl_secure.errors import ConfigError
from fmfl_secure.questions.registry import questions_of
from fmfl_secure.questions.respondent import Respondent
from fmfl_secure.settings.questions import QuestionSection
from privacy.queries import PROJECTION_TOLERANCE

# Batches of other sizes may round the last digits of a forward pass otherwise.
_TOLERANCE: Final = 1e-4


def check_questions(asked: QuestionSection, respondent: Respondent) -> None:
    """Require of made-up units that each has a vector of its own, within the bound.

    Args:
        asked: What is asked.
        respondent: With the task's made-up records as its data.

    Raises:
        ConfigError: A question breaks what it promises.
    """
    records = [int(record) for unit in respondent.data.units for record in unit]
    pairs = [np.array(records[start : start + 2]) for start in range(0, len(records), 2)]
    together = _vectors(asked, respondent, pairs)
    alone = [_vectors(asked, respondent, [pair]) for pair in pairs]
    for question in questions_of(asked):
        query, rows = question.query(respondent.config, asked), together[question.name]
        if rows.shape != (len(pairs), query.dimension):
            raise ConfigError(
                f"question {question.name!r} has vectors of another shape than it says"
            )
        norms = np.linalg.norm(rows, axis=1)
        if not bool((norms <= query.l2 * (1.0 + PROJECTION_TOLERANCE)).all()):
            raise ConfigError(f"question {question.name!r} breaks its own bound {query.l2:g}")
        apart = np.concatenate([each[question.name] for each in alone])
        if not np.allclose(rows, apart, rtol=0.0, atol=_TOLERANCE * query.l2):
            raise ConfigError(
                f"question {question.name!r} says something else of a unit when others are there"
            )


def _vectors(
    asked: QuestionSection, respondent: Respondent, units: list[np.ndarray]
) -> dict[str, np.ndarray]:
    own = dataclasses.replace(
        respondent, data=dataclasses.replace(respondent.data, units=units), _computed={}
    )
    return {question.name: question.vectors(asked, own) for question in questions_of(asked)}
