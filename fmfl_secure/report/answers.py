"""Shows the sites' answers on the page: each figure with its intervals and its price."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmfl_secure.report import rounding
from fmfl_secure.report.names import count, listing
from fmfl_secure.report.plots import BLUE, LIGHT, STYLE, WIDTH, as_svg, label_of
from fmfl_secure.run.answer_record import AnswerRecord, FigureRecord
from fmfl_secure.run.record import RunRecord
from fmfl_secure.settings.questions import MeasureName


def of(record: RunRecord) -> tuple[AnswerRecord, ...]:
    """The run's answers, in order; empty without any."""
    return () if record.answers is msgspec.UNSET else record.answers


def curve(record: RunRecord) -> list[tuple[AnswerRecord, str, FigureRecord]]:
    """The figure to watch in every answer that has one, with its name."""
    found = [(answer, *answer.first) for answer in of(record) if answer.first is not None]
    return [each for each in found if each[2].value is not None]


def curve_plot(record: RunRecord) -> str:
    """The private learning curve with both intervals; empty where there is no figure."""
    points = curve(record)
    if not points:
        return ""
    name = points[-1][1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes = figure.subplots()
        _bars(axes, points, sampling=True)
        _bars(axes, points, sampling=False)
        at = [answer.trained for answer, _, _ in points]
        axes.plot(at, [float(f.value or 0.0) for _, _, f in points], color=BLUE, marker="o", lw=1.6)
        axes.set_title(label_of(name), loc="left", fontsize=10, parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlim(-0.4, max(1, *at) + 0.4)
        axes.set_xlabel("rounds of training; thick: noise alone, thin: with sampling")
        alternative = " ".join(f"After {a.trained}: {n} {f.text}." for a, n, f in points)
        return as_svg(figure, "answers", f"{name} by answers of the sites", alternative)


def _bars(
    axes: Axes, points: list[tuple[AnswerRecord, str, FigureRecord]], *, sampling: bool
) -> None:
    for answer, _, figure in points:
        interval = figure.sampling if sampling else figure.noise
        if interval is not None:
            axes.plot(
                [answer.trained] * 2,
                interval,
                color=BLUE if sampling else LIGHT,
                linewidth=1.0 if sampling else 7.0,
                solid_capstyle="butt",
                zorder=2 if sampling else 1,
            )


def rows(record: RunRecord) -> Iterator[tuple[str, str, str, str, FigureRecord]]:
    """For each figure: after which training, of which question, its name, its price, and it."""
    for answer in of(record):
        for question, figures in answer.figures.items():
            for name, figure in figures.items():
                after = str(answer.trained) if answer.trained else "asked alone"
                yield after, question, name, rounding.spent(answer.epsilon), figure


def planned(record: RunRecord) -> str:
    """Says what was asked beside training or in its place, and the price; empty of nothing."""
    if not record.planned_answers:
        return ""
    answered = {name for answer in of(record) for name in answer.figures}
    asked = {*record.asked.get("what", ()), *record.asked.get("measures", ())}
    names = sorted(answered or map(str, asked))
    price = record.asked.get("epsilon", 0.0)
    told = rounding.typed(price) if isinstance(price, float | int) else str(price)
    return (
        f"{count(record.planned_answers, 'answer')} planned{', to ' if names else ''}"
        f"{listing(names) if names else ''}, for at most epsilon {told} together, charged as "
        "training is. Every unit that is asked is in each of them, whatever the sampling of steps: "
        "as a vector of bounded length, in a sum that is noised before it is opened"
    )


def held_out(record: RunRecord) -> str:
    """Who is set apart, in a sentence; empty where nobody is, as far as the record says."""
    share = record.settings.get("evaluation", {}).get("holdout", 0.0)
    if share:
        told = f"{share:g}" if isinstance(share, float | int) else str(share)  # whoever signed it
        return (
            f"A share of {told} of each site's units was set apart by a secret of the site's "
            "own, and is in no gradient of this run; how a model does is asked of these alone."
        )
    if not any(_of_held_out(answer) for answer in of(record)):
        return ""
    return (
        "How a model does is asked of units that each site set apart in a file of its own; what "
        "was asked of all units is said by its name."
    )


def summary(record: RunRecord) -> str:
    """The last answer's figure to watch, in a line; empty without one."""
    points = curve(record)
    if not points:
        return ""
    answer, name, figure = points[-1]
    when = f"after {answer.trained} rounds of training, " if answer.trained else ""
    if answer.who_is_ahead:
        return f"{when}by {answer.sites} sites' own held-out units: {answer.who_is_ahead}"
    whom = "held-out units" if _of_held_out(answer) else "units"
    return f"{when}by {answer.sites} sites' own {whom}: {name} {figure.text}"


def _of_held_out(answer: AnswerRecord) -> bool:
    return bool(set(answer.figures) & set(get_args(MeasureName)))
