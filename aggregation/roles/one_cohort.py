"""One cohort a round: what a site is held to once it opened, where it may open again.

Where every site must open, a site opens one attempt a round and joins none after. Where sites may
vanish, an attempt that too few opened can be made again: of the same cohort, under the same plan
but for the attempt's number, with the same integers. Then the honest sum is the same, whatever
opens, and only what liars add to it can change. Two different cohorts of a round never open.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.crypto.identity import PublicIdentity
from aggregation.errors import RecordedError, ReplayError
from aggregation.protocol import messages
from aggregation.protocol.journal import Journal
from aggregation.protocol.round import FixedCohort, Round

BOUND: Final = "site/cohort"  # key as of a round; digests of plan, cohort and integers, and a salt
_SIZE: Final = 32  # bytes of each


def check_plan(journal: Journal, own: PublicIdentity, round_: Round) -> None:
    """Refuse a round that this site opened under another plan.

    Raises:
        ReplayError: So it did.
        JournalError: The record cannot be read.
    """
    bound = journal.lookup(BOUND, round_.round_key(own))
    if bound is not None and bound[:_SIZE] != _plan_digest(round_):
        raise ReplayError("this site opened this round already, under another plan")


def check_cohort(journal: Journal, own: PublicIdentity, cohort: FixedCohort) -> None:
    """Refuse another cohort than the one that this site opened in this round.

    Raises:
        ReplayError: It is another.
        JournalError: The record cannot be read.
    """
    bound = journal.lookup(BOUND, cohort.round.round_key(own))
    if bound is not None and bound[_SIZE : 2 * _SIZE] != _cohort_digest(cohort):
        raise ReplayError("this site opened this round already, with another cohort")


def check_integers(
    journal: Journal, own: PublicIdentity, round_: Round, packed: npt.NDArray[np.int64]
) -> None:
    """Refuse other integers than those of the sum that this site opened in this round.

    Raises:
        ReplayError: They are others.
        JournalError: The record cannot be read.
    """
    bound = journal.lookup(BOUND, round_.round_key(own))
    if bound is None:
        return
    salt, digest = bound[2 * _SIZE : 3 * _SIZE], bound[3 * _SIZE :]
    if digest != _integers_digest(salt, packed):
        raise ReplayError("this site opened this round already, with another update")


def bind(
    journal: Journal, own: PublicIdentity, cohort: FixedCohort, packed: npt.NDArray[np.int64]
) -> None:
    """Record, before it opens, what a site opens; or that it opens the same again.

    Args:
        journal: The site's record.
        own: The site.
        cohort: Whose sum it opens.
        packed: Its packed integers in it.

    Raises:
        ReplayError: It opened something else in this round.
        JournalError: It cannot be recorded.
    """
    salt = secrets.token_bytes(_SIZE)  # heads of the journal hang on what is recorded, and travel
    terms = (_plan_digest(cohort.round), _cohort_digest(cohort))
    try:
        journal.record(
            BOUND,
            cohort.round.round_key(own),
            b"".join((*terms, salt, _integers_digest(salt, packed))),
        )
    except RecordedError:
        check_plan(journal, own, cohort.round)
        check_cohort(journal, own, cohort)
        check_integers(journal, own, cohort.round, packed)


def _plan_digest(round_: Round) -> bytes:
    # Everything but which attempt it is: weights, grid, parameters, adapter, whoever is invited.
    plan = msgspec.structs.replace(round_.plan, attempt=1)
    return messages.digest(msgspec.msgpack.encode(plan))


def _cohort_digest(cohort: FixedCohort) -> bytes:
    return messages.digest(msgspec.msgpack.encode(cohort.members))


def _integers_digest(salt: bytes, packed: npt.NDArray[np.int64]) -> bytes:
    return hashlib.sha256(salt + np.ascontiguousarray(packed, dtype="<i8").tobytes()).digest()
