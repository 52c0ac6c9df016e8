"""A closer look at an adapter as plots, and as a page of its own for those who may see the data.

`fmfl-secure evaluate --details` (`cli.evaluate_file`) calls `write_evaluation`, and `report.page`
takes the plots of what a run keeps by `for_page`.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmfl_secure.report import rounding, wording
from fmfl_secure.report.environment import environment
from fmfl_secure.report.plots import BLUE, LIGHT, LIMIT, STYLE, WIDTH, as_svg, label_of
from fmfl_secure.run.evaluation_record import (
    EVALUATION_NAME,
    EvaluationRecord,
    encode_evaluation,
)
from fmfl_secure.storage.files import write_outputs

PAGE_NAME = "evaluation.html"
_MOST_DRAWN = 40  # labels; beyond, a square would be smaller than its own edge on a phone
_MOST_COUNTED = 12  # labels; beyond, the counts in the squares would overlap
_HALF = 0.7  # of a row: from here on a square is so dark that its count is white


def confusion_plot(record: EvaluationRecord) -> str:
    """Which label was answered for which; empty without such a table, or with too large a one."""
    size = len(record.confusion)
    if not 0 < size <= _MOST_DRAWN:
        return ""
    names = [label_of(each.label) for each in record.classes]
    shares = [[n / max(1, sum(row)) for n in row] for row in record.confusion]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(WIDTH, min(8.0, 1.6 + 0.42 * size)), layout="constrained")
        axes = figure.subplots()
        colours = mpl.colors.LinearSegmentedColormap.from_list("shares", ["#ffffff", BLUE])
        # Squares and no picture: they stay sharp, and the page permits no image.
        axes.pcolormesh(shares, cmap=colours, vmin=0, vmax=1, edgecolors=LIGHT, linewidth=0.5)
        axes.invert_yaxis()
        if size <= _MOST_COUNTED:
            for right, row in enumerate(record.confusion):
                for said, number in enumerate(row):
                    dark = shares[right][said] > _HALF
                    axes.text(
                        said + 0.5, right + 0.5, rounding.count(number), ha="center", va="center",
                        color="#ffffff" if dark else "#2b333b", fontsize=9,
                    )  # fmt: skip
        places = [place + 0.5 for place in range(size)]
        axes.set_xticks(places, names, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(places, names, parse_math=False)
        axes.tick_params(length=0)
        axes.set_xlabel("answered")
        axes.set_ylabel("right")
        told = " ".join(
            f"{each.label}: {row[place]} of {sum(row)} right."
            for place, (each, row) in enumerate(zip(record.classes, record.confusion, strict=True))
        )
        return as_svg(figure, "confusion", "Which label was answered for which", told)


def reliability_plot(record: EvaluationRecord) -> str:
    """How often answers of a probability are right, against that probability; empty without any."""
    drawn = [each for each in record.reliability if each.records]
    if not drawn:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color=LIMIT, linestyle=(0, (6, 2)), linewidth=1.4)
        above.plot(
            [each.confidence for each in drawn], [each.right for each in drawn],
            color=BLUE, marker="o", linewidth=2, markersize=5,
        )  # fmt: skip
        above.annotate("dashed: as sure as it should be", (0.98, 0.06), ha="right", color=LIMIT)
        above.set_ylim(0, 1.02)
        above.set_ylabel("right")
        below.bar(
            [each.low for each in record.reliability],
            [each.records for each in record.reliability],
            width=1 / len(record.reliability), align="edge", color=LIGHT, edgecolor=BLUE,
        )  # fmt: skip
        below.set_ylabel("records")
        below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        below.set_xlim(0, 1)
        below.set_xlabel("probability of the answer")
        told = " ".join(
            f"Of {each.records} answers at {each.low:g} to {each.high:g}, {each.right:.3f} are "
            f"right; they are sure by {each.confidence:.3f}."
            for each in drawn
        )
        return as_svg(figure, "reliability", "How often answers are right, by probability", told)


def curve_plot(record: EvaluationRecord) -> str:
    """The metric to watch by round, with its interval where one is known; empty without a curve."""
    points = record.curve
    if not points:
        return ""
    name = next(iter(record.metrics))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes = figure.subplots()
        known = [each for each in points if each.low is not None and each.high is not None]
        axes.fill_between(
            [each.round for each in known],
            [each.low or 0.0 for each in known],
            [each.high or 0.0 for each in known],
            color=LIGHT, linewidth=0,
        )  # fmt: skip
        axes.plot(
            [each.round for each in points], [each.value for each in points],
            color=BLUE, marker="o", linewidth=2, markersize=5 if len(points) <= 31 else 0,
        )  # fmt: skip
        axes.set_title(label_of(name), loc="left", fontsize=10, parse_math=False)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("round (0: before the first)")
        told = " ".join(
            f"Round {each.round}: {each.value:.4f}"
            + (f", {each.low:.4f} to {each.high:.4f}." if each.low is not None else ".")
            for each in points
        )
        return as_svg(figure, "curve", f"{name} by round", told)


def drawn(record: EvaluationRecord) -> dict[str, str]:
    """All plots that there are, by name; without those that are empty."""
    plots = {
        "curve": curve_plot(record),
        "confusion": confusion_plot(record),
        "reliability": reliability_plot(record),
    }
    return {name: plot for name, plot in plots.items() if plot}


def for_page(record: EvaluationRecord) -> dict[str, Markup]:
    """The same to stand in a page."""
    return {name: Markup(plot) for name, plot in drawn(record).items()}  # noqa: S704 - labels are escaped


def render_evaluation(record: EvaluationRecord) -> str:
    """The page, which needs nothing else; it follows from the record alone."""
    return (
        environment(metric=wording.metric)
        .get_template("evaluation.html.j2")
        .render(record=record, look=record, look_plots=for_page(record))
    )


def write_evaluation(record: EvaluationRecord, folder: Path) -> tuple[Path, ...]:
    """Write the record, the page and each plot as a file of its own.

    Returns:
        Their paths, the page first.

    Raises:
        RunError: They cannot be written.
    """
    contents = {
        PAGE_NAME: render_evaluation(record).encode(),
        EVALUATION_NAME: encode_evaluation(record),
        **{f"{name}.svg": f"{plot}\n".encode() for name, plot in drawn(record).items()},
    }
    write_outputs(
        folder, contents, what="the evaluation", hint="Check that the folder is writable."
    )
    return tuple(folder / name for name in contents)
