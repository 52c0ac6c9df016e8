"""The decryptor of a federation: the protocol's role, held to the federation's settings."""

from __future__ import annotations

from pathlib import Path

from aggregation import Decryptor, Identity, SqliteJournal
from fmfl_secure.parties.agreed_plan import objection
from fmfl_secure.parties.workspace import DECRYPTOR, Members
from fmfl_secure.settings.federation import FederationConfig


def open_decryptor(folder: Path, *, config: FederationConfig, members: Members) -> Decryptor:
    """The decryptor in its folder.

    Args:
        folder: With `identity.pem`; its journal is made there if missing.
        config: The federation's settings, as the decryptor has them.
        members: Whom it pinned.

    Raises:
        AggregationError: Its key or its journal cannot be read.
    """
    least = config.federation.min_sites
    return Decryptor(
        Identity.load(folder / "identity.pem", DECRYPTOR),
        SqliteJournal(folder / "journal.sqlite"),
        coordinator=members.coordinator,
        pinned=members.pinned,
        min_cohort=least,
        floor=config.floor(len(members.sites)),
        objection=objection(config, members, least),
    )
