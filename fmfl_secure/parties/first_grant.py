"""A site's custodian grants what was proposed, once the settings say what it is for."""

from __future__ import annotations

from pathlib import Path

from aggregation import Identity
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.proposals import (
    ACCEPTED,
    Offer,
    Proposal,
    fixed_run,
    offer,
    require_edited,
)
from fmfl_secure.parties.workspace import Members
from fmfl_secure.settings.federation import FederationConfig, load_federation, load_site
from privacy import Decided, Grant, Ledger


def grant_for(
    folder: Path,
    settings: Path,
    *,
    purpose: str,
    cap: tuple[float, float] | None,
    said: Decided,
) -> tuple[Grant, ...]:
    """Make the exact grants for a run by settings, as the site's custodian.

    Args:
        folder: The site's.
        settings: The run's `federation.toml`.
        purpose: What for.
        cap: Most that all exact grants of the ledger may come to; with the first of them alone.
        said: Why this epsilon, and so on, in place of what the settings say of it.

    Raises:
        ConfigError: The settings account by the filter, or do not name the site.
        LedgerError: Exact grants would go beyond their cap.
        PlanError: It cannot be granted to so many.
    """
    config = load_federation(settings)
    name = name_of(folder, config)
    budget = load_site(folder / "site.toml").budget
    given = offer(config, name, budget, Proposal()).said(said)
    signer = Identity.load(folder / "identity.pem", name)
    ledger = Ledger(budget.ledger_from(folder), signer=signer)
    return given.grant_run(ledger, fixed_run(config, name), purpose=purpose, cap=cap)


def accept(folder: Path, given: Offer) -> tuple[Grant, ...]:
    """Grant to a site's ledger what was proposed and shown, as its custodian.

    Raises:
        LedgerError: There is no ledger, it has a grant, or this site's identity is no custodian's.
        PlanError: It cannot be granted to so many.
    """
    location = load_site(folder / "site.toml").budget.ledger_from(folder)
    ledger = Ledger(location, signer=Identity.load(folder / "identity.pem", given.site))
    return given.grant(ledger, purpose=ACCEPTED)


def proposed(folder: Path) -> Offer:
    """Reads what is proposed to a site, from its folder.

    Args:
        folder: A site's kit, or its folder in a federation's.

    Raises:
        ConfigError: There are no settings, they are as `init` wrote them, or they do not name it.
    """
    near = (folder / "federation.toml", folder / "../../federation.toml")
    found = [path for path in near if path.exists()]
    if not found:
        raise ConfigError(
            f"there is no federation.toml beside {folder}, so nothing is proposed there",
            hint="Grant by figures: --epsilon, --delta and --purpose.",
        )
    require_edited(found[0])
    config = load_federation(found[0])
    name = name_of(folder, config)
    return offer(config, name, load_site(folder / "site.toml").budget, Proposal.of(folder))


def name_of(folder: Path, config: FederationConfig) -> str:
    """A site's name in the federation: by its key, its request, or its folder's name.

    Args:
        folder: The site's.
        config: The federation's settings.

    Raises:
        ConfigError: None of these tells.
    """
    if (folder / "members.json").exists():
        own = Identity.load(folder / "identity.pem").public.key
        for name, identity in Members.load(folder / "members.json").sites.items():
            if identity.key == own:
                return name
    requests = [path.stem for path in folder.glob("*.request")]
    name = requests[0] if len(requests) == 1 else folder.resolve().name
    if name not in {entry.name for entry in config.sites}:
        raise ConfigError(f"which site of the settings {folder} is of cannot be told")
    return name
