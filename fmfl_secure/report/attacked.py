"""The words for attacks on a finished adapter, on the page and on the command line.

An attack that finds nothing shows that this attack finds nothing. What holds against all of them is
epsilon, and a large one holds little: both are said beside every figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from fmfl_secure.report import rounding
from fmfl_secure.report.names import count, listing
from fmfl_secure.run.attack_record import AttackRecord, ToldMembers, ToldSecret, ToldSites
from fmfl_secure.run.record import RunRecord

_NO_BOUND = "no bound: the run trained without noise"


Row = tuple[str, str, str]
"""What was tried, what was found, and the most that epsilon allows anybody."""


def figures(record: AttackRecord) -> list[Row]:
    """All that was found, a row each."""
    rows = [row for each in record.membership for row in _of_members(record, each)]
    if record.told_sites is not None:
        rows.append(_of_sites(record, record.told_sites))
    return [*rows, *(_of_secret(record, each) for each in record.secrets)]


def sentences(record: AttackRecord) -> list[str]:
    """Says what the attacks' figures show, and what they do not."""
    found = []
    if record.beyond_epsilon and record.epsilon is not None:
        found.append(
            "STOP. Members are told better than epsilon allows anybody. Either the others are no "
            "data like theirs, or the training is not what the plan says: compare the files, and "
            "run fmfl-secure audit before anything of this is used."
        )
    elif record.flagged:
        found.append(
            "This adapter tells who it was trained on. Do not hand it on as one that does not: "
            "train with a smaller epsilon, on more people, or for fewer steps."
        )
    else:
        found.append(
            "These attacks tell little or nothing of who was trained on. That is all this says: "
            "better attacks may find more, up to what epsilon allows, and of other people."
        )
    if record.epsilon is None:
        found.append("The run has no epsilon: nothing bounds what an attack may find.")
    elif record.allowed_auc > 0.9:
        found.append(
            f"Epsilon {rounding.spent(record.epsilon)} by itself excludes little: up to "
            f"{record.allowed_auc:.3f} of area. What keeps attacks below that is not promised."
        )
    others = (
        "units that the sites set apart"
        if record.others_from == "held-out"
        else "public-like units; where these are of another kind than the members, that is told as "
        "well, and the figures are too high"
    )
    models = count(record.references, "reference model")
    found.append(
        f"{rounding.count(record.members)} members of {listing(record.sites)} against "
        f"{rounding.count(record.others)} {others}; {models} on public-like data. The bound is of "
        "the worst member and the best attack, at the epsilon that the run reserved (Kairouz, Oh "
        "and Viswanath 2015)."
    )
    return found


def warnings(record: RunRecord) -> list[str]:
    """Warns of an attack that a reader of the report must not miss."""
    found = record.attack
    if isinstance(found, AttackRecord) and (found.flagged or found.beyond_epsilon):
        return sentences(found)[:1]
    return []


def _of_members(record: AttackRecord, told: ToldMembers) -> Iterator[Row]:
    interval = f"{told.low:.2f} to {told.high:.2f} with {record.confidence * 100:g} % confidence"
    yield (
        f"Who was trained on, by {told.attack}: area under the curve",
        f"{told.auc:.2f} ({interval}); 0.5 is guessing",
        _allowed(record, record.allowed_auc),
    )
    rates = record.false_positives, told.true_positives, record.allowed_true_positives
    for rate, found, most in zip(*rates, strict=True):
        what = f"the same: members found, at {rate:.0%} of others taken for members"
        yield what, f"{found:.1%}", _allowed(record, most)


def _of_sites(record: AttackRecord, told: ToldSites) -> Row:
    found = f"{told.right:.1%} with the adapter, {told.without:.1%} without it"
    allowed = _allowed(record, told.allowed)
    return (
        f"Which of {told.sites} sites a member is at: right guesses",
        f"{found}; guessing is {1 / told.sites:.1%}",
        allowed if record.epsilon is None else f"{allowed}, were all as likely beforehand",
    )


def _of_secret(record: AttackRecord, told: ToldSecret) -> Row:
    bits = f"{told.exposure:.1f} of {math.log2(told.candidates):.1f} bits"
    chance = f"so much by a chance of {rounding.small(told.by_chance)} at most"
    return (
        f"Planted secret {told.number}, in {count(told.units, 'unit')}: exposure",
        f"{bits}, among {rounding.count(told.candidates)} texts of its form",
        _NO_BOUND if record.epsilon is None else chance,
    )


def _allowed(record: AttackRecord, most: float) -> str:
    if record.epsilon is None:
        return _NO_BOUND
    # Rounded up: a bound that is rounded down is none.
    return f"at most {min(1.0, most + 0.0005):.3f}"
