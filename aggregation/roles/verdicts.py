"""Verdicts of a site on releases: signed, and recorded before they leave."""

from __future__ import annotations

from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import RecordedError, StateError
from aggregation.protocol import checks, messages
from aggregation.protocol.journal import Journal
from aggregation.protocol.round import FixedCohort
from aggregation.protocol.verdict import LOST, Outcome, Verdict, verdict_on

_SAID = "site/verdict"


def give_verdict(
    identity: Identity, journal: Journal, cohort: FixedCohort, outcome: Outcome, after: str = ""
) -> bytes:
    """Sign what became of a release at a site, once a round (step 9).

    Args:
        identity: The site's key pair.
        journal: Its durable record.
        cohort: The attempt's, verified.
        outcome: What became of the release.
        after: `sha256:` of the adapter that the sum gives, if it verified.

    Raises:
        StateError: The site said something else of this round.
        JournalError: The record cannot be read or written.
    """
    key = cohort.round.round_key(identity.public)
    message = messages.seal(identity, verdict_on(cohort, outcome, after))
    try:
        journal.record(_SAID, key, message)
    except RecordedError:
        if journal.lookup(_SAID, key) != message:  # Ed25519 signs the same alike
            raise StateError("this site said something else of this round before") from None
    return message


def verdict_after_restart(
    identity: Identity,
    journal: Journal,
    plan_message: bytes,
    cohort_message: bytes,
    coordinator: PublicIdentity,
) -> bytes:
    """Returns the verdict recorded for a round, or one of `lost`, which is recorded nowhere.

    Raises:
        RefusedError: Plan or cohort do not hold.
        JournalError: The record cannot be read.
    """
    round_ = checks.read_plan(plan_message, coordinator)
    recorded = journal.lookup(_SAID, round_.round_key(identity.public))
    if recorded is not None:
        return recorded
    return messages.seal(identity, verdict_on(checks.read_cohort(round_, cohort_message), LOST))


def said_of(journal: Journal, own: PublicIdentity, round_key: str) -> Verdict | None:
    """Returns a site's recorded verdict on a round (`Round.round_key`), or None.

    Raises:
        RefusedError: The record was altered.
        JournalError: It cannot be read.
    """
    message = journal.lookup(_SAID, round_key)
    return None if message is None else messages.unseal(message, Verdict, own)
