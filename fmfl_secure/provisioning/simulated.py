"""Sentences that say, everywhere, that one party drew the keys for all."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fmfl_secure.provisioning.own_keys import drew_own_keys

MARK: Final = "SIMULATION.txt"
WARNING: Final = (
    "every party's keys were drawn in one place. Whoever has been there can sign as any site, open "
    "any sum and write any ledger: nothing separates the parties. Use it with public or invented "
    "data. For others, each party draws its own keys: fmfl-secure request, then fmfl-secure "
    "provision --requests."
)


def is_simulation(kit: Path) -> bool:
    """Whether a kit's keys were drawn elsewhere, as all those of version 0.1.0 were."""
    return (kit / "service.toml").exists() and not drew_own_keys(kit)
