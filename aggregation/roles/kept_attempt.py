"""State that a site keeps of an attempt that it uploaded in, to open it after a restart.

Only where sites may vanish: there it holds the seed of its own self-mask and its shares of others',
which are what an opening hands out. Nothing in it takes a mask between two sites off an upload,
opens the secret of an encryption, or is the MAC key. It is stored sealed, before the upload leaves,
and erased once the attempt was opened or is over.
"""

from __future__ import annotations

import msgspec

from aggregation.errors import StateError
from aggregation.protocol.messages import SALTED_SIZE, Bytes32
from aggregation.protocol.prepared import prepared


class KeptAttempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One attempt.

    Attributes:
        plan: Digest of its plan.
        cohort: The cohort's message.
        manifest: Digest of the upload's manifest.
        seed: Of the site's self-mask.
        shares: Its share of every site's seed with the salt, in cohort order.
    """

    plan: Bytes32
    cohort: bytes
    manifest: Bytes32
    seed: Bytes32
    shares: bytes

    def __repr__(self) -> str:
        return "KeptAttempt(secret)"

    @property
    def held(self) -> tuple[bytes, ...]:
        """The shares, one by one."""
        every = range(0, len(self.shares), SALTED_SIZE)
        return tuple(self.shares[start : start + SALTED_SIZE] for start in every)


def read_kept(data: bytes, plan: bytes) -> KeptAttempt:
    """Read what was kept.

    Raises:
        StateError: It is of another plan, or nothing that was kept.
    """
    try:
        kept = msgspec.msgpack.decode(data, type=prepared(KeptAttempt))
    except msgspec.MsgspecError as error:
        raise StateError("what was kept of an attempt cannot be read") from error
    if kept.plan != plan:
        raise StateError("what was kept is of another attempt")
    return kept
