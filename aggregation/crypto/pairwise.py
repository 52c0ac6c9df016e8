"""Secrets that two sites of a cohort share, and how they come to them.

A site announces a single-use X25519 key with its `ready` message, and in a hybrid plan an
ML-KEM-768 key beside it. X25519 needs nothing more. For ML-KEM one of each pair, by the mask
graph, encapsulates to the other once the cohort is known: that is the `exchange` message, and the
pair's secret then hangs on both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from aggregation.crypto import masking, sealed_box
from aggregation.crypto.masking import Pair
from aggregation.errors import CohortError, MessageError

CLASSICAL: Final = "x25519"
HYBRID: Final = "x25519-mlkem768"
KEY_AGREEMENTS: Final = (CLASSICAL, HYBRID)

_HYBRID_LABEL: Final = b"pair/hybrid/"


class EphemeralKey:
    """A site's or custodian's single-use keys for one attempt."""

    __slots__ = ("_kem", "_key", "_shared", "kem_public", "public")

    def __init__(self, *, hybrid: bool = False, revealed: bytes | None = None) -> None:
        """Draw keys, or take an X25519 key that its owner revealed, or both kinds.

        Raises:
            MessageError: What was revealed is no private key.
        """
        size = sealed_box.X25519_SIZE
        if revealed is None:
            self._key = X25519PrivateKey.generate()
            self._kem = sealed_box.KemKey() if hybrid else None
        elif len(revealed) == (sealed_box.PRIVATE_SIZE if hybrid else size):
            self._key = X25519PrivateKey.from_private_bytes(revealed[:size])
            self._kem = sealed_box.KemKey(revealed[size:]) if hybrid else None
        else:
            raise MessageError(f"a private key of one attempt has {len(revealed)} bytes")
        self.public = self._key.public_key().public_bytes_raw()
        self.kem_public = self._kem.public if self._kem is not None else b""
        self._shared: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return "EphemeralKey(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not copied or stored")

    def reveal(self) -> bytes:
        """The private X25519 key, 32 bytes; the ML-KEM key stays secret, and with it every mask."""
        return self._key.private_bytes_raw()

    def reveal_all(self) -> bytes:
        """Every private key, X25519 and where there is one ML-KEM's seed: of a rehearsal alone."""
        return self.reveal() + (b"" if self._kem is None else self._kem.reveal())

    def exchange(self, other: bytes) -> bytes:
        """Agree on a secret with another party's X25519 key.

        Raises:
            CohortError: The public key is of low order.
        """
        if other not in self._shared:  # masks and MAC key both need what two sites share
            try:
                self._shared[other] = sealed_box.agree(self._key, other)
            except MessageError:
                raise CohortError("a party announced a key of low order") from None
        return self._shared[other]

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Take the ML-KEM secret out of a ciphertext for this key.

        Raises:
            CohortError: This key has no such half.
            MessageError: Another length.
        """
        if self._kem is None:
            raise CohortError("this attempt agrees on keys without ML-KEM")
        return self._kem.decapsulate(ciphertext)


def combine(
    classical: bytes, kem: bytes, ciphertext: bytes, transcript: bytes, *names: str
) -> bytes:
    """One secret of two: safe while either holds. Bound to the ciphertext that carried one."""
    label = _HYBRID_LABEL + hashlib.sha256(ciphertext).digest()
    return masking.derive(classical + kem, transcript, label, *names)


def pairs(
    key: EphemeralKey,
    transcript: bytes,
    names: Sequence[str],
    keys: Sequence[bytes],
    own: int,
    neighbours: Iterable[int],
    kem: Mapping[int, tuple[bytes, bytes]] | None = None,
) -> list[Pair]:
    """Derives the secrets that a site shares with each of its neighbours.

    Args:
        key: The site's own single-use key.
        transcript: The attempt's transcript hash.
        names: All sites in cohort order.
        keys: Their X25519 keys, in the same order.
        own: This site's position.
        neighbours: Positions of those it shares masks with.
        kem: In a hybrid plan, by neighbour's position, the ML-KEM secret and its ciphertext.

    Raises:
        CohortError: A key of low order, or no ML-KEM secret with a neighbour.
    """
    result = []
    for j in neighbours:
        first, second = (names[own], names[j]) if own < j else (names[j], names[own])
        secret = key.exchange(keys[j])
        if kem is not None:
            if j not in kem:
                raise CohortError(f"the exchange message of {names[j]} is missing")
            secret = combine(secret, *kem[j], transcript, first, second)
        result.append(Pair(first, second, own < j, secret))
    return result
