"""An attempt on public integers whose secrets are all revealed: its integers, and what is revealed.

Whoever spoils a sum by what is well-formed and wrong has no name: masks hide what each site sent.
In a rehearsal nothing is worth hiding. The messages are those of any attempt and the same code
makes them, of integers that everybody can compute. Afterwards every party reveals its keys of the
attempt, and what each should have sent can be computed (`aggregation.roles.rehearsed`).

A plan says that it is one, and then nothing of it fits a round's: its digest is in the transcript,
and so in every key; no adapter, layout or model is in it; and its entries in journals are under
keys of their own. A site takes no other integers in a rehearsal than these, and reveals its keys
in nothing else.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.ckks.quantization import Quantization, Segment
from aggregation.crypto.sealed_box import PRIVATE_SIZE
from aggregation.errors import CohortError
from aggregation.protocol import messages
from aggregation.protocol.messages import Body, Bytes32
from aggregation.protocol.plan import REHEARSED
from aggregation.protocol.round import FixedCohort, Round

MOST_VALUES: Final = 1 << 16  # of a rehearsal: what an upload has more of, no rehearsal looks at
_INTEGERS: Final = b"fmfl-secure/aggregation/v1/rehearsal/integers"


def rehearsal_grid(bits: int, size: int) -> Quantization:
    """The grid of a rehearsal of updates of `size` values: a round's bits, and not more values."""
    return Quantization(
        bits=bits, segments=(Segment(name=REHEARSED, size=min(size, MOST_VALUES), range=1.0),)
    )


def public_integers(round_: Round, name: str) -> npt.NDArray[np.int32]:
    """Derives a site's upload in a rehearsal: uniform on the grid, of plan digest and name.

    Different at every site and in every chunk, and not zeros, so that what mixes them up shows.

    Returns:
        int32, shape (d,).
    """
    limit, size = (1 << (round_.plan.quantization.bits - 1)) - 1, round_.packing.size
    raw = hashlib.shake_256(_INTEGERS + round_.digest + name.encode()).digest(4 * size)
    return (np.frombuffer(raw, dtype="<u4") % (2 * limit + 1)).astype(np.int32) - np.int32(limit)


class Reveal(Body, frozen=True, forbid_unknown_fields=True):
    """A party's secrets of a rehearsal, all of them. It gives no other word in that attempt.

    Attributes:
        transcript: Of the attempt.
        key: Of a site the private X25519 key, and in a hybrid plan the ML-KEM-768 seed behind it;
            of the decryptor its private box key.
        seed: Of a site the seed of its self-mask.
        box: Where sites may vanish, a site's private box key.
        verified: Whether the release, if there was one, verified at this site.
    """

    KIND: ClassVar[str] = "reveal"

    transcript: Bytes32
    key: Annotated[bytes, msgspec.Meta(max_length=PRIVATE_SIZE)]
    seed: Bytes32 | msgspec.UnsetType = msgspec.UNSET
    box: Annotated[bytes, msgspec.Meta(max_length=PRIVATE_SIZE)] | msgspec.UnsetType = msgspec.UNSET
    verified: bool | msgspec.UnsetType = msgspec.UNSET


def read_reveal(cohort: FixedCohort, message: bytes) -> tuple[str, Reveal]:
    """Verify whose word it is; not yet that its keys are those that were announced.

    Raises:
        RefusedError: Malformed, unsigned, of another attempt, or the attempt is no rehearsal.
    """
    if not cohort.round.is_rehearsal:
        raise CohortError("nothing is revealed of an attempt that is no rehearsal")
    name = messages.sender(message, Reveal.cap())
    decryptor = cohort.round.plan.decryptor
    signer = decryptor if name == decryptor.name else cohort.member(name)
    body = messages.unseal(message, Reveal, signer)
    if body.transcript != cohort.transcript:
        raise CohortError(f"what {name} reveals is of another attempt")
    return name, body
