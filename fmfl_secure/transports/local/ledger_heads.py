"""Heads of ledgers on their way: others remember how far a site's ledger had come."""

from __future__ import annotations

from collections.abc import Iterable

from aggregation import PublicIdentity
from fmfl_secure.parties.site import Site
from fmfl_secure.parties.workspace import Members
from fmfl_secure.storage.anchor_store import AnchorStore


class HeadExchange:
    """Carries signed heads from each site to the coordinator and to the other sites, and back.

    Args:
        coordinator: What the coordinator keeps.
        members: All parties.
    """

    def __init__(self, coordinator: AnchorStore, members: Members) -> None:
        self._coordinator = coordinator
        self._members = members
        self._latest: dict[str, tuple[PublicIdentity, str]] = {}

    def return_to(self, site: Site, sites: Iterable[Site]) -> None:
        """Give a site all heads that others kept of its ledger. Before it charges anything.

        Raises:
            LedgerLocked: Its ledger lacks one.
            RunError: They cannot be read.
        """
        identity = self._members.sites[site.name]
        stores = [self._coordinator, *(each.others for each in sites if each is not site)]
        site.hold_to(sorted({line for store in stores for line in store.held(identity)}))

    def take(self, site: Site) -> str | None:
        """Have a site sign its ledger's head; None if it keeps no ledger for this run."""
        line = site.anchor()
        if line is not None:
            self._latest[site.name] = (self._members.sites[site.name], line)
        return line

    def keep(self) -> None:
        """Have the coordinator keep the latest heads; durable when this returns."""
        self._coordinator.keep(self._latest.values())

    def share_with(self, site: Site) -> None:
        """Have a site keep the latest heads of the others' ledgers."""
        site.others.keep(head for name, head in self._latest.items() if name != site.name)
