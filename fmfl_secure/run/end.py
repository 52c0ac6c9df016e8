"""The coordinator's signed end of a run: what entitles sites to take back what never started."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from aggregation import Identity, PublicIdentity
from aggregation.protocol import prepared
from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED
from fmfl_secure.run.ranges import Number
from fmfl_secure.run.record import RoundRecord

_DOMAIN = b"fmfl-secure/run-end/v1\x00"
_SIGNATURE_BYTES = 64  # Ed25519


class RunEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of a signed end.

    Attributes:
        run: Run id.
        rounds: Number, status and release digest of each round that ended.
        at: UTC time.
    """

    run: str
    rounds: tuple[tuple[Number, str, str], ...]
    at: str


def rounds_of(rounds: Sequence[RoundRecord]) -> tuple[tuple[int, str, str], ...]:
    """Returns the entries of an end for these rounds."""
    return tuple((each.round, each.status, each.release_digest) for each in rounds)


def sign_end(identity: Identity, run: str, rounds: Sequence[RoundRecord]) -> bytes:
    """Sign a run's end, as the coordinator."""
    end = RunEnd(run, rounds_of(rounds), datetime.now(UTC).isoformat(timespec="seconds"))
    body = msgspec.json.encode(end)
    return identity.sign(_DOMAIN + body) + body


def read_end(statement: bytes, *, coordinator: PublicIdentity, run: str) -> RunEnd:
    """Check a signed end of a run.

    Raises:
        RunError: It is of another run, or malformed.
        AggregationError: It is not signed by the coordinator.
    """
    body = statement[_SIGNATURE_BYTES:]
    coordinator.verify(statement[:_SIGNATURE_BYTES], _DOMAIN + body)
    try:
        end = msgspec.json.decode(body, type=prepared(RunEnd))
    except MALFORMED as error:
        raise RunError("the end of the run is malformed") from error
    if end.run != run:
        raise RunError("the end is of another run")
    return end


def evidence(statement: bytes) -> str:
    """`sha256:` of a signed end: what a site's ledger keeps with a refund."""
    return "sha256:" + hashlib.sha256(statement).hexdigest()
