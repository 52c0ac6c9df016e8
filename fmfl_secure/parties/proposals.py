"""What others propose as a ledger's first grant; its site's custodian grants (`first_grant`).

What is proposed is what the settings say at the time it is accepted, and so never what a template
said: `init` writes settings before anybody has read them. Whoever initialises a folder may propose
another amount, which lies beside the site's file until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.site import SiteBudget
from fmfl_secure.settings.task_templates import TASK_TEMPLATES
from fmfl_secure.settings.templates import federation_toml
from fmfl_secure.storage.files import write_files
from privacy import Grant, Ledger

PROPOSAL: Final = "grant-proposal.json"
ACCEPTED: Final = "first grant, accepted by the site"
SIMULATED: Final = "first grant, of a simulation: made for the site, by nobody who answers for it"


class Proposal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is proposed instead of the settings' own amount.

    Attributes:
        epsilon: None for the settings'.
        delta: None for the settings'.
        delta_reason: Why delta may be above 1 / (10 x population); empty for none.
    """

    epsilon: float | None = None
    delta: float | None = None
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
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"cannot read the proposal {path}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A first grant as it would be made.

    Attributes:
        site: Whose.
        population: Of the ledger.
        unit: Of the ledger.
        epsilon: Against everyone who sees what is released.
        delta: At this delta.
        insider_epsilon: Against all other sites together, where the settings have noise in shares.
        population_size: Declared number of units.
        delta_reason: Why delta may be above 1 / (10 population_size).
    """

    site: str
    population: str
    unit: str
    epsilon: float
    delta: float
    insider_epsilon: float | None
    population_size: int
    delta_reason: str

    def grant(self, ledger: Ledger, *, purpose: str) -> Grant:
        """Make it, as the first of its ledger.

        A ledger is opened before the settings are edited. Until its first grant it follows them.

        Raises:
            LedgerError: The ledger has a grant.
            PlanError: It cannot be granted to so many.
        """
        budget = ledger.budget()
        if not budget.grants and (budget.population, budget.unit) != (self.population, self.unit):
            ledger.settle(population=self.population, unit=self.unit)
        return ledger.grant(
            epsilon=self.epsilon,
            delta=self.delta,
            purpose=purpose,
            insider_epsilon=self.insider_epsilon,
            population_size=self.population_size,
            delta_reason=self.delta_reason,
            first=True,
        )


def offer(config: FederationConfig, site: str, budget: SiteBudget, proposal: Proposal) -> Offer:
    """What settings and a proposal come to for a site.

    Raises:
        ConfigError: The site is not among the settings'.
    """
    entries = [entry for entry in config.sites if entry.name == site]
    if not entries:
        raise ConfigError(f"{site} is not among the sites of these settings")
    privacy = config.privacy
    epsilon = privacy.epsilon if proposal.epsilon is None else proposal.epsilon
    # Shares of distributed noise are permitted where the settings ask for them, not otherwise.
    shares = privacy.noise_mechanism.in_shares
    return Offer(
        site=site,
        population=budget.population,
        unit=config.task.unit,
        epsilon=epsilon,
        delta=privacy.delta if proposal.delta is None else proposal.delta,
        insider_epsilon=max(epsilon, privacy.insider_epsilon) if shares else None,
        population_size=entries[0].population,
        delta_reason=proposal.delta_reason,
    )


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
    """Whether settings are as `init` wrote them."""
    config = load_federation(federation)
    if config.task.kind not in TASK_TEMPLATES:
        return False
    template = federation_toml(config.federation.name, len(config.sites), config.task.kind)
    return federation.read_text(encoding="utf-8") == template
