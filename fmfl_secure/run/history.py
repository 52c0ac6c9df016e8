"""What sites signed of a run's releases, for one that was away: how it travels from the server."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aggregation.protocol import prepared
from fmfl_secure.errors import RunError


class ReleaseHistory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of one attempt's release.

    Attributes:
        plan: The signed plan.
        cohort: The signed cohort.
        verdicts: What sites of the cohort signed.
    """

    plan: bytes
    cohort: bytes
    verdicts: tuple[bytes, ...]


def encode_history(history: Sequence[ReleaseHistory]) -> bytes:
    """As one document."""
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
    except msgspec.DecodeError as error:
        raise RunError("what sites signed of earlier rounds is malformed") from error
