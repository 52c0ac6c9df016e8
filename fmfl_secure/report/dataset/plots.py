"""Epsilon over a ledger's life, as an SVG element that stands in the page."""

from __future__ import annotations

import math

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmfl_secure.planning.terms import run_of
from fmfl_secure.report import rounding
from fmfl_secure.report.dataset.record import DatasetRecord
from fmfl_secure.report.names import count
from fmfl_secure.report.plots import LIMIT, SERIES, STYLE, WIDTH, as_svg, label_of

_MARKED = 40  # trainings; beyond, points would hide the line
_NAMED = 8  # runs; beyond, their names would overlap


def life_plot(record: DatasetRecord) -> str:
    """Epsilon spent of each grant after each charge; empty if none is finite."""
    grants = [
        grant
        for grant in record.grants
        if any(t.grant == grant.number and math.isfinite(t.epsilon_after) for t in record.trainings)
    ][: len(SERIES)]
    if not grants:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        highest = 0.0
        for grant, (color, marker, line) in zip(grants, SERIES, strict=False):
            places, values = [0], [0.0]
            for place, training in enumerate(record.trainings, start=1):
                if training.grant == grant.number and math.isfinite(training.epsilon_after):
                    places.append(place)
                    values.append(training.epsilon_after)
            places.append(len(record.trainings))
            values.append(values[-1])
            several = len(grants) > 1
            axes.step(places, values, where="post", color=color, linestyle=line, linewidth=2)
            axes.plot(
                places[1:-1],
                values[1:-1],
                color=color,
                linestyle="none",
                marker=marker,
                markersize=5 if len(places) <= _MARKED else 0,
                label=f"grant {grant.number}" if several else None,
            )
            axes.axhline(grant.epsilon, color=LIMIT, linewidth=1.4, linestyle=(0, (6, 2)))
            axes.annotate(
                f"grant {grant.number}: {rounding.typed(grant.epsilon)}"
                if several
                else f"granted: {rounding.typed(grant.epsilon)}",
                (0.02, grant.epsilon),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                color=LIMIT,
            )
            highest = max(highest, grant.epsilon, *values)
        _shade_runs(axes, record)
        axes.set_ylim(0, highest * 1.18)
        axes.set_xlim(0, len(record.trainings) + 0.6)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("trainings and answers since the ledger was opened; a stripe for each run")
        axes.set_ylabel("epsilon spent")
        if len(grants) > 1:
            axes.legend(frameon=False, fontsize=9, loc="lower right")
        title = "Epsilon spent over the ledger's life, against what was granted"
        return as_svg(figure, "life", title, _alternative(record))


def _shade_runs(axes: mpl.axes.Axes, record: DatasetRecord) -> None:
    """A stripe for each uninterrupted stretch of one run."""
    stretches: list[tuple[str, int, int]] = []
    for place, training in enumerate(record.trainings, start=1):
        run = run_of(training.run)
        if stretches and stretches[-1][0] == run:
            stretches[-1] = (run, stretches[-1][1], place)
        else:
            stretches.append((run, place, place))
    for number, (run, first, last) in enumerate(stretches):
        if number % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, color="#eceff2", zorder=0)
        if len(stretches) <= _NAMED:
            axes.annotate(
                label_of(run[-6:] if run else "lost"),
                ((first + last) / 2, 0.01),
                xycoords=("data", "axes fraction"),
                ha="center",
                fontsize=8,
                color="#4f5b66",
            ).set_parse_math(False)


def _alternative(record: DatasetRecord) -> str:
    ends = " ".join(
        f"Grant {grant.number}: epsilon {rounding.spent(grant.epsilon_spent)} spent of "
        f"{rounding.typed(grant.epsilon)}."
        for grant in record.grants
    )
    return f"{count(len(record.trainings), 'charge')} in order. {ends}"
