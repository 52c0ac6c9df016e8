"""Describes an adapter that continues earlier runs, and what all of them cost together."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from fmfl_secure.planning.warm_start import ancestor_of, line_epsilon
from fmfl_secure.report import rounding
from fmfl_secure.report.names import count, listing
from fmfl_secure.run.record import RunRecord, encode_record


def sentences(record: RunRecord) -> list[str]:
    """Which runs an adapter continues, and what all of them cost together; none of a fresh one.

    Ledgers hold what each run cost a site's own people. This is of somebody who was in the data of
    every run of the line, at whichever site: nobody here can know that there is none.
    """
    if isinstance(record.line, msgspec.UnsetType):
        return []
    earlier = record.line.ancestors
    named = listing([f"{each.run} of {each.federation}" for each in earlier])
    text = (
        f"This adapter continues {count(len(earlier), 'earlier run')} ({named}): it started from "
        f"{record.line.initial_digest}."
    )
    if not record.rounds:
        return [text]
    runs = (*earlier, ancestor_of(encode_record(record), Path("report.json")))
    private = [each for each in runs if each.uses]
    units = sorted({each.unit for each in private})
    if not private:
        return [f"{text} All of them trained on data declared public."]
    if len(units) > 1:
        return [
            (
                f"{text} They protect different units ({listing(units)}), so that no figure holds "
                "for all of them together."
            )
        ]
    delta = record.mechanism.delta
    epsilon = line_epsilon(private, delta)
    if not math.isfinite(epsilon):
        return [
            (
                f"{text} One of them trained on private data without noise: no bound holds for "
                "somebody who was in it."
            )
        ]
    seen = " and what sites answered in these runs" if any(r.answer_event for r in runs) else ""
    return [
        (
            f"{text} By what the earlier ones' files state, somebody who was in the data of all "
            f"{len(runs)} runs is protected at epsilon {rounding.spent(epsilon)} and delta "
            f"{rounding.small(delta)} against whoever sees the adapters{seen}."
        )
    ]
