"""A run's answers as figures, made of the sums that its rounds keep."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fmfl_secure.planning.answers import ahead_of, answer_epsilon, figures_of
from fmfl_secure.run.answer_record import AnswerRecord, records_of
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import FederationConfig


def answer_of(config: FederationConfig, record: RoundRecord) -> AnswerRecord | None:
    """Computes the figures of a round's answer; None of a round that trained, or was lost.

    Args:
        config: The settings that the run follows.
        record: The round.

    Raises:
        ConfigError: It is not an answer to these settings.
    """
    if record.answer is msgspec.UNSET or record.status != "released":
        return None
    return AnswerRecord(
        round=record.round,
        trained=config.turn(record.round).training,
        sites=len(record.cohort),
        epsilon=answer_epsilon(config),
        figures=records_of(figures_of(config, record.answer, len(record.cohort))),
        ahead=ahead_of(config, record.answer, len(record.cohort)) or msgspec.UNSET,
    )


def answers_of(config: FederationConfig, rounds: Iterable[RoundRecord]) -> tuple[AnswerRecord, ...]:
    """Computes the figures of all answers of a run, in order.

    Raises:
        ConfigError: One is not an answer to these settings.
    """
    found = (answer_of(config, record) for record in rounds)
    return tuple(answer for answer in found if answer is not None)
