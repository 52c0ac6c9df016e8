"""The sentences that depend on values.

Each says what is known and no more. They are read by people who decide on their basis, so words
like 'safe' or 'anonymous' do not occur, and a bound that bounds nothing is called that.

`report.page` calls these for its sentences; `report.officer` and `report.dpia` say the same things
in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from fmfl_secure.extensions import package_of
from fmfl_secure.report import deltas, key_owners, line, protection, rounding, shares
from fmfl_secure.report.names import capital, count, listing, who
from fmfl_secure.report.overview import (
    accounts,
    charged_grants,
    guarantee,
    lost,
    not_stated,
    released,
    statements,
    tracks,
    unverified,
)
from fmfl_secure.report.verdict import verdict
from fmfl_secure.run.record import RunRecord
from fmfl_secure.run.refusal_codes import meaning
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.settings.types import HEAD_PART

if TYPE_CHECKING:
    from fmfl_secure.report.overview import Account, Promise


_UNIT_RULES: Mapping[str, str] = MappingProxyType(
    {
        "case": "upper and lower case",
        "punctuation": "punctuation and spaces",
        "zeros": "leading zeros",
        "compatibility": "full width and ligatures",
    }
)


def cohort(record: RunRecord, names: Sequence[str]) -> str:
    """Who is in a round's sum; where it is shorter, who is not."""
    missing = [site.name for site in record.sites if site.name not in names]
    if not names:
        return "none"
    if missing and len(missing) < len(names):
        return f"{len(names)} of {len(record.sites)}, without {listing(missing)}"
    return f"all {len(names)}" if not missing else listing(names)


def unit(record: RunRecord) -> str:
    """Describes in words the unit that is protected."""
    if record.mechanism.unit == "record":
        return "one record"
    column = f"one person (all records with one value of “{record.mechanism.unit}”"
    rules = record.settings.get("task", {}).get("unit_normalisation", ())
    merged = [_UNIT_RULES[rule] for rule in rules if rule in _UNIT_RULES]
    if merged:
        column += f", whatever their {listing(merged)}"
    if "exact" in rules:
        column += "; values that differ otherwise were declared to be different people"
    return f"{column})"


def refusals(record: RunRecord) -> list[tuple[str, str]]:
    """The codes that sites refused with, each with what it means."""
    codes = {site.refusal for site in record.sites if site.refusal}
    codes.update(code for one in record.rounds for code in one.refusals.values())
    return [(code, meaning(code)) for code in sorted(codes)]


def status(record: RunRecord) -> tuple[str, str]:
    """The run's status as a word and as what it means."""
    planned = record.planned_rounds
    done = f"{len(released(record))} of {count(planned, 'planned round')} released"
    gone = lost(record)
    lost_text = (
        f" Of {'round' if len(gone) == 1 else 'rounds'} {listing(map(str, gone))} the sum was "
        "opened and its release was lost; its cost stays spent."
        if gone
        else ""
    )
    if record.status == "finished":
        return "Finished", f"{done}.{lost_text}"
    reason = record.stop_reason.strip().rstrip(".")
    if record.status == "stopped":
        reason = reason or "no reason was recorded"
        return "Stopped early", f"{done}. Reason: {reason}.{lost_text}"
    done += f". Reason: {reason}" if reason else ""
    if not record.mechanism.noise_mechanism.private:
        on = "To go on, start the same run again with unchanged settings."
    else:
        on = (
            "What the trained rounds cost is spent and stays spent. What the run still holds in "
            "reserve stays held until it goes on or is closed. To go on, start the same run "
            f"({record.run}) again with unchanged settings: released rounds are kept and cost "
            "nothing more; a round whose update was lost before it was stored is trained again "
            f"and charged again ({count(record.mechanism.repeats, 'such repeat')} paid for in "
            "advance)."
        )
    return "Interrupted", f"{done}.{lost_text} {on}"


def promised(record: RunRecord) -> str:
    """States what was promised, and to whom."""
    if not record.mechanism.noise_mechanism.private:
        return (
            "Nothing. This run trained without noise and has no privacy guarantee at all. Such a "
            "run is for data declared public only."
        )
    found = {guarantee(statement) for _, statement in statements(record) if _granted(statement)}
    grants = sorted(found)
    if not grants:
        return (
            f"The run was planned to cost each site at most epsilon "
            f"{rounding.typed(record.mechanism.target_epsilon)}. No site has stated a grant, so "
            "there is no guarantee that this page could confirm."
        )
    if len(grants) == 1:
        text = f"epsilon {rounding.typed(grants[0][0])} at delta {rounding.small(grants[0][1])}"
    else:
        text = (
            f"from epsilon {rounding.typed(grants[0][0])} to epsilon "
            f"{rounding.typed(grants[-1][0])}, depending on the site, at delta at most "
            f"{rounding.small(max(delta for _, delta in grants))}"
        )
    planned = (
        "By itself this run was planned to cost each site at most epsilon "
        f"{rounding.typed(record.mechanism.target_epsilon)}"
    )
    if not shares.in_force(record):
        looks = "whoever outside the site looks at it, all of them together included"
    else:
        looks = shares.promised_to(record)
        text += f". {shares.promised(record)}"
        planned += shares.planned(record)
    return (
        f"Everything trained on a site's data and sent out, over the life of its ledger, depends "
        f"on {unit(record)} by at most what the data owner granted, {looks}: {text}. {planned}."
    )


def meaning_in_short(record: RunRecord) -> list[str]:
    """Explains the weakest guarantee, and this run alone where it says more; empty without."""
    if not record.mechanism.noise_mechanism.private:
        return []
    found = [guarantee(statement) for _, statement in statements(record) if _granted(statement)]
    if not found:
        return []
    planned = record.mechanism.target_epsilon, record.mechanism.delta
    sentences = [verdict(*max(found)).sentence]
    if planned[0] < max(found)[0]:
        sentences.append(f"For this run alone: {_lower(verdict(*planned).sentence)}")
    second = shares.weakest(record)
    if second is not None:
        sentence = _lower(verdict(second, max(found)[1]).sentence)
        sentences.append(f"Against all other sites together: {sentence}")
    return sentences


def spent(record: RunRecord) -> str:
    """States what was spent, by the worst site and the best."""
    if not record.mechanism.noise_mechanism.private:
        return "No figure can be given: without noise there is no epsilon."
    found = tracks(record)
    silent = [
        site.name
        for site in record.sites
        if site.statement is None
        and not site.not_shown
        and site.refusal is None
        and site.visibility == "private"
    ]
    # No statement is no evidence that nothing was spent.
    unknown = (
        f"Not known for {who(silent, len(record.sites))}, which made no statement of a ledger yet."
        if silent
        else ""
    )
    hidden = [site.name for site in record.sites if site.not_shown]
    if hidden:
        unknown += f"{' ' if unknown else ''}Not shown for {who(hidden, len(record.sites))}."
    if not found:
        return unknown or "Nothing: no ledger was charged for this run."
    if not math.isfinite(found[0].final):
        return (
            "A use without noise, or one of which nothing is known any more, is recorded for "
            f"{listing(found[0].sites)}: no bound holds there."
        )
    highest, lowest = found[0], found[-1]
    before = (
        f" (before this run: epsilon {rounding.spent(highest.before)})"
        if highest.before > 0
        else " (nothing before this run)"
    )
    text = (
        f"{capital(who(highest.sites, len(record.sites)))}: epsilon "
        f"{rounding.spent(highest.final)} of {rounding.typed(highest.granted)}{before}."
    )
    if lowest is not highest:
        text = (
            f"Most at {text} Least at {who(lowest.sites, len(record.sites))}: epsilon "
            f"{rounding.spent(lowest.final)} of {rounding.typed(lowest.granted)}."
        )
    # Which the plan does not say, and a reader would take for a mistake.
    if any(one.final - one.before > record.mechanism.target_epsilon for one in found):
        text += (
            " A grant counts a run at orders of its own, by which it can come to more than the "
            "plan says of the run by itself; the guarantee is the grant."
        )
    spared = [
        site.name
        for site, statement in statements(record)
        if site.refusal is not None and not charged_grants(record, statement)
    ]
    if spared:
        verb = "was" if len(spared) == 1 else "were"
        text += f" {listing(spared)} refused the run and {verb} charged nothing for it."
    return " ".join(part for part in (text, shares.spent(record), unknown) if part)


def left(record: RunRecord) -> str:
    """States what is left, worst first, before the table that gives every site."""
    found = accounts(record)
    if not found:
        return (
            "No budget was kept for this run."
            if not record.mechanism.noise_mechanism.private
            else "No ledger was stated."
        )
    worst = found[0]
    amount = (
        f"epsilon {rounding.left(worst.grant.epsilon_left)} of "
        f"{rounding.typed(worst.grant.epsilon)}"
    )
    alike = [
        one.label
        for one in found
        if rounding.left(one.grant.epsilon_left) == rounding.left(worst.grant.epsilon_left)
        and one.grant.epsilon == worst.grant.epsilon
    ]
    names = who(alike, len(record.sites))
    least = capital(names) if len(alike) == len(found) else f"Least at {names}"
    text = f"{least}: {amount}."
    if any(one.held for one in found):
        text += " Budget held by open reservations counts as used until it is given back."
    second = shares.left(record)
    text += f" {second}" if second else ""
    more = _runs_left(record)
    text += f" {more}" if more else ""
    return text + " When nothing is left, the site refuses further training."


def _runs_left(record: RunRecord) -> str:
    """States how many runs like this one are left; empty where no site states it."""
    statements = [site.statement for site in record.sites if site.statement is not None]
    fitting = [stated.runs_left for stated in statements if isinstance(stated.runs_left, int)]
    if not fitting:
        return ""
    least = min(fitting)
    more = {0: "no other fits", 1: "one more fits"}.get(least, f"{rounding.count(least)} more fit")
    where = "every site" if len(set(fitting)) == 1 else "the site with least"
    return f"Of runs like this one, {more} at {where}."


def kept_at_sites(record: RunRecord) -> tuple[str, ...]:
    """Names of the adapter's parts that stayed at the sites; empty where all was shared."""
    adapter = record.settings.get("adapter", {}) if record.trains else {}
    head = (HEAD_PART,) if adapter.get("personal_head") else ()
    return tuple(dict.fromkeys((*head, *adapter.get("personal", ()))))


def visibility(record: RunRecord) -> str:
    """Who could see what, in three sentences."""
    sent, seen = protection.part(record), protection.released(record)
    opened = f"Each site's {sent} travelled masked and encrypted. Only the sum over all sites of a "
    opened += f"round was opened, and everyone in the federation sees {seen}. "
    opened += f"No single site's {sent} could be opened, not even by the holder of the key, unless "
    opened += "all other sites work together."
    kept = kept_at_sites(record)
    if kept:
        opened += (
            f" Every site kept its own {listing(kept)}: trained under the same clipping and noise "
            "as what it uploaded, and in no message."
        )
    if not record.mechanism.noise_mechanism.private:
        return opened + " What the sum itself reveals is not limited by anything."
    if record.mechanism.noise_mechanism.in_shares:
        return f"{opened} {shares.visibility(record)}"
    return (
        f"{opened} What {seen} {'reveal' if record.trains else 'reveals'} is limited by the noise "
        "each site added, that is, by epsilon."
    )


def warnings(record: RunRecord) -> list[str]:
    """Collects all warnings of a report, worst first."""
    found = []
    if not record.mechanism.noise_mechanism.private:
        found.append(
            "No privacy guarantee at all. This run trained without noise; encryption hides single "
            "updates on their way, but nothing limits what the trained adapter reveals of the "
            "data. It is for data declared public only."
        )
        private = [site.name for site in record.sites if site.visibility == "private"]
        if private:
            found.append(
                f"{capital(listing(private))} declared private data and no privacy mechanism "
                "protects them. Their ledgers must count this use as exhausting every grant."
            )
    found.extend(
        f"{site.name}'s statement is not shown: {site.not_shown}. Nothing is known of what "
        "was spent there."
        for site in record.sites
        if site.not_shown
    )
    broken = unverified(record)
    if broken:
        found.append(
            f"The ledger of {listing(broken)} did not verify: records were changed, removed or "
            "reordered. Do not rely on the figures of "
            f"{'that site' if len(broken) == 1 else 'those sites'} until the cause is known."
        )
    if record.mechanism.noise_mechanism.private:
        over = [one.label for one in accounts(record) if not _within(one)]
        if over:
            found.append(
                f"More is charged than was granted: {listing(over)}. The guarantee does not hold "
                "there."
            )
        found.extend(
            f"{site.name} made its statement before round {late[0]}, which it was in: what that "
            "and later rounds cost is not in what is said to be spent there."
            for site, statement in statements(record)
            if (late := not_stated(record, site, statement))
        )
        for site, statement in statements(record):
            owner = f"the ledger of {site.name}"
            found += deltas.warnings(owner, statement.grants, statement.population_size)
        found.extend(
            f"The ledger of {site.name} lost records, and on {note.at[:10]} its data-protection "
            f"officer had {count(note.trainings, 'training')} charged for them. Its figures are no "
            "better than what was known of the loss."
            for site, statement in statements(record)
            for note in statement.recoveries
        )
        found.extend(
            f"The ledger of {site.name} protects the unit “{statement.unit}”, the run trained with "
            f"“{record.mechanism.unit}”: its figures do not speak of the same thing."
            for site, statement in statements(record)
            if statement.unit != record.mechanism.unit
        )
    found += key_owners.warnings(record)
    found += line.sentences(record)
    if record.extensions:
        named = [
            f"{n} ({record.versions.get(package_of(n), 'not stated')})" for n in record.extensions
        ]
        found.append(
            f"Code of other packages took part: {listing(named)}. What trained passed the "
            "admission gate and "
            "its data were charged as everybody's, but it saw them, and nobody here has read it: "
            "every site that took part allows it by name in its policy."
        )
    owners: dict[str, list[str]] = {}
    for role, identity in record.identities.items():
        owners.setdefault(identity, []).append(role)
    found.extend(
        f"{capital(listing(roles))} share one identity key: the separation of these roles, on "
        "which confidentiality rests, is not shown."
        for roles in owners.values()
        if len(roles) > 1
    )
    return found


def promise_label(promise: Promise, sites: int) -> str:
    """Names those whose promise it is."""
    if not promise.sites:
        label = "This run alone, as planned"
    else:
        names = who(promise.sites, sites)
        label = f"All grants together: {names}" if promise.whole_ledger else f"Grant: {names}"
    return f"{label}; against all other sites together" if promise.insiders else label


def metric(value: float) -> str:
    """Formats a utility figure, to four digits."""
    return f"{value:.4g}" if math.isfinite(value) else "not a number"


def _granted(statement: SiteStatement) -> bool:
    return any(grant.counts for grant in statement.grants)


def _within(account: Account) -> bool:
    # Charged epsilon is a conversion of what the filter admits; allow for its last digits.
    return account.grant.epsilon_charged <= account.grant.epsilon * (1 + 1e-9)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
