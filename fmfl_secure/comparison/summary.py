"""Means and spreads over the seeds, by privacy target, partition, adapter and arm."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from fmfl_secure.comparison.arms import ARMS
from fmfl_secure.comparison.compare import START, UNTRAINED
from fmfl_secure.comparison.rows import OWN, Comparison, Row


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the table.

    Attributes:
        partition: Who had which data.
        adapter: Kind of adapter; empty where none was trained.
        arm: Its name.
        title: In words.
        epsilon: The privacy target; None where there is none.
        seeds: How many.
        mean: By metric.
        stdev: Sample standard deviation by metric; 0 of one seed.
    """

    partition: str
    adapter: str
    arm: str
    title: str
    epsilon: float | None
    seeds: int
    mean: dict[str, float]
    stdev: dict[str, float]


def summarise(comparison: Comparison) -> list[Summary]:
    """The table's lines: by privacy target, partition, adapter as they came, order of `ARMS`."""
    arms = [UNTRAINED, START, *ARMS]
    partitions = list(dict.fromkeys([OWN, *(row.partition for row in comparison.rows)]))
    adapters = list(dict.fromkeys(["", *(row.adapter for row in comparison.rows)]))
    groups: dict[tuple[float, int, int, int], list[Row]] = {}
    for row in comparison.rows:
        place = (
            row.epsilon or 0.0,
            partitions.index(row.partition),
            adapters.index(row.adapter),
            arms.index(row.arm),
        )
        groups.setdefault(place, []).append(row)
    return [_line(groups[place]) for place in sorted(groups)]


def _line(rows: list[Row]) -> Summary:
    first = rows[0]
    values = {metric: [row.metrics[metric] for row in rows] for metric in first.metrics}
    return Summary(
        partition=first.partition,
        adapter=first.adapter,
        arm=first.arm,
        title=_title(first),
        epsilon=first.epsilon,
        seeds=len(rows),
        mean={metric: statistics.mean(each) for metric, each in values.items()},
        stdev={
            metric: statistics.stdev(each) if len(each) > 1 else 0.0
            for metric, each in values.items()
        },
    )


def _title(row: Row) -> str:
    if row.arm in ARMS:
        return ARMS[row.arm].title
    # What has classes and was not asked for a loss is the majority class.
    return "before training" if row.arm == START or "loss" in row.metrics else "majority class"
