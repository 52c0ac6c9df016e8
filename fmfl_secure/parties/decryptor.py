"""The decryptor of a federation: the protocol's role, held to the federation's settings."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import aggregation
from aggregation import Identity, PublicIdentity, SqliteJournal
from aggregation.protocol import read_plan
from fmfl_secure.parties.agreed_plan import objection
from fmfl_secure.parties.stops import Stops
from fmfl_secure.parties.workspace import DECRYPTOR, Members
from fmfl_secure.settings.federation import FederationConfig


class Decryptor(aggregation.Decryptor):
    """The protocol's role, which opens nothing of a run that it knows to be stopped.

    By what the coordinator signed, and not by what whoever carries it says of it.
    """

    stops: Stops
    coordinator: PublicIdentity

    def announce(self, plan_message: bytes) -> bytes:
        """Announces the keys of an attempt, unless somebody has stopped the run.

        Raises:
            RunHalted: Somebody has stopped the run.
            AggregationError: The plan does not hold.
        """
        self._require_going(plan_message)
        return super().announce(plan_message)

    def release(
        self,
        cohort_message: bytes,
        opening_list: bytes,
        manifest: bytes,
        chunks: Iterable[bytes],
        *,
        plan_message: bytes | None = None,
        approvals: Iterable[bytes] = (),
    ) -> bytes:
        """Releases a round's sum, unless somebody has stopped the run.

        Raises:
            RunHalted: Somebody has stopped the run since its keys were announced.
            AggregationError: Something does not hold.
        """
        if plan_message is not None:
            self._require_going(plan_message)
        return super().release(
            cohort_message,
            opening_list,
            manifest,
            chunks,
            plan_message=plan_message,
            approvals=approvals,
        )

    def _require_going(self, plan_message: bytes) -> None:
        self.stops.require_none(read_plan(plan_message, self.coordinator).plan.run)


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
    opened = Decryptor(
        Identity.load(folder / "identity.pem", DECRYPTOR),
        SqliteJournal(folder / "journal.sqlite"),
        coordinator=members.coordinator,
        pinned=members.pinned,
        min_cohort=least,
        floor=config.floor(len(members.sites)),
        objection=objection(config, members, least),
    )
    opened.stops, opened.coordinator = Stops(folder, members), members.coordinator
    return opened
