"""The page: a record, the sentences and the plots, put into the template.

`report.write` renders the page whenever a run's results are brought up to date, and
`report.bundle` once more to sign it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fmfl_secure.planning.terms import holds_answers
from fmfl_secure.report import (
    answers as site_answers,
)
from fmfl_secure.report import (
    attacked,
    closely,
    deltas,
    empirical,
    key_owners,
    names,
    officer,
    overview,
    plots,
    protection,
    shares,
    wording,
)
from fmfl_secure.report.environment import environment
from fmfl_secure.report.names import listing
from fmfl_secure.report.overview import Promise
from fmfl_secure.report.verdict import Verdict, verdict
from fmfl_secure.run.answer_record import ONE_SITE, TWO_INTERVALS
from fmfl_secure.run.record import RunRecord
from fmfl_secure.run.rehearsal_words import rehearsal_in_words, rehearsals_of
from fmfl_secure.run.statement import RunCharge

_GROUP_SIZES = (2, 4)  # a pair, which is also one unit replaced by another; a family


@dataclass(frozen=True, slots=True)
class _Meaning:
    """A row on what a promise means for one person."""

    label: str
    promise: Promise
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class _Group:
    """A promise as it holds for a group of units."""

    size: int
    epsilon: float
    delta: float
    at_1: str
    void: bool


@dataclass(frozen=True, slots=True)
class _Groups:
    """A row on what a promise means for groups."""

    promise: Promise
    groups: tuple[_Group, ...]


def render_html(record: RunRecord) -> str:
    """The report as one HTML page that needs nothing else.

    The page follows from the record alone: the same record gives the same text. Everything taken
    from the record is escaped; the only markup inserted as such is that of the plots, whose
    labels are escaped where they are drawn.

    Args:
        record: The run.

    Returns:
        A complete HTML document.
    """
    private = record.mechanism.noise_mechanism.private
    promises = overview.promises(record) if private else []
    tracks = overview.tracks(record) if private else []
    accounts = overview.accounts(record)
    status_word, status_text = wording.status(record)
    return (
        environment(
            charge=_charge, metric=wording.metric, note=deltas.note, declared=deltas.declared
        )
        .get_template("report.html.j2")
        .render(
            record=record,
            private=private,
            status_word=status_word,
            status_text=status_text,
            warnings=[
                *empirical.warnings(record),
                *attacked.warnings(record),
                *wording.warnings(record),
            ],
            answers=officer.answers(record),
            not_protected=officer.NOT_PROTECTED,
            accounts=accounts,
            insider_accounts=shares.charged(record),
            distributed=record.mechanism.noise_mechanism.in_shares,
            assumption=shares.assumption(record),
            trust=shares.trust(record),
            tracks=tracks,
            silent=[site for site in record.sites if site.statement is None],
            statements=list(overview.statements(record)),
            epsilon_plot=Markup(plots.epsilon_plot(record, tracks)),  # noqa: S704 - labels are escaped
            budget_plot=Markup(plots.budget_plot(accounts)),  # noqa: S704 - labels are escaped
            answer_plot=Markup(site_answers.curve_plot(record)),  # noqa: S704 - labels are escaped
            answer_rows=list(site_answers.rows(record)),
            who_is_ahead=[t for a in site_answers.of(record) if (t := a.who_is_ahead)],
            answer_notes=(ONE_SITE, TWO_INTERVALS),
            answers_planned=site_answers.planned(record),
            held_out=site_answers.held_out(record),
            utility_plot=Markup(plots.utility_plot(record)),  # noqa: S704 - labels are escaped
            look=record.looked_at or None,
            look_plots=closely.for_page(record.looked_at) if record.looked_at else {},
            meanings=_meanings(record, promises),
            sentences=_sentences(promises),
            groups=_groups(promises),
            sizes=_GROUP_SIZES,
            check_figures=empirical.figures(record.audit) if record.audit else {},
            check_sentences=empirical.sentences(record.audit) if record.audit else [],
            attack_rows=attacked.figures(record.attack) if record.attack else [],
            attack_sentences=attacked.sentences(record.attack) if record.attack else [],
            part=protection.part(record),
            roles=protection.roles(record),
            limits=protection.limits(record),
            key_owners=key_owners.sentences(record),
            unit=wording.unit(record),
            refusals=wording.refusals(record),
            rehearsals=[
                (each.at, rehearsal_in_words(each)) for each in rehearsals_of(record.rounds)
            ],
            max_bars=plots.MAX_BARS,
            max_panels=plots.MAX_PANELS,
            metric_names=plots.metric_names(record),
            settings=list(_flat(record.settings)),
            insider_left=shares.insider_left,
            granted=lambda statement: overview.guarantee(statement)[0],
            cohort=lambda sites: wording.cohort(record, sites),
            listing=listing,
        )
    )


def _meanings(record: RunRecord, promises: Sequence[Promise]) -> list[_Meaning]:
    return [
        _Meaning(
            label=wording.promise_label(one, len(record.sites)),
            promise=one,
            verdict=verdict(one.epsilon, one.delta),
        )
        for one in promises
    ]


def _sentences(promises: Sequence[Promise]) -> list[str]:
    """The run's own target and the weakest promise in full; the table has the rest."""
    if not promises:
        return []
    weakest = max(promises, key=lambda one: one.epsilon)
    distinct = dict.fromkeys((one.epsilon, one.delta) for one in (promises[0], weakest))
    return [verdict(*one).sentence for one in distinct]


def _groups(promises: Sequence[Promise]) -> list[_Groups]:
    distinct = {(one.epsilon, one.delta): one for one in promises}
    return [
        _Groups(one, tuple(_group(one, size) for size in _GROUP_SIZES)) for one in distinct.values()
    ]


def _group(promise: Promise, size: int) -> _Group:
    epsilon, delta = overview.group_privacy(promise.epsilon, promise.delta, size)
    found = verdict(epsilon, min(delta, 1.0))
    return _Group(size, epsilon, delta, found.at_1, found.void)


def _charge(charge: RunCharge) -> str:
    """Says how much a run is charged: all it reserved while open, what it began after."""
    what = "answer" if holds_answers(charge.run) else "training"
    return names.count(charge.rounds_reserved if charge.open else len(charge.rounds_trained), what)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and values as JSON, in the settings' order."""
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            for place, one in enumerate(value, 1):
                found += _flat({str(place): one}, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", json.dumps(value, ensure_ascii=False, default=str)))
    return found
