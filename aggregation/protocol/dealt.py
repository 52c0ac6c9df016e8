"""Boxes that one site deals another: a share of its self-mask, from the first site the MAC key.

The box that carries it is opened by its reader alone, and by whoever its reader shows the key to
(`accusation`). Both read it here, so that what convicts is what is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aggregation.crypto import shamir
from aggregation.errors import RefusedError, SealedError
from aggregation.protocol.exchange import Exchanged
from aggregation.protocol.messages import SALTED_SIZE
from aggregation.protocol.round import FixedCohort

_KEY_DOMAIN: Final = b"fmfl-secure/aggregation/v1/mac-key"


@dataclass(frozen=True, slots=True, repr=False)
class Share:
    """A share with its salt, and beside it the MAC key or zeros.

    Attributes:
        salted: Salt and share, as an opening has them.
        key: The MAC key from the first site of a cohort, 32 bytes.
    """

    salted: bytes
    key: bytes


def bound_to(cohort: FixedCohort, dealer: str, to: str) -> bytes:
    """Returns the context that a box is sealed with: transcript, dealer and reader."""
    return cohort.transcript + b"".join(
        len(name).to_bytes(2, "big") + name.encode() for name in (dealer, to)
    )


def commitment(cohort: FixedCohort, dealer: str, to: str, salted: bytes) -> bytes:
    """Returns the commitment that a dealer signs to a share with its salt, 32 bytes."""
    salt, share = salted[: shamir.SALT_SIZE], salted[shamir.SALT_SIZE :]
    return shamir.commitment(share, salt, cohort.transcript, dealer, to)


def commitment_of(sent: Exchanged, place: int) -> bytes:
    """Returns the signed commitment to a place's share; empty where nothing is dealt."""
    part = sent.parts.get(place)
    return b"" if part is None else part.commitment


def key_commitment(key: bytes, transcript: bytes) -> bytes:
    """Commits to the MAC key, 32 bytes that the first site signs, so that all get the same."""
    return hashlib.sha256(_KEY_DOMAIN + transcript + key).digest()


def open_share(
    cohort: FixedCohort, sent: Exchanged, to: str, open_box: Callable[[bytes, bytes], bytes]
) -> Share:
    """Open what a site dealt another.

    Args:
        cohort: The verified cohort.
        sent: The dealer's exchange message, verified; of it at least the part for this reader.
        to: Whom it was dealt to; not the dealer.
        open_box: Opens a box, given what it is bound to.

    Raises:
        SealedError: It does not open, or is not what the dealer signed.
    """
    dealer, place = cohort.names[sent.sender], cohort.position(to)
    part = sent.parts.get(place)
    if part is None or not part.box:
        raise SealedError(f"{dealer} dealt nothing")
    try:
        content = open_box(part.box, bound_to(cohort, dealer, to))
    except RefusedError as error:
        raise SealedError(f"the share that {dealer} dealt does not open") from error
    share = Share(content[:SALTED_SIZE], content[SALTED_SIZE:])
    if commitment(cohort, dealer, to, share.salted) != commitment_of(sent, place):
        raise SealedError(f"the share that {dealer} dealt is not the one that it signed")
    if not sent.sender and key_commitment(share.key, cohort.transcript) != sent.key:
        raise SealedError(f"the MAC key from {dealer} is not the one that it signed")
    return share
