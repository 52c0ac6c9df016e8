"""Finds faults in a federation's folder that an earlier version let pass.

Each check takes the federation's settings and one site, reads what lies there, changes nothing and
tells nobody else. A new one is a function with a line in `_CHECKS`.

`fmfl-secure doctor FOLDER` (`cli.doctor`) calls `examine_federation`, and `fmfl-secure check`
shows the site its `questions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fmfl_secure.doctor.keys import examine_keys
from fmfl_secure.doctor.machine import Finding
from fmfl_secure.errors import FmflError
from fmfl_secure.parties.reviews import review_notice, reviews_due
from fmfl_secure.parties.workspace import Members, Workspace
from fmfl_secure.settings.federation import FederationConfig, load_federation, load_site
from fmfl_secure.settings.site import SiteConfig
from privacy import Ledger, PolicyRefusal, PrivacyError, check_extensions, objections

if TYPE_CHECKING:
    from fmfl_secure.data import UnitCheck


@dataclass(frozen=True, slots=True)
class _Site:
    """One site whose folder is here.

    Attributes:
        name: Its name; in a kit, which does not say it, `this site`.
        folder: Its folder.
        settings: Its own.
    """

    name: str
    folder: Path
    settings: SiteConfig


def examine_federation(folder: Path) -> Iterator[Finding]:
    """Check every site whose folder is here: a federation's folder of `init`, or a site's kit.

    Args:
        folder: Yields nothing where it has no `federation.toml`.
    """
    file = Workspace(folder).federation_file
    if not file.exists():
        return
    try:
        config = load_federation(file)
    except FmflError as error:
        yield Finding("federation.toml", "fault", str(error), error.hint)
        return
    yield from examine_keys(folder)
    yield from _round_times(config)
    places = {entry.name: Workspace(folder).site(entry.name) for entry in config.sites}
    for name, place in {**places, "this site": folder}.items():
        if (place / "site.toml").exists():
            try:
                site = _Site(name, place, load_site(place / "site.toml"))
            except FmflError as error:
                yield Finding(f"{name}: site.toml", "fault", str(error), error.hint)
                continue
            for check in _CHECKS:
                yield from check(config, site)


def questions(site: str, found: UnitCheck) -> Iterator[Finding]:
    """Yields questions to a site about its unit ids, with a few of them: for its eyes alone."""
    for near in found.near_duplicates:
        merges = {
            "case": "upper and lower case",
            "punctuation": "punctuation and spaces",
            "zeros": "leading zeros",
            "compatibility": "full width, ligatures and the like",
            "other": "several of these, or zeros within",
        }[near.rule]
        examples = "; ".join(" = ".join(map(repr, group[:4])) for group in near.examples)
        mend = (
            "Mend the file if they are one person"
            if near.rule == "other"
            else f'If so, task.unit_normalisation = ["{near.rule}"] merges them'
        )
        people = "one person" if near.people == 1 else f"{near.people} people"
        yield Finding(
            f"{site}: unit ids",
            "question",
            f"are these {near.ids} ids {people}? They differ in {merges} alone: {examples}",
            f'{mend}; if they are different people, ["exact"] says so. Until then each id is '
            "trained on as one more person.",
        )


def _round_times(config: FederationConfig) -> Iterator[Finding]:
    """Settings of 0.1.0 do not say, and mean what they meant: a round takes what it takes."""
    if config.task.unit != "record" and config.privacy.constant_time is None:
        yield Finding(
            "round times",
            "question",
            "not constant: whoever sees when a site answers can tell the rounds of a person with "
            "many records, which epsilon does not count",
            "For new runs, privacy.constant_time = true and privacy.max_records_per_unit = 8 in "
            "federation.toml; or false, to say that it is meant.",
        )


def _unit_ids(config: FederationConfig, site: _Site) -> Iterator[Finding]:
    task = config.task
    if task.unit == "record":
        return
    from fmfl_secure.data import check_units  # noqa: PLC0415 - readers load more than the rest

    path = site.folder / site.settings.data.path
    try:
        check_extensions(site.settings.policy, task.readers)
        found = check_units(path, task.unit, task.unit_normalisation, task.readers)
    except (FmflError, PolicyRefusal) as error:
        yield Finding(f"{site.name}: unit ids", "missing", str(error), error.hint)
        return
    what = f"{site.name}: unit ids"
    if found.ids < found.spellings:
        yield Finding(
            what,
            "question",
            f"{found.spellings} spellings, {found.ids} ids: 0.1.0 trained on each "
            "spelling as on one more person",
            "Nothing for runs to come. What runs of 0.1.0 cost somebody with k spellings is up to "
            "k times what the ledger says: tell the data-protection officer.",
        )
    asked = list(questions(site.name, found))
    yield from asked
    if not asked and found.ids == found.spellings:
        yield Finding(what, "ok", "every id is another person's")


def _cohort(config: FederationConfig, site: _Site) -> Iterator[Finding]:
    """With noise in shares, a smaller cohort than the plan's has less noise than was charged."""
    if not config.privacy.noise_mechanism.in_shares:
        return
    allowed, planned = site.settings.policy.min_sites, config.federation.min_sites
    what = f"{site.name}: policy.min_sites"
    if allowed >= planned:
        yield Finding(what, "ok", f"{allowed}, and the noise is made for {planned}")
        return
    yield Finding(
        what,
        "fault",
        f"{allowed}, and noise in shares is made for {planned}: in 0.1.0 a coordinator could have "
        "opened sums of fewer sites, which cost more than the ledger says",
        f"Set policy.min_sites to at least {planned}. Compare the cohorts in the reports of "
        f"earlier runs: of one below {planned}, tell the data-protection officer.",
    )


def _deltas(config: FederationConfig, site: _Site) -> Iterator[Finding]:
    """A delta near one over the number of people permits publishing somebody outright."""
    what = f"{site.name}: ledger"
    try:
        location = site.settings.budget.ledger_from(site.folder)
        if not Ledger.exists(location):
            yield Finding(what, "missing", "not here", "Restore it from a backup.")
            return
        budget = Ledger(location).budget()
    except PrivacyError as error:
        yield Finding(what, "fault", str(error), error.hint)
        return
    if not budget.grants:
        advice = f"fmfl-secure ledger grant {site.folder} shows what is proposed."
        yield Finding(what, "missing", "nothing is granted yet", advice)
        return
    size = max(_population(config, site, budget.public_key), budget.largest_size(None) or 1)
    found = objections(budget.grants, budget.charged_grants(), size)
    beyond = [
        f"grant {grant.number} of delta {grant.delta:g}: {objection}"
        for grant, objection in zip(budget.grants, found, strict=True)
        if objection
    ]
    if not beyond:
        yield Finding(what, "ok", "its grants' deltas leave a guarantee, or say in words why not")
        return
    yield Finding(
        what,
        "fault",
        "; ".join(beyond),
        "A delta of that size permits publishing somebody's record outright: show it to the "
        "data-protection officer before anything more is trained under it.",
    )


def _reviews(config: FederationConfig, site: _Site) -> Iterator[Finding]:
    """A day of review that is past: somebody had said that they would look at it again."""
    try:
        location = site.settings.budget.ledger_from(site.folder)
        status = Ledger(location).status() if Ledger.exists(location) else []
    except PrivacyError:
        return  # `_deltas` says what is wrong with it
    notice = review_notice(reviews_due(config, status))
    if notice:
        yield Finding(
            f"{site.name}: reviews",
            "question",
            notice,
            "Do so with who decided it, before more is trained. Of a grant: fmfl-secure ledger "
            "lower or close takes back what is too much, and a new grant carries a new day.",
        )


def _population(config: FederationConfig, site: _Site, public_key: bytes) -> int:
    """Of the site whose ledger it is. Where a kit does not tell, the smallest: it faults least."""
    declared = {entry.name: entry.population for entry in config.sites}
    if site.name in declared:
        return declared[site.name]
    try:
        members = Members.load(site.folder / "members.json").sites
    except FmflError:
        members = {}
    keys = {identity.key: name for name, identity in members.items()}
    return declared.get(keys.get(public_key, ""), min(declared.values()))


_CHECKS: tuple[Callable[[FederationConfig, _Site], Iterator[Finding]], ...] = (
    _unit_ids,
    _cohort,
    _deltas,
    _reviews,
)
