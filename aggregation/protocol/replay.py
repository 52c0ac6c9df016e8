"""A run is of one federation, at every party: its name is in the journal's keys.

Under another name the same run and round would be another entry, and open a second time.
"""

from __future__ import annotations

from typing import Final

from aggregation.crypto.identity import PublicIdentity
from aggregation.errors import RecordedError, ReplayError
from aggregation.protocol.journal import FEDERATION, Journal
from aggregation.protocol.plan import RoundPlan

BARRED: Final = "run/barred"  # key FINGERPRINT/RUN: joined by a journal that was lost


def check_federation(journal: Journal, own: PublicIdentity, plan: RoundPlan) -> bool:
    """Refuse a run that this party knows under another federation's name, or must not join.

    Returns:
        Whether it knows the run.

    Raises:
        ReplayError: It is of another federation here, or barred.
        JournalError: The journal cannot be read.
    """
    key = f"{own.fingerprint}/{plan.run}"
    if journal.lookup(BARRED, key) is not None:
        raise ReplayError(f"{own.name} lost its record of this run, and joins no more of it")
    known = journal.lookup(FEDERATION, key)
    if known is not None and known != plan.federation.encode():
        raise ReplayError(f"this run is of another federation here than {plan.federation}")
    return known is not None


def pin_federation(journal: Journal, own: PublicIdentity, plan: RoundPlan) -> None:
    """Record the federation of a run, before the first message of it leaves this party.

    Raises:
        ReplayError: It is of another federation here.
        JournalError: It cannot be recorded.
    """
    if check_federation(journal, own, plan):
        return
    try:
        journal.record(FEDERATION, f"{own.fingerprint}/{plan.run}", plan.federation.encode())
    except RecordedError:
        check_federation(journal, own, plan)


def bar(journal: Journal, own: PublicIdentity, run: str) -> None:
    """Join nothing of a run any more: what was opened of it is forgotten.

    Raises:
        JournalError: It cannot be recorded.
    """
    if journal.lookup(BARRED, f"{own.fingerprint}/{run}") is None:
        journal.record(BARRED, f"{own.fingerprint}/{run}", b"")
