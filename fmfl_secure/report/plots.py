"""The plots, as SVG elements that stand in the page.

Drawn through matplotlib's object interface only; nothing global is left changed. The SVG has no
prolog, no metadata, no date and a fixed hash salt, so one record gives one page, byte for byte.
Every plot carries a title and a text alternative, is drawn on white so that it reads on a dark
page, and tells things apart by shape and label besides colour.

`report.page` draws the run's epsilon, budgets and metrics; other pages' plots (`report.closely`,
`report.dataset.plots`) take style and form from here.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmfl_secure.report import alternatives, names, rounding
from fmfl_secure.report.overview import Account, Track
from fmfl_secure.run.record import RunRecord

STYLE = {
    "svg.hashsalt": "fmfl-secure report",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5c6670",
    "axes.labelcolor": "#2b333b",
    "xtick.color": "#5c6670",
    "ytick.color": "#5c6670",
    "xtick.labelcolor": "#2b333b",
    "ytick.labelcolor": "#2b333b",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e3e7eb",
    "hatch.color": "#ffffff",
    "hatch.linewidth": 1.4,
}
WIDTH = 5.4  # inches; narrow, so that 10 pt stays legible on a phone
BLUE, LIGHT, _GREY, _INK, LIMIT = "#1f5f99", "#d5e0ea", "#8a949e", "#2b333b", "#a3281e"
SERIES = (
    (BLUE, "o", "-"),
    ("#b35900", "s", "--"),
    ("#2e7d4f", "^", "-."),
    ("#7b4397", "D", ":"),
    ("#5c6670", "v", "-"),
)
_FAINT = "#c3cad1"
MAX_BARS = 24
MAX_PANELS = 6
_MAX_LABEL = 40


def epsilon_plot(record: RunRecord, tracks: Sequence[Track]) -> str:
    """Epsilon spent after each training of the run, against the grant; empty if none is finite."""
    drawn = [one for one in tracks if _finite((one.granted, one.before, *one.spent))]
    if not drawn:
        return ""
    # A line says something only against its own limit: sites share a panel if they share a grant.
    limits = sorted({one.granted for one in drawn}, key=lambda limit: _least_left(drawn, limit))
    limits = limits[:MAX_PANELS]
    columns = 1 if len(limits) == 1 else 2
    rows = math.ceil(len(limits) / columns)
    with mpl.rc_context(STYLE):
        height = 3.3 if columns == 1 else 2.5 * rows
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, limit in zip(panels, limits, strict=False):
            _epsilon_panel(axes, [one for one in drawn if one.granted == limit], len(record.sites))
        for axes in panels[::columns][:rows]:
            axes.set_ylabel("epsilon spent")
        for axes in panels[len(limits) :]:
            axes.set_visible(False)
        title = "Epsilon spent after each training of this run, against the grant"
        return as_svg(figure, "epsilon", title, alternatives.epsilon_alternative(record, drawn))


def _least_left(tracks: Sequence[Track], limit: float) -> float:
    return min(limit - one.final for one in tracks if one.granted == limit)


def _epsilon_panel(axes: Axes, tracks: Sequence[Track], sites: int) -> None:
    limit = tracks[0].granted
    longest = max(tracks, key=lambda one: len(one.trained)).trained
    if any(one.before > 0 for one in tracks):
        axes.axvspan(-0.5, 0.0, color="#eceff2", zorder=0)
    # More lines than styles would not be told apart: the rest is drawn in grey, unnamed.
    named, rest = tracks[: len(SERIES)], tracks[len(SERIES) :]
    for track in rest:
        axes.plot(range(len(track.spent) + 1), (track.before, *track.spent), color=_FAINT, lw=1)
    for track, (color, marker, line) in zip(named, SERIES, strict=False):
        axes.plot(
            range(len(track.spent) + 1),
            (track.before, *track.spent),
            color=color,
            marker=marker,
            linestyle=line,
            linewidth=2,
            markersize=5 if len(track.spent) <= 30 else 0,
            label=label_of(names.who(track.sites, sites)),
        )
    axes.axhline(limit, color=LIMIT, linewidth=1.6, linestyle=(0, (6, 2)))
    axes.set_ylim(0, max(limit, *(one.final for one in tracks)) * 1.16)
    axes.set_xlim(-0.5, max(len(longest), 1) + 0.4)
    axes.annotate(
        f"grant: {rounding.typed(limit)}",
        (0.02, limit),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=LIMIT,
    )
    _training_ticks(axes, longest)
    if len(tracks) > 1:
        legend = axes.legend(frameon=False, fontsize=9, loc="best")
        for text in legend.get_texts():
            text.set_parse_math(False)
        return
    track = tracks[0]
    title = f"{label_of(names.who(track.sites, sites))}: {rounding.spent(track.final)}"
    axes.set_title(title, loc="left", fontsize=10, color=BLUE, parse_math=False)


def budget_plot(accounts: Sequence[Account]) -> str:
    """Spent, held and left of each grant, worst first; empty if there is none."""
    drawn = [
        one
        for one in accounts
        if _finite((one.grant.epsilon, one.grant.epsilon_spent, one.grant.epsilon_charged))
    ][:MAX_BARS]
    if not drawn:
        return ""
    with mpl.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * (len(drawn) + 1)), layout="constrained")
        axes = figure.subplots()
        places = list(range(len(drawn)))
        spent = [one.grant.epsilon_spent for one in drawn]
        held = [max(0.0, one.grant.epsilon_charged - one.grant.epsilon_spent) for one in drawn]
        left = [max(0.0, one.grant.epsilon - one.grant.epsilon_charged) for one in drawn]
        used = [a + b for a, b in zip(spent, held, strict=True)]
        axes.barh(places, spent, 0.62, color=BLUE, label="spent")
        if any(held):
            axes.barh(places, held, 0.62, left=spent, color=_GREY, hatch="///", label="held")
        axes.barh(places, left, 0.62, left=used, color=LIGHT, edgecolor=BLUE, lw=0.8, label="left")
        widest = max(one.grant.epsilon for one in drawn)
        for place, one in zip(places, drawn, strict=True):
            axes.annotate(
                f"{rounding.left(one.grant.epsilon_left)} of {rounding.typed(one.grant.epsilon)}",
                (one.grant.epsilon, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                color=_INK,
            )
        axes.set_yticks(places, [label_of(one.label) for one in drawn], parse_math=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.set_xlim(0, widest * 1.28)
        axes.set_xlabel("epsilon (figures: left of the grant)")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        _legend(figure, axes)
        title = "Budget left in each ledger, least left first"
        return as_svg(figure, "budget", title, alternatives.budget_alternative(drawn))


def utility_plot(record: RunRecord) -> str:
    """Every metric by released round, one panel each; empty without figures."""
    names = metric_names(record)[:6]
    if not names:
        return ""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 1.75 * len(names)), layout="constrained")
        panels = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(panels, names, strict=True):
            points = metric_points(record, name)
            axes.plot(
                [at for at, _ in points],
                [value for _, value in points],
                color=BLUE,
                marker="o",
                markersize=5 if len(points) <= 31 else 0,
                linewidth=2,
            )
            if points and points[0][0] == 0:
                axes.plot(*points[0], marker="o", markersize=8, mfc="white", mec=BLUE, mew=2)
            axes.set_title(label_of(name), loc="left", fontsize=10, color=_INK, parse_math=False)
            axes.margins(y=0.18)
            axes.yaxis.set_major_locator(MaxNLocator(4))
        panels[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
        panels[-1].set_xlim(-0.4, max([1, *(one.round for one in record.rounds)]) + 0.4)
        panels[-1].set_xlabel("round (0, hollow: before the first)")
        title = "Utility by round, on data declared public"
        return as_svg(figure, "utility", title, alternatives.utility_alternative(record, names))


def metric_names(record: RunRecord) -> list[str]:
    """Names of all metrics, those known before the first round first."""
    return list(
        dict.fromkeys([*record.initial_metrics, *(n for one in record.rounds for n in one.metrics)])
    )


def metric_points(record: RunRecord, name: str) -> list[tuple[int, float]]:
    """(round, value) where the metric is known and finite; round 0 is before the first."""
    found = [(0, record.initial_metrics.get(name, math.nan))]
    found += [(one.round, one.metrics.get(name, math.nan)) for one in record.rounds]
    return [(at, value) for at, value in found if math.isfinite(value)]


def _training_ticks(axes: Axes, trained: Sequence[int]) -> None:
    # Trainings are spaced evenly and named by round: a round trained again costs again.
    step = max(1, math.ceil(len(trained) / 10))
    places = [i for i in range(1, len(trained) + 1) if i % step == 0]
    names = [
        f"{trained[i - 1]}\nagain" if trained[i - 1] in trained[: i - 1] else str(trained[i - 1])
        for i in places
    ]
    axes.set_xticks([0, *places], ["before", *names])
    axes.set_xlabel("round")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(
        handles, labels, loc="outside upper left", ncols=3 if len(labels) == 3 else 2, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def label_of(text: str) -> str:
    """A name from outside as a plot can show it."""
    # Names come from outside: what the font cannot draw would warn, and a long one would not fit.
    drawable = "".join(c if c.isprintable() else "?" for c in text)
    drawable = drawable.encode("latin-1", "replace").decode("latin-1")
    return drawable if len(drawable) <= _MAX_LABEL else drawable[: _MAX_LABEL - 1] + "…"


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def as_svg(figure: Figure, name: str, title: str, alternative: str) -> str:
    """A figure as an element of the page; ids begin with `name`."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    # In a page, a style sheet inside an SVG reaches every element, and ids are shared by all.
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    text = re.sub(r"font-family: [^;\"]*", "font-family: system-ui, sans-serif", text)
    view = re.search(r'viewBox="[^"]*"', text)
    if view is None:  # pragma: no cover - matplotlib always writes one
        raise ValueError("an SVG without a viewBox cannot be scaled")
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {view[0]} role="img" '
        f'aria-labelledby="{name}-title {name}-text" '
        'style="stroke-linejoin: round; stroke-linecap: butt">\n'
        f' <title id="{name}-title">{html.escape(title)}</title>\n'
        f' <desc id="{name}-text">{html.escape(alternative)}</desc>'
    )
    return re.sub(r"^<svg[^>]*>", lambda _: head, text, count=1)
