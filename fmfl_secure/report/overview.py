"""A run's record seen as a report needs it: ledgers worst first, sites that run alike together.

`report.page`, `report.officer` and `report.wording` take ledgers, growth and guarantees from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fmfl_secure.planning.terms import reservations_of
from fmfl_secure.report import rounding
from fmfl_secure.run.record import RunRecord, SiteRecord
from fmfl_secure.run.statement import GrantRecord, SiteStatement

# Trajectories that agree to this are one mechanism's, apart from rounding in a sum.
_ALIKE_PLACES = 9


@dataclass(frozen=True, slots=True)
class Account:
    """A site's grant: what it allows, and what has become of it.

    Attributes:
        site: Name of the site.
        grant: The grant.
        of_this_run: Whether this run is charged to it.
        sole: Whether it is the ledger's only grant.
        verified: Whether the ledger verified.
    """

    site: str
    grant: GrantRecord
    of_this_run: bool
    sole: bool
    verified: bool

    @property
    def label(self) -> str:
        """The site's name, with the number of the grant where the ledger has several."""
        return self.site if self.sole else f"{self.site}, grant {self.grant.number}"

    @property
    def held(self) -> bool:
        """Whether open reservations hold more than was spent."""
        return self.grant.epsilon_charged > self.grant.epsilon_spent


@dataclass(frozen=True, slots=True)
class Track:
    """Epsilon over the trainings of this run, of all sites where it is the same.

    Attributes:
        sites: Their names.
        granted: Epsilon of the grant the run is charged to; of several, what they come to.
        before: Epsilon spent before the run.
        spent: After each training, cumulative.
        trained: Round number of each training; a repeated round appears twice.
    """

    sites: tuple[str, ...]
    granted: float
    before: float
    spent: tuple[float, ...]
    trained: tuple[int, ...]

    @property
    def final(self) -> float:
        """Epsilon spent when the run ended."""
        return self.spent[-1] if self.spent else self.before


@dataclass(frozen=True, slots=True)
class Promise:
    """An (epsilon, delta) that somebody relies on, and who.

    Attributes:
        epsilon: Granted, or planned.
        delta: Likewise.
        sites: Names of the sites it is a promise of; empty for the run's own target.
        whole_ledger: Whether it adds up several grants of a ledger.
        insiders: Whether it is the figure against all other sites together, of distributed noise.
    """

    epsilon: float
    delta: float
    sites: tuple[str, ...]
    whole_ledger: bool = False
    insiders: bool = False


def statements(record: RunRecord) -> Iterator[tuple[SiteRecord, SiteStatement]]:
    """Sites that state a ledger, in the record's order."""
    for site in record.sites:
        if site.statement is not None:
            yield site, site.statement


def charged_grants(record: RunRecord, statement: SiteStatement) -> set[int]:
    """Numbers of the grants that this run's training and answers are charged to."""
    names = reservations_of(record.run)
    return {charge.grant for charge in statement.runs if charge.run in names}


def accounts(record: RunRecord) -> list[Account]:
    """Every grant of every ledger, the one with least left of it first."""
    found = [
        Account(
            site=site.name,
            grant=grant,
            of_this_run=grant.number in charged_grants(record, statement),
            sole=len(statement.grants) == 1,
            verified=statement.verified,
        )
        for site, statement in statements(record)
        for grant in statement.grants
    ]
    return sorted(
        found, key=lambda one: (_number(one.grant.epsilon_left), one.site, one.grant.number)
    )


def tracks(record: RunRecord) -> list[Track]:
    """How epsilon grew during this run, sites with the same growth together, highest first."""
    alike: dict[tuple[object, ...], list[str]] = {}
    first: dict[tuple[object, ...], tuple[float, SiteStatement, tuple[int, ...]]] = {}
    names = reservations_of(record.run)
    for site, statement in statements(record):
        numbers = charged_grants(record, statement)
        grants = [grant.epsilon for grant in statement.grants if grant.number in numbers]
        if not grants:
            continue
        granted = rounding.add(grants)
        own = [c for c in statement.runs if c.run in names]
        trained = tuple(sorted(each for charge in own for each in charge.rounds_trained))
        key = (
            granted,
            round(statement.epsilon_before, _ALIKE_PLACES),
            tuple(round(value, _ALIKE_PLACES) for value in statement.epsilon_by_round),
            trained,
        )
        alike.setdefault(key, []).append(site.name)
        first.setdefault(key, (granted, statement, trained))
    found = [
        Track(
            sites=tuple(names),
            granted=first[key][0],
            before=first[key][1].epsilon_before,
            spent=first[key][1].epsilon_by_round,
            trained=first[key][2],
        )
        for key, names in alike.items()
    ]
    return sorted(found, key=lambda one: (-_number(one.final), one.sites))


def promises(record: RunRecord) -> list[Promise]:
    """The run's own target, each distinct grant, and each distinct sum of a ledger's grants.

    Where distributed noise has a second figure, those of that figure follow.
    """
    by_grant: dict[tuple[bool, float, float], list[str]] = {}
    by_ledger: dict[tuple[bool, float, float], list[str]] = {}
    for site, statement in statements(record):
        for grant in statement.grants:
            if not grant.counts:
                continue
            figures = [(False, grant.counted_epsilon, grant.delta)]
            if grant.insider_epsilon is not None:
                figures.append((True, grant.counted_insider_epsilon, grant.delta))
            for figure in figures:
                names = by_grant.setdefault(figure, [])
                if site.name not in names:
                    names.append(site.name)
        if len(statement.grants) > 1:
            epsilon, delta = guarantee(statement)
            by_ledger.setdefault((False, epsilon, delta), []).append(site.name)
            if insider_guarantee(statement) > epsilon:
                second = (True, insider_guarantee(statement), delta)
                by_ledger.setdefault(second, []).append(site.name)
    mechanism = record.mechanism
    found = [Promise(mechanism.target_epsilon, mechanism.delta, ())]
    if mechanism.noise_mechanism.in_shares:
        found.append(Promise(mechanism.insider_epsilon, mechanism.delta, (), insiders=True))
    for whole, by in ((False, by_grant), (True, by_ledger)):
        found.extend(
            Promise(epsilon, delta, tuple(names), whole, insiders)
            for (insiders, epsilon, delta), names in sorted(by.items())
        )
    return sorted(found, key=lambda one: one.insiders)


def guarantee(statement: SiteStatement) -> tuple[float, float]:
    """(epsilon, delta) of all a ledger may ever permit: its grants, added up.

    As in the ledger: a grant that affords nothing, and to which nothing is charged, adds nothing;
    one that a recovery charged with more than it held counts as what was charged; and where the
    deltas come to 1 or more there is no guarantee.
    """
    counted = [grant for grant in statement.grants if grant.counts]
    filtered = [grant for grant in counted if not grant.exact]
    caps = [grant.cap for grant in statement.grants if grant.cap]
    cap = caps[:1] if len(filtered) < len(counted) else []
    delta = rounding.add([*(grant.delta for grant in filtered), *(each[1] for each in cap)])
    if delta >= 1.0:
        return math.inf, 1.0
    beyond = [max(0.0, g.epsilon_charged - g.epsilon) for g in counted if g.exact]
    epsilons = [*(grant.counted_epsilon for grant in filtered), *(each[0] for each in cap), *beyond]
    return rounding.add(epsilons), delta


def insider_guarantee(statement: SiteStatement) -> float:
    """Epsilon of all a ledger may ever permit against all other sites together."""
    if not math.isfinite(guarantee(statement)[0]):
        return math.inf
    filtered = [grant for grant in statement.grants if grant.counts and not grant.exact]
    seen = [grant.counted_insider_epsilon for grant in filtered]
    exact = guarantee(statement)[0] - rounding.add(grant.counted_epsilon for grant in filtered)
    return rounding.add([*seen, exact]) if exact > 0.0 else rounding.add(seen)


def group_privacy(epsilon: float, delta: float, size: int) -> tuple[float, float]:
    """Computes (epsilon, delta) for a group of `size` units from that for one.

    (k epsilon, delta (e^(k epsilon) - 1) / (e^epsilon - 1)) (Vadhan 2017, Lemma 2.2). Replacing
    one unit by another is a group of two: one is removed and one is added.
    """
    if not math.isfinite(epsilon):
        return math.inf, 1.0
    if epsilon <= 0:
        return 0.0, size * delta
    # Written as a sum, e^0 + e^eps + ..., which neither divides by a small number nor overflows.
    powers = [i * epsilon for i in range(size)]
    if powers[-1] > 700:
        return size * epsilon, math.inf
    return size * epsilon, delta * math.fsum(math.exp(power) for power in powers)


def unverified(record: RunRecord) -> list[str]:
    """Names of sites whose ledger did not verify."""
    return [site.name for site, statement in statements(record) if not statement.verified]


def released(record: RunRecord) -> list[int]:
    """Numbers of the rounds that were released."""
    return [one.round for one in record.rounds if one.status == "released"]


def lost(record: RunRecord) -> list[int]:
    """Numbers of the rounds that were opened and of which no release survived."""
    return [one.round for one in record.rounds if one.status == "lost"]


def _number(value: float) -> float:
    # NaN has no order; as infinite it sorts where an unknown cost belongs.
    return math.inf if math.isnan(value) else value


def not_stated(record: RunRecord, site: SiteRecord, statement: SiteStatement) -> list[int]:
    """Rounds that a site was in, and therefore charged for, after it made its statement."""
    own = [each for each in statement.runs if each.run in reservations_of(record.run)]
    charged = {number for each in own for number in each.rounds_trained}
    return [e.round for e in record.rounds if site.name in e.cohort and e.round not in charged]
