"""Verdicts of sites on a run's releases, as the server sends them to one that was away."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aggregation.protocol import prepared
from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED


class ReleaseHistory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attempt's plan and cohort, and the verdicts on its release.

    Attributes:
        plan: The signed plan.
        cohort: The signed cohort.
        verdicts: What sites of the cohort signed.
    """

    plan: bytes
    cohort: bytes
    verdicts: tuple[bytes, ...]


def encode_history(history: Sequence[ReleaseHistory]) -> bytes:
    """Encodes the history as one document."""
    return msgspec.msgpack.encode(tuple(history))


def decode_history(data: bytes) -> tuple[ReleaseHistory, ...]:
    """Read what `encode_history` wrote; nothing in it is verified.

    Raises:
        RunError: It is something else.
    """
    if not data:
        return ()
    try:
        return msgspec.msgpack.decode(data, type=prepared(tuple[ReleaseHistory, ...]))
    except MALFORMED as error:
        raise RunError("what sites signed of earlier rounds is malformed") from error
