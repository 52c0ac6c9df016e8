"""Each plot as text, for whoever does not see it."""

from __future__ import annotations

from collections.abc import Sequence

from fmfl_secure.report import rounding
from fmfl_secure.report.names import capital, count, who
from fmfl_secure.report.overview import Account, Track
from fmfl_secure.report.wording import metric
from fmfl_secure.run.record import RunRecord


def epsilon_alternative(record: RunRecord, drawn: Sequence[Track]) -> str:
    """The epsilon plot as text."""
    return " ".join(
        f"{capital(who(one.sites, len(record.sites)))}: {rounding.spent(one.before)} before the "
        f"run, {rounding.spent(one.final)} after {count(len(one.spent), 'training')}, of a grant "
        f"of {rounding.typed(one.granted)}."
        for one in drawn
    )


def budget_alternative(drawn: Sequence[Account]) -> str:
    """The budget plot as text."""
    return " ".join(
        f"{capital(one.label)}: granted {rounding.typed(one.grant.epsilon)}, spent "
        f"{rounding.spent(one.grant.epsilon_spent)}, charged with what is held "
        f"{rounding.spent(one.grant.epsilon_charged)}, left "
        f"{rounding.left(one.grant.epsilon_left)}."
        for one in drawn
    )


def utility_alternative(record: RunRecord, names: Sequence[str]) -> str:
    """The utility plot as text."""
    found = []
    for name in names:
        before = record.initial_metrics.get(name)
        after = [one.metrics[name] for one in record.rounds if name in one.metrics]
        text = f"{name}:"
        if before is not None:
            text += f" {metric(before)} before the first round"
        if after:
            text += f"{',' if before is not None else ''} {metric(after[-1])} at the end"
        found.append(f"{text}.")
    return " ".join(found)
