"""Words a rehearsal's findings as sentences: for the log, the live page and the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aggregation import DEVIATIONS, UNREVEALED
from fmfl_secure.run.record import RehearsalRecord, RoundRecord
from fmfl_secure.run.refusal_codes import meaning

_OCCASIONS = {"start": "before the first round", "failure": "after a failure"}


def rehearsal_in_words(record: RehearsalRecord) -> str:
    """Who was named and why, or that nobody was."""
    told = f"Rehearsal {record.number}, {_OCCASIONS[record.occasion]}"
    if record.named:
        return f"{told}: " + "; ".join(
            f"{name}: {deviation_in_words(word)}" for name, word in record.named.items()
        )
    if not record.holds:
        return f"{told}: nobody is named. {record.reason or 'The public sum did not come out'}"
    if record.occasion == "start":
        return f"{told}: everybody sent what is right, and the public sum came out"
    return (
        f"{told}: everybody sent what is right. What failed has passed, or whoever spoiled the "
        "attempt behaves in rehearsals"
    )


def judged_in_words(
    number: int, named: Mapping[str, str], recorded: Mapping[str, str] | None, fault: str
) -> list[str]:
    """Words the judgement of a rehearsal, line by line.

    Args:
        number: Which of the run's.
        named: Whom the evidence names, and why.
        recorded: What the run's record says, if there is one.
        fault: Why it does not hold.
    """
    if fault:
        return [f"rehearsal {number}: DOES NOT HOLD: {fault}"]
    lines = [f"rehearsal {number}: holds, and names {'these' if named else 'nobody'}"]
    for name, word in named.items():
        rests = " (by the server's word alone)" if word == UNREVEALED else ""
        lines.append(f"  {name}: {deviation_in_words(word)}{rests}")
    for name, word in (recorded or {}).items():
        if name not in named:
            lines.append(f"  {name}: {deviation_in_words(word)} (by the server's word alone)")
    return lines


def deviation_in_words(word: str) -> str:
    """Explains why a rehearsal names somebody."""
    return DEVIATIONS.get(word) or meaning(f"attempt.{word}")


def rehearsals_of(rounds: Iterable[RoundRecord]) -> list[RehearsalRecord]:
    """All rehearsals of a run's rounds, in order."""
    return [each for one in rounds if isinstance(one.rehearsals, tuple) for each in one.rehearsals]
