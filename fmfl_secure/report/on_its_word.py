"""Says what in a report nobody but its coordinator says: field by field, and site by site.

`report.bundle` puts `unsigned_parts` beside what it checked, and `fmfl-secure report verify` prints
them. A field that is neither on the list here nor held by a check of a bundle fails a test, which
changes each field in turn (`tests/unit/test_report_agreement.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fmfl_secure._version import __version__
from fmfl_secure.report.agreement import (
    Derived,
    derive,
    is_costed,
    is_of_this_version,
    is_without_plan,
    own_charges,
)
from fmfl_secure.report.names import count, listing
from fmfl_secure.report.overview import not_stated, statements
from fmfl_secure.run.record import RunRecord, SiteRecord

_ONLY: Final = "only the coordinator says"
# What only the coordinator says, and where it stands in a record; `*` is any name or place.
ON_ITS_WORD: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "when and with which software it ran, and how it ended": (
            "started", "updated", "rounds.*.at", "versions", "status", "stop_reason",
        ),
        "which base model it was, and which adapter came of each round": (
            "base_model", "base_model_digest", "layout_digest", "encryption.parameters",
            "encryption.upload_bytes", "rounds.*.adapter_digest", "rounds.*.release_digest",
            "line",
        ),
        "who else was in each sum, refused or vanished, and which rounds were lost": (
            "rounds.*.status", "rounds.*.attempts", "rounds.*.cohort", "rounds.*.refusals",
            "rounds.*.vanished", "rounds.*.rehearsals", "sites.*.refusal",
        ),
        "whose data are public": ("sites.*.visibility",),
        "figures on public data, and the sums that sites answered with": (
            "initial_metrics", "rounds.*.metrics", "looked_at", "rounds.*.answer",
        ),
        "the empirical check and the attacks": ("audit", "attack"),
        "whose keys are whose": ("identities", "keys"),
    }
)  # fmt: skip

# The same of a report of another version, which this one cannot make again.
OF_ANOTHER_VERSION: Final = ("encryption", "answers")


def unsigned_parts(record: RunRecord, *, ended: bool) -> tuple[str, ...]:
    """Says what in a record nobody but its coordinator says, in sentences.

    Args:
        record: A record whose parts agree.
        ended: Whether the run's end is signed.
    """
    told = (_unsigned_of(record, site, ended=ended) for site in record.sites)
    found = [text for text in told if text]
    if not any(own_charges(record, statement) for _, statement in statements(record)):
        found.append(
            "No site signed that it was charged for this run: its settings, its mechanism and its "
            "noise, too, only the coordinator says."
        )
    older = {s.name: one for s, one in statements(record) if is_without_plan(record, one)}
    if older:
        costed = all(is_costed(record, one) for one in older.values())
        found.append(
            f"{listing(older)} signed no settings, as earlier versions did not: that the run "
            "followed those of this report, only the coordinator says. Its noise "
            + (
                "agrees with the cost that was signed, to 5 %."
                if costed
                else "was not compared either."
            )
        )
    derived = derive(record)
    if not isinstance(derived, Derived):
        found.append(
            f"What follows from the settings cannot be worked out here ({derived}): the mechanism, "
            "but for what sites signed, and the encryption only the coordinator says."
        )
    elif not is_of_this_version(record):
        found.append(
            f"The report is of version {record.versions.get('fmfl-secure', 'none')}, by its "
            f"coordinator's word, and was checked by {__version__}: what its page says beyond "
            "report.json, the encryption and the figures of answers only the coordinator says."
        )
    found.append(f"Of every report only the coordinator says: {'; '.join(ON_ITS_WORD)}.")
    return tuple(" ".join(text.split()) for text in found)  # whoever wrote words of it


def _unsigned_of(record: RunRecord, site: SiteRecord, *, ended: bool) -> str:
    """Says what a site signed nothing about; empty where it signed all that it can."""
    name, statement, only = site.name, site.statement, _ONLY
    if statement is None:
        return _unsigned_by(site)
    own = own_charges(record, statement)
    if not own and record.mechanism.noise_mechanism.private:
        return f"{name}'s statement knows nothing of this run: that it was in no round, {only}."
    if late := not_stated(record, site, statement):
        return f"{name} signed its statement before round {late[0]}, which it was in."
    if ended and any(charge.open for charge in own):
        return (
            f"{name} signed its statement before the run's end: that it trained nothing after it, "
            f"{only}."
        )
    return ""


def _unsigned_by(site: SiteRecord) -> str:
    """Says of a site that nothing is there which it signed."""
    name = site.name
    if site.not_shown:
        return f"{name}'s statement is not shown, and that is why, {_ONLY}: {site.not_shown}."
    if site.rounds:
        return (
            f"{name} was in {count(len(site.rounds), 'round')}, and nothing is here that it "
            f"signed: what is said of it, {_ONLY}, and what was spent there, nobody. Ask {name} "
            "for an export of its ledger."
        )
    return f"Nothing is here that {name} signed: that it was in no round, {_ONLY}."
