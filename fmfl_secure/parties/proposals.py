"""Proposals of a ledger's first grant by others; its site's custodian grants (`first_grant`).

What is proposed is what the settings say at the time it is accepted, and so never what a template
said: `init` writes settings before anybody has read them. Whoever initialises a folder may propose
another amount, which lies beside the site's file until then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from fmfl_secure.errors import ConfigError
from fmfl_secure.outside import MALFORMED, MOST_DOCUMENT, read_regular
from fmfl_secure.planning.terms import Terms, terms_of
from fmfl_secure.run.ranges import Delta, Granted
from fmfl_secure.settings.choices import choices_of
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.site import SiteBudget
from fmfl_secure.settings.task_templates import TASK_TEMPLATES
from fmfl_secure.settings.templates import OF_MODEL, federation_toml, left_open
from fmfl_secure.storage.files import write_files
from privacy import UNSAID, Decided, Grant, Ledger

PROPOSAL: Final = "grant-proposal.json"
ACCEPTED: Final = "first grant, accepted by the site"
SIMULATED: Final = "first grant, of a simulation: made for the site, by nobody who answers for it"


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount proposed instead of the settings' own.

    Attributes:
        epsilon: None for the settings'.
        delta: None for the settings'.
        delta_reason: Why delta may be above 1 / (10 x population); empty for none.
    """

    epsilon: Granted | None = None
    delta: Delta | None = None
    delta_reason: str = ""

    def keep(self, folder: Path) -> None:
        """Put it beside a site's file, if it says anything."""
        if self != Proposal():
            write_files(folder, {PROPOSAL: msgspec.json.encode(self) + b"\n"})

    @classmethod
    def of(cls, folder: Path) -> Proposal:
        """The one beside a site's file, or one that says nothing.

        Raises:
            ConfigError: It cannot be read.
        """
        path = folder / PROPOSAL
        if not path.exists():
            return cls()
        try:
            return msgspec.json.decode(read_regular(path, most_bytes=MOST_DOCUMENT), type=cls)
        except (OSError, *MALFORMED) as error:
            raise ConfigError(f"cannot read the proposal {path}: {error}") from error


@dataclass(frozen=True, slots=True)
class FixedRun:
    """The one run that exact grants are for: one for its training, and one for its answers.

    Attributes:
        parts: What each may cost, and what it holds.
        digest: Of the run's settings.
    """

    parts: tuple[tuple[float, Terms], ...]
    digest: str

    def missing(self, ledger: Ledger) -> tuple[tuple[float, Terms], ...]:
        """The parts that no unused grant is there for; all of them where there is one for each."""
        waiting = [s.grant.exact for s in ledger.budget().status() if s.is_open and not s.is_used]
        held = {(e.event, e.rounds) for e in waiting if e is not None and e.plan == self.digest}
        found = tuple(p for p in self.parts if (p[1].event, p[1].trainings) not in held)
        return found or self.parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A first grant as it would be made.

    Attributes:
        site: Whose.
        population: Of the ledger.
        unit: Of the ledger.
        epsilon: Against everyone who sees what is released.
        delta: At this delta; of all exact grants together.
        insider_epsilon: Against all other sites together, where the settings have noise in shares.
        population_size: Declared number of units.
        delta_reason: Why delta may be above 1 / (10 population_size).
        decided: Why this epsilon, who decided it, and when to look again, as the settings say.
        run: The run that it is for and no other, where the settings account exactly.
    """

    site: str
    population: str
    unit: str
    epsilon: float
    delta: float
    insider_epsilon: float | None
    population_size: int
    delta_reason: str
    decided: Decided = UNSAID
    run: FixedRun | None = None

    def said(self, more: Decided) -> Offer:
        """The same, with what its custodian says of the decision in place of the settings' word."""
        return replace(self, decided=more.over(self.decided))

    def grant(self, ledger: Ledger, *, purpose: str) -> tuple[Grant, ...]:
        """Make it, as the first of its ledger: one grant, or an exact one for each part of a run.

        A ledger is opened before the settings are edited. Until its first grant it follows them.

        Raises:
            LedgerError: The ledger has a grant.
            PlanError: It cannot be granted to so many.
        """
        budget = ledger.budget()
        if not budget.grants and (budget.population, budget.unit) != (self.population, self.unit):
            ledger.settle(population=self.population, unit=self.unit)
        if self.run is not None:
            return self.grant_run(ledger, self.run, purpose=purpose, first=True)
        return (
            ledger.grant(
                epsilon=self.epsilon,
                delta=self.delta,
                purpose=purpose,
                insider_epsilon=self.insider_epsilon,
                population_size=self.population_size,
                delta_reason=self.delta_reason,
                decided=self.decided,
                first=True,
            ),
        )

    def grant_run(
        self,
        ledger: Ledger,
        run: FixedRun,
        *,
        purpose: str,
        first: bool = False,
        cap: tuple[float, float] | None = None,
    ) -> tuple[Grant, ...]:
        """Make exact grants for one run: for its training, and for its answers.

        Raises:
            LedgerError: It costs more, or exact grants would go beyond their cap.
            PlanError: It cannot be granted to so many.
        """
        made: list[Grant] = []
        if cap is None and ledger.budget().exact_cap is None:
            cap = self.epsilon, self.delta
        beyond = self.epsilon - sum(epsilon for epsilon, _ in run.parts)
        for epsilon, terms in run.missing(ledger):
            more = beyond if (epsilon, terms) == run.parts[0] else 0.0
            granted = ledger.grant_exact(
                epsilon=epsilon + more,
                delta=self.delta / len(run.parts),
                event=terms.event,
                rounds=terms.trainings,
                plan=run.digest,
                purpose=terms.purpose(purpose),
                population_size=self.population_size,
                delta_reason=self.delta_reason,
                decided=self.decided,
                cap=None if made else cap,
                first=first and not made,
            )
            made.append(granted)
        return tuple(made)


def offer(config: FederationConfig, site: str, budget: SiteBudget, proposal: Proposal) -> Offer:
    """Makes an offer to a site from settings and a proposal.

    Raises:
        ConfigError: The site is not among the settings'.
    """
    entries = [entry for entry in config.sites if entry.name == site]
    if not entries:
        raise ConfigError(f"{site} is not among the sites of these settings")
    privacy = config.privacy
    asked = config.asked
    # Training and answers are charged to the same grant, and cost no more than they add up to.
    wanted = privacy.epsilon if config.trains else 0.0
    insider = privacy.insider_epsilon if config.trains else 0.0
    if asked is not None:
        wanted, insider = wanted + asked.epsilon, insider + asked.insider_epsilon
    epsilon = wanted if proposal.epsilon is None else proposal.epsilon
    run = fixed_run(config, site) if privacy.accounting == "exact" else None
    delta = privacy.delta * (1 if run is None else len(run.parts))  # of grants that add up
    # Shares of distributed noise are permitted where the settings ask for them, not otherwise.
    shares = privacy.noise_mechanism.in_shares
    return Offer(
        site=site,
        population=budget.population,
        unit=config.task.unit,
        epsilon=epsilon,
        delta=delta if proposal.delta is None else proposal.delta,
        insider_epsilon=max(epsilon, insider) if shares else None,
        population_size=entries[0].population,
        delta_reason=proposal.delta_reason,
        decided=privacy.decided,
        run=run,
    )


def fixed_run(config: FederationConfig, site: str) -> FixedRun:
    """A site's run by settings that account exactly.

    Raises:
        ConfigError: They do not, or the site is not among theirs.
        PlanError: They cannot be met.
    """
    if config.privacy.accounting != "exact":
        raise ConfigError(
            "these settings account by the filter, and no grant is for their run alone",
            hint='Set privacy.accounting = "exact", which asks for one.',
        )
    entries = [entry for entry in config.sites if entry.name == site]
    if not entries:
        raise ConfigError(f"{site} is not among the sites of these settings")
    # With noise of each site's own no term depends on how much is trained.
    terms = terms_of(config, entries[0], size=1)
    costs = {True: 0.0 if config.asked is None else config.asked.epsilon}
    costs[False] = config.privacy.epsilon
    return FixedRun(tuple((costs[bool(each.asked)], each) for each in terms), config.digest)


def require_edited(federation: Path) -> None:
    """Refuse to grant what a template says.

    Raises:
        ConfigError: The settings are as `init` wrote them.
    """
    if is_template(federation):
        raise ConfigError(
            f"{federation} is as init wrote it: nobody has said yet what is learned, from how "
            "many people, and what it may cost",
            hint="Edit it first; what it says then is what is granted.",
        )


def is_template(federation: Path) -> bool:
    """Whether settings are as `init` wrote them before people had chosen all that is theirs.

    What the base model decides, and what they did choose, makes no difference.
    """
    config, text = load_federation(federation), federation.read_text(encoding="utf-8")
    if config.task.kind not in TASK_TEMPLATES:
        return False
    keys, missing = set(OF_MODEL), left_open(text)
    if missing:
        keys |= {each.key for each in choices_of(config.task.kind)} - set(missing)
        keys.add("privacy.delta")  # which follows from a population
    values = {key: value for key in keys if (value := _value_of(config, key)) is not None}
    template = federation_toml(config.federation.name, len(config.sites), config.task.kind, values)
    return text == template


def open_choices(federation: Path) -> tuple[str, ...]:
    """Keys of settings that nobody has chosen since `init` wrote them; none once they are edited.

    Raises:
        ConfigError: There are no settings, or they are wrong.
    """
    if not is_template(federation):
        return ()
    every = tuple(each.key for each in choices_of(load_federation(federation).task.kind))
    return left_open(federation.read_text(encoding="utf-8")) or every


def _value_of(config: FederationConfig, key: str) -> Any:
    section, name = key.split(".")
    found = config.sites[0] if section == "sites" else getattr(config, section)
    return getattr(found, name, None)
