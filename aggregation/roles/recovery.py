"""Sends again, after a restart, the opening that a site recorded: the same bytes."""

from __future__ import annotations

from aggregation.crypto.identity import PublicIdentity
from aggregation.protocol import checks
from aggregation.protocol.journal import Journal
from aggregation.roles.site import OPENED


def recorded_opening(
    journal: Journal, own: PublicIdentity, plan_message: bytes, coordinator: PublicIdentity
) -> bytes | None:
    """The opening that a site recorded for a plan's round, or its attempt; or None.

    It was recorded before it was sent, and may never have arrived. It is for one list of one
    attempt; the aggregator of any other refuses it.

    Raises:
        RefusedError: The plan does not hold.
        JournalError: The record cannot be read.
    """
    round_ = checks.read_plan(plan_message, coordinator)
    key = round_.attempt_key(own) if round_.shares else round_.round_key(own)
    return journal.lookup(OPENED, key)
