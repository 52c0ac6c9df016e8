"""The ledgers that lie in a folder: of a federation's sites, or of the one site whose kit it is."""

from __future__ import annotations

from pathlib import Path

from fmfl_secure.parties.first_grant import name_of
from fmfl_secure.parties.run_budget import require_population
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.planning.plans import SiteLedger
from fmfl_secure.settings.federation import FederationConfig, load_site
from privacy import Ledger


def ledgers_at_hand(folder: Path, config: FederationConfig) -> dict[str, SiteLedger]:
    """Ledgers by site, as far as they are here and anything was granted in them.

    Args:
        folder: Where `federation.toml` is.
        config: What it says.

    Raises:
        ConfigError: One is of other people than its site's.
        LedgerError: One that is here cannot be read, or does not verify.
    """
    places = {entry.name: Workspace(folder).site(entry.name) for entry in config.sites}
    if (folder / "site.toml").exists():
        places[name_of(folder, config)] = folder
    found = {}
    for name, place in places.items():
        if not (place / "site.toml").exists():
            continue
        site = load_site(place / "site.toml")
        location = site.budget.ledger_from(place)
        if not Ledger.exists(location):
            continue
        budget = Ledger(location).budget()
        if budget.grants:  # until then it follows the settings
            require_population(budget, site=name, settings=site)
            found[name] = SiteLedger(budget, site.dataset)
    return found
