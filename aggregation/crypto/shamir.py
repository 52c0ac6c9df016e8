"""Shamir's shares of a secret of 32 bytes: so many of them give it, and fewer say nothing of it.

The secret is the value at 0 of a polynomial of degree threshold - 1, whose other coefficients are
drawn uniformly; a share is its value at a place, modulo the smallest prime above 2**256, so that
every secret of 32 bytes is an element (Shamir, "How to share a secret", CACM 22(11), 1979). Any
threshold of values determine the polynomial; with fewer, every secret fits equally many.

A share says nothing of whether it is right. Whoever shares commits to each (`commitment`), so that
it is known whose fault a wrong one is.

Python's integers take a little longer for some values than for others. What is computed here is
computed once an attempt, at the machine whose secret it is, between messages that travel.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from aggregation.errors import MessageError, ParameterError

PRIME: Final = (1 << 256) + 297
SECRET_SIZE: Final = 32  # bytes
SHARE_SIZE: Final = 33  # bytes, big endian
SALT_SIZE: Final = 32  # bytes

_DOMAIN: Final = b"fmfl-secure/aggregation/v1/share"


def share(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Share a secret out to the places 1 to `count`.

    Args:
        secret: 32 bytes.
        threshold: How many shares give it, 1 to `count`.
        count: How many there are.

    Returns:
        Shares in the order of their places, `SHARE_SIZE` bytes each.

    Raises:
        ParameterError: Another length, or a threshold that no shares meet.
    """
    if len(secret) != SECRET_SIZE:
        raise ParameterError(f"a secret of {len(secret)} bytes is not shared, only of 32")
    if not 1 <= threshold <= count:
        raise ParameterError(f"a threshold of {threshold} is not 1 to {count}, the shares")
    drawn = [_element() for _ in range(threshold - 1)]
    shares = []
    for place in range(1, count + 1):
        value = 0
        for coefficient in drawn:
            value = (value + coefficient) * place % PRIME
        value = (value + int.from_bytes(secret, "big")) % PRIME
        shares.append(value.to_bytes(SHARE_SIZE, "big"))
    return shares


def at_zero(places: Sequence[int]) -> dict[int, int]:
    """By place, what its share is multiplied with so that all of them sum to the secret.

    Lagrange's coefficients at 0: the same for every secret that was shared to these places.

    Raises:
        ParameterError: No place, one twice, or one that has no share.
    """
    if not places or len(set(places)) != len(places) or min(places) < 1:
        raise ParameterError("shares are of different places, which count from 1")
    found = {}
    for place in places:
        above = below = 1
        for other in places:
            if other != place:
                above = above * other % PRIME
                below = below * (other - place) % PRIME
        found[place] = above * pow(below, -1, PRIME) % PRIME
    return found


def combine(shares: Mapping[int, bytes], coefficients: Mapping[int, int]) -> bytes:
    """The secret that shares give; any 32 bytes, unless they are a threshold of one secret's.

    Args:
        shares: By place; those of other places than the coefficients' are passed over.
        coefficients: `at_zero` of as many places as the threshold.

    Raises:
        MessageError: They give no secret of 32 bytes: they were not made by `share`.
    """
    total = sum(
        coefficient * int.from_bytes(shares[place], "big")
        for place, coefficient in coefficients.items()
    )
    try:
        return (total % PRIME).to_bytes(SECRET_SIZE, "big")
    except OverflowError:
        raise MessageError("shares give no secret") from None


def commitment(share_: bytes, salt: bytes, transcript: bytes, dealer: str, to: str) -> bytes:
    """Commits to one share, 32 bytes that its dealer signs; hiding as long as the salt is.

    Args:
        share_: `SHARE_SIZE` bytes.
        salt: `SALT_SIZE` bytes, drawn for this share.
        transcript: Of the attempt.
        dealer: Whose secret it is a share of.
        to: Whose share.
    """
    state = hashlib.sha256(_DOMAIN)
    for part in (transcript, dealer.encode(), to.encode(), salt, share_):
        state.update(len(part).to_bytes(8, "big") + part)
    return state.digest()


def _element() -> int:
    """Uniform modulo the prime: what is not below it is thrown away, about every second draw."""
    while True:
        value = int.from_bytes(secrets.token_bytes(SHARE_SIZE), "big") >> 7
        if value < PRIME:
            return value
