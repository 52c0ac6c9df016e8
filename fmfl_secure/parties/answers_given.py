"""How many answers a ledger's population has given lately, by all runs that charge it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from fmfl_secure.planning.terms import holds_answers
from privacy import Budget

YEAR: Final = timedelta(days=365)


def answers_given(budget: Budget, *, besides: str, now: datetime) -> int:
    """Answers of the last 365 days, and those that open reservations may still give.

    Args:
        budget: The ledger's state.
        besides: A reservation that does not count: the asking run's own.
        now: The time, with its zone.
    """
    found = 0
    for name, held in budget.reservations.items():
        if name == besides or not holds_answers(name):
            continue
        found += sum(datetime.fromisoformat(at) > now - YEAR for _, at in held.commits)
        found += held.remaining_rounds if held.open and not held.has_expired(now) else 0
    return found
