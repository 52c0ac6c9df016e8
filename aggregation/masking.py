"""Masks: streams of residues, uniform in Z_q, that hide every upload and cancel in the sum.

Every pair of sites agrees on a key (X25519 with single-use keys); one adds its stream, the other
takes it away. Each site also adds a stream of its own, the self-mask, whose seed it reveals only
once everybody's upload is fixed. A key is bound by HKDF-SHA256 to the transcript of the attempt
and, through its label, to one use and one pair: two uses never share a stream.

A stream is AES-256-CTR. Chunk k starts at the counter block (k, 0), 64 bits each, so chunks are
independent of one another and can be expanded in any order. Words are little-endian; of each the
lowest bits(q) bits are kept, and words not below q are thrown away: that, and not reduction, makes
the residues uniform. Under the SEAL prime of 60 bits about one word in 2**46 goes.

All pairs of a cohort are neighbours here. A sparser graph (Bell et al. 2020) would replace
`neighbours` and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import CohortError
from .residues import Residues, add, subtract

SEED_SIZE: Final = 32  # bytes of a self-mask's seed
_DOMAIN: Final = b"fmfl-secure/aggregation/v1/"
PAIR_LABEL: Final = b"pair/c0"
SELF_LABEL: Final = b"self/c0"
COMMITMENT_LABEL: Final = b"self/commitment"


def neighbours(sites: int, index: int) -> tuple[int, ...]:
    """The sites that `index` shares a mask with: all others."""
    return tuple(j for j in range(sites) if j != index)


def derive(secret: bytes, transcript: bytes, label: bytes, *names: str) -> bytes:
    """Derive a 32-byte key with HKDF-SHA256.

    Args:
        secret: A shared secret or a seed, 32 bytes.
        transcript: The attempt's transcript hash, the salt.
        label: What the key is for.
        names: Whose it is; each goes in with its length, so no two lists look alike.
    """
    info = _DOMAIN + label + b"".join(len(n).to_bytes(2, "big") + n.encode() for n in names)
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=transcript, info=info).derive(secret)


def commitment(seed: bytes, transcript: bytes, name: str) -> bytes:
    """H(b_i): what a site signs with its upload, 32 bytes."""
    return hashlib.sha256(derive(seed, transcript, COMMITMENT_LABEL, name)).digest()


class Stream:
    """One stream of residues, addressed by chunk."""

    __slots__ = ("_cipher_key", "_count", "_modulus")

    def __init__(self, key: bytes, modulus: int, count: int) -> None:
        """Open a stream.

        Args:
            key: 32 bytes, for this stream alone.
            modulus: The residues' modulus q, below 2**63.
            count: Residues of a chunk.
        """
        self._cipher_key = algorithms.AES(key)
        self._modulus = modulus
        self._count = count

    def __repr__(self) -> str:
        return "Stream(secret)"

    def chunk(self, index: int) -> Residues:
        """Residues of chunk `index`, shape (count,), uint64."""
        counter = index.to_bytes(8, "big") + bytes(8)
        encryptor = Cipher(self._cipher_key, modes.CTR(counter)).encryptor()
        mask = np.uint64((1 << self._modulus.bit_length()) - 1)
        parts: list[Residues] = []
        missing = self._count
        while missing:
            words = np.frombuffer(encryptor.update(bytes(8 * missing)), dtype="<u8") & mask
            if words.max() >= self._modulus:
                words = words[words < self._modulus]
            parts.append(words)
            missing -= len(words)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class EphemeralKey:
    """A site's single-use X25519 key for one attempt."""

    __slots__ = ("_key", "public")

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "EphemeralKey(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not copied or stored")

    def exchange(self, other: bytes) -> bytes:
        """Agree on a secret with another site's public key.

        Raises:
            CohortError: The public key is of low order.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(other))
        except ValueError:
            raise CohortError("a site announced a key of low order") from None


def self_stream(seed: bytes, transcript: bytes, name: str, modulus: int, count: int) -> Stream:
    """The self-mask of site `name`; also how the aggregator takes it away once it is open."""
    return Stream(derive(seed, transcript, SELF_LABEL, name), modulus, count)


@dataclass(frozen=True, slots=True, repr=False)
class SiteMasks:
    """All masks of one site in one attempt.

    Attributes:
        plus: Streams it adds: its self-mask, and those shared with later sites.
        minus: Streams it takes away: those shared with earlier sites.
        modulus: The residues' modulus q.
    """

    plus: tuple[Stream, ...]
    minus: tuple[Stream, ...]
    modulus: int

    def apply(self, residues: Residues, chunk: int) -> None:
        """Mask the residues of one chunk in place, shape (count,)."""
        for stream in self.plus:
            add(residues, stream.chunk(chunk), self.modulus)
        for stream in self.minus:
            subtract(residues, stream.chunk(chunk), self.modulus)


def site_masks(
    key: EphemeralKey,
    seed: bytes,
    transcript: bytes,
    cohort: Iterable[tuple[str, bytes]],
    name: str,
    modulus: int,
    count: int,
) -> SiteMasks:
    """Derive a site's masks.

    Args:
        key: The site's own single-use key.
        seed: Its self-mask's seed, b_i.
        transcript: The attempt's transcript hash.
        cohort: Names and X25519 public keys of all sites, in cohort order, this one included.
        name: This site.
        modulus: The residues' modulus q.
        count: Residues of a chunk.

    Raises:
        CohortError: A key of low order.
    """
    members = list(cohort)
    own = next(i for i, (member, _) in enumerate(members) if member == name)
    plus = [self_stream(seed, transcript, name, modulus, count)]
    minus: list[Stream] = []
    for j in neighbours(len(members), own):
        other, public = members[j]
        first, second = (name, other) if own < j else (other, name)
        shared = derive(key.exchange(public), transcript, PAIR_LABEL, first, second)
        (plus if own < j else minus).append(Stream(shared, modulus, count))
    return SiteMasks(tuple(plus), tuple(minus), modulus)
