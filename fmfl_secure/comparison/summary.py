"""Means and spreads over the seeds, by arm and privacy target."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from fmfl_secure.comparison.arms import ARMS
from fmfl_secure.comparison.compare import UNTRAINED
from fmfl_secure.comparison.rows import Comparison


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the table.

    Attributes:
        arm: Its name.
        title: In words.
        epsilon: The privacy target; None where there is none.
        seeds: How many.
        mean: By metric.
        stdev: Sample standard deviation by metric; 0 of one seed.
    """

    arm: str
    title: str
    epsilon: float | None
    seeds: int
    mean: dict[str, float]
    stdev: dict[str, float]


def summarise(comparison: Comparison) -> list[Summary]:
    """The table's lines: by privacy target, in the order of `ARMS`."""
    order = [UNTRAINED, *ARMS]
    keys = sorted(
        {(row.epsilon or 0.0, order.index(row.arm)) for row in comparison.rows},
    )
    lines = []
    for epsilon, position in keys:
        arm = order[position]
        rows = [r for r in comparison.rows if r.arm == arm and (r.epsilon or 0.0) == epsilon]
        values = {metric: [row.metrics[metric] for row in rows] for metric in rows[0].metrics}
        lines.append(
            Summary(
                arm=arm,
                title=_title(arm, rows[0].metrics),
                epsilon=rows[0].epsilon,
                seeds=len(rows),
                mean={metric: statistics.mean(each) for metric, each in values.items()},
                stdev={
                    metric: statistics.stdev(each) if len(each) > 1 else 0.0
                    for metric, each in values.items()
                },
            )
        )
    return lines


def _title(arm: str, metrics: dict[str, float]) -> str:
    if arm != UNTRAINED:
        return ARMS[arm].title
    return "majority class" if set(metrics) == {"accuracy", "macro_f1"} else "before training"
