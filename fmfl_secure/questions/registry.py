"""All that may be asked."""

from __future__ import annotations

from typing import Final

from fmfl_secure.measures import MEASURES
from fmfl_secure.questions.base import Question
from fmfl_secure.questions.choice import Choice
from fmfl_secure.questions.counts import Labels, Lengths, Units
from fmfl_secure.questions.measured import Measured
from fmfl_secure.registry import Registry
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import QuestionSection
from privacy import QUERIES, Queries
from privacy.queries import Release

QUESTIONS: Final[Registry[Question]] = Registry(
    "question",
    (
        Units(),
        Labels(),
        Lengths(),
        *(Measured(each.name, each.said) for each in MEASURES),
        Choice(),
    ),
)


def questions_of(asked: QuestionSection) -> tuple[Question, ...]:
    """The questions of one answer, in order."""
    return tuple(QUESTIONS.get(name) for name in asked.what)


def sort_of(asked: QuestionSection) -> Queries:
    """Returns the sort that a site's policy must allow: the most that any of its questions is."""
    return max((question.sort for question in questions_of(asked)), key=QUERIES.index)


def release_of(config: FederationConfig, asked: QuestionSection) -> Release:
    """Joins the questions asked into one release.

    Raises:
        ConfigError: The settings have nothing that a question could be asked of.
    """
    queries = tuple(question.query(config, asked) for question in questions_of(asked))
    return Release(queries, asked.shares) if asked.shares else Release.of(*queries)
