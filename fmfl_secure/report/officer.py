"""Ten questions that a data-protection officer has, and a run's answers, for the first two pages.

`docs/how-to-read-a-report.md` lists them; `tests/unit/test_report_officer.py` holds the page to it.

`report.page` puts `answers` on the first pages, and `report.dpia` quotes from here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from fmfl_secure.planning.terms import reservations_of
from fmfl_secure.report import deltas, key_owners, overview, protection, rounding, wording
from fmfl_secure.report.names import capital, count, listing
from fmfl_secure.run.record import RunRecord
from privacy import UNSAID, Decided

# A question, its answer, and more to it.
Answer = tuple[str, str, Sequence[str]]

WHAT_FOR: Final = "What was it for, and about whom"
PROMISED: Final = "What was promised"
MEANS: Final = "What it means for one person"
SPENT: Final = "What was spent"
LEFT: Final = "What is left"
SAW: Final = "Who could see what"
NOT_PROTECTED: Final = "What is not protected"
REFUSED: Final = "What was refused, and why"
SIGNED: Final = "Who signed"
AGAIN: Final = "When to look again"
QUESTIONS: Final = (
    WHAT_FOR, PROMISED, MEANS, SPENT, LEFT, SAW, NOT_PROTECTED, REFUSED, SIGNED, AGAIN,
)  # fmt: skip

_MANY: Final = 3  # grants' purposes on the first page; section 3 and the draft assessment have all


def answers(record: RunRecord) -> tuple[Answer, ...]:
    """Answers a data protection officer from a run's record, in the questions' order."""
    means = wording.meaning_in_short(record)
    limits = " ".join(limit.name for limit in protection.limits(record))
    found = {
        WHAT_FOR: (_about(record), ()),
        PROMISED: (wording.promised(record), _decided(record)),
        MEANS: (means[0] if means else "Nothing was promised that could mean anything.", means[1:]),
        SPENT: (wording.spent(record), ()),
        LEFT: (wording.left(record), ()),
        SAW: (wording.visibility(record), ()),
        NOT_PROTECTED: (limits, ()),
        REFUSED: (_refused(record), ()),
        SIGNED: (_signed(record), key_owners.sentences(record)),
        AGAIN: (_again(record), ()),
    }
    return tuple((question, *found[question]) for question in QUESTIONS)


def purposes(record: RunRecord) -> list[str]:
    """Collects what grants and the run were stated to be for, and why so much; each once."""
    found: dict[str, None] = {}
    of_run = _of_run(record)
    if of_run != UNSAID:
        found[f"this run's epsilon: {'. '.join(of_run.sentences(_last_day(record)))}"] = None
    for site, statement in overview.statements(record):
        for grant in statement.grants:
            told = [_stated(grant.purpose)]
            told += [note] if (note := deltas.note(grant)) else []
            found[f"{site.name}, grant {grant.number}: {'; '.join(told)}"] = None
        for charge in statement.runs:
            if charge.run in reservations_of(record.run):
                found[f"{site.name}, this run: {charge.purpose}"] = None
    return list(found)


def _stated(purpose: str) -> str:
    """A grant's purpose, if its custodian said one; how it came about is none."""
    if purpose.startswith("first grant,"):  # as `proposals` and version 0.1.0 call it
        return f"no purpose was stated ({purpose}); say here what for"
    return purpose


def _about(record: RunRecord) -> str:
    units = sum(site.population for site in record.sites)
    grants = {
        grant.purpose for _, statement in overview.statements(record) for grant in statement.grants
    }
    stated = sorted(each for each in grants if _stated(each) == each)
    told = [f"“{each}”" for each in stated[:_MANY]]
    told += [f"{len(stated) - _MANY} more"] if len(stated) > _MANY else []
    what = (
        f"Grants were made for {listing(told)}."
        if told
        else "No grant states what for: ask the custodians."
    )
    task = record.task or "A task that is not stated"
    if not record.trains:
        task = "Questions to the sites, and no training"
    return (
        f"{task}, on about "
        f"{rounding.count(units)} declared units at {count(len(record.sites), 'site')}; a unit is "
        f"{wording.unit(record)}. {what}"
    )


def _refused(record: RunRecord) -> str:
    refused = wording.refusals(record)
    if not refused:
        return "No site refused anything, as far as others can know."
    said = "; ".join(f"{code}: {what.rstrip('.')}" for code, what in refused)
    return f"{said}. A code is all that others hear; the reason is at the site."


def _signed(record: RunRecord) -> str:
    signed = [site.name for site, _ in overview.statements(record) if site.statement_signature]
    silent = [site.name for site in record.sites if site.name not in signed]
    text = (
        f"{capital(listing(signed))} signed what is said of their ledgers."
        if signed
        else "No site signed anything that is said of its ledger."
    )
    if silent and signed:
        text += f" {capital(listing(silent))} did not."
    return text + (
        " This page is checked by fmfl-secure report verify, on the signed bundle, with the "
        "coordinator's fingerprint from elsewhere."
    )


def _of_run(record: RunRecord) -> Decided:
    """Reads who decided on the run's epsilon, and why, from its settings."""
    return Decided.parse(record.settings.get("privacy", {}))


def _decisions(record: RunRecord) -> dict[Decided, list[str]]:
    """Collects decisions on the run's epsilon and on each grant's; alike ones together."""
    found: dict[Decided, list[str]] = {}
    if (of_run := _of_run(record)) != UNSAID:
        found[of_run] = ["the run"]
    for site, statement in overview.statements(record):
        for grant in statement.grants:
            if grant.decided != UNSAID:
                found.setdefault(grant.decided, []).append(f"{site.name}, grant {grant.number}")
    return found


def _decided(record: RunRecord) -> list[str]:
    """Why so much and no other, for the run and for each grant; and that nobody said so."""
    if not record.mechanism.noise_mechanism.private:
        return []
    found = _decisions(record)
    if not found:
        return ["Nobody has said why this epsilon: ask who set it, and the custodians."]
    day = _last_day(record)
    shown = list(found.items())[:_MANY]
    told = [f"For {listing(whose)}: {'. '.join(d.sentences(day))}." for d, whose in shown]
    more = len(found) - len(shown)
    return [*told, f"{count(more, 'more decision')} in section 3."] if more else told


def _last_day(record: RunRecord) -> dt.date:
    """The day of the run's last round, or of its begin: as of it a review is past or not."""
    at = record.rounds[-1].at if record.rounds else record.started
    return dt.datetime.fromisoformat(at).date()


def _again(record: RunRecord) -> str:
    reasons = ["before anything more is granted"]
    if record.status == "interrupted":
        reasons.append("when this run goes on")
    if record.audit is None and record.mechanism.noise_mechanism.private:
        reasons.append("once somebody has made the empirical check, which this run lacks")
    if any(not statement.verified for _, statement in overview.statements(record)):
        reasons.append("at once: a ledger did not verify")
    days = sorted({d.review_on for d in _decisions(record) if d.review_on is not None})
    if days:
        past = " (past when this run ended)" if days[0] < _last_day(record) else ""
        reasons.insert(0, f"by {days[0]}{past}, as was decided with its epsilon")
    given = "when the adapter is given to anybody else, and " if record.trains else ""
    reasons.append(f"{given}when people or data are added to a ledger")
    text = "; ".join(reasons)
    return f"{text[0].upper()}{text[1:]}."
