"""Sentences about the deltas of a ledger's grants: declared size, reasons, what does not stand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import msgspec

from fmfl_secure.report import rounding
from fmfl_secure.run.statement import GrantRecord
from privacy import above_limit, as_written, largest_delta

NOT_DECLARED = "population size not declared"


def declared(population_size: int | msgspec.UnsetType | None) -> str:
    """How many units a ledger's grants and runs have declared, in words."""
    if not population_size:
        return NOT_DECLARED
    return f"{rounding.count(population_size)} units declared"


def note(grant: GrantRecord, *, on: dt.date | None = None) -> str:
    """Says what one grant's figures leave out; empty if nothing is.

    Args:
        grant: The grant.
        on: The day as of which a day of review is past; None says nothing of that.
    """
    parts = grant.decided.sentences(on)
    parts += [f"Why its delta: {grant.delta_reason}"] if grant.delta_reason else []
    parts += [f"Affords nothing: {grant.objection}"] if grant.objection else []
    if grant.exact:
        parts.append("Exact: for one run as it was fixed beforehand, and no other")
    if grant.lowered_from:
        parts.append(
            f"Lowered from {rounding.typed(grant.lowered_from)} after trainings were charged to "
            "it, which the guarantee still counts"
        )
    parts += [f"Closed: {grant.closed}"] if grant.closed else []
    return ". ".join(parts)


def warnings(
    owner: str, grants: Sequence[GrantRecord], population_size: int | msgspec.UnsetType | None
) -> list[str]:
    """Warns of grants that afford nothing, and of deltas above 1 / (10 n).

    Args:
        owner: Whose ledger, in words.
        grants: All of it.
        population_size: The largest declared; unset or None if none was.
    """
    found = [
        f"Grant {grant.number} of {owner} affords nothing: {grant.objection}."
        for grant in grants
        if grant.objection
    ]
    counted = [grant for grant in grants if grant.counts]
    total = rounding.add(grant.counted_delta for grant in counted)
    if not population_size or not above_limit(as_written(total), population_size):
        return found
    bound = rounding.typed(largest_delta(population_size))
    text = (
        f"The deltas of {owner} come to {rounding.small(total)}, above 1 / (10 x "
        f"{rounding.count(population_size)} declared units) = {bound}."
    )
    reasons = [
        f"The custodian's reason, with grant {grant.number}: {grant.delta_reason}"
        for grant in counted
        if grant.delta_reason
    ]
    return [*found, " ".join([text, *reasons] if reasons else [text, "No reason is recorded."])]
