"""Masks: streams of residues, uniform in Z_q, that hide every upload and cancel in the sum.

Every pair of neighbours (`graph`) agrees on a secret (`pairwise`); the earlier of the two adds its
stream, the later takes it away. Each site also adds a stream of its own, the self-mask, whose seed
it reveals only once everybody's upload is fixed. A key is bound by HKDF-SHA256 to the transcript
of the attempt and, through its label, to one use and one pair: two uses never share a stream. That
matters: with one stream on a ciphertext and on the secret sent to the decryptor, their difference
would be free of masks.

A stream is AES-256-CTR. Chunk k starts at the counter block (k, 0), 64 bits each, so chunks are
independent of one another and can be expanded in any order. Words are little-endian; of each the
lowest bits(q) bits are kept, and words not below q are thrown away: that, and not reduction, makes
the residues uniform. Under the SEAL prime of 60 bits about one word in 2**46 goes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import (
    Cipher,
    CipherContext,
    algorithms,
    modes,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aggregation.ckks.residues import Residues, reduce

SEED_SIZE: Final = 32  # bytes of a self-mask's seed
_COUNTER: Final = modes.CTR(bytes(16))  # every chunk sets its own place
_SPARE: Final = 2  # words: the library wants room for one more block, less a byte, than it fills
_DOMAIN: Final = b"fmfl-secure/aggregation/v1/"
PAIR_LABEL: Final = b"pair/c0"
PAIR_SIGMA_LABEL: Final = b"pair/sigma"
PAIR_TAGS_LABEL: Final = b"pair/tags"
SELF_TAGS_LABEL: Final = b"self/tags"
SELF_LABEL: Final = b"self/c0"
SELF_SIGMA_LABEL: Final = b"self/sigma"
COMMITMENT_LABEL: Final = b"self/commitment"
CUSTODIAN_LABEL: Final = b"custodian/sigma"


def derive(secret: bytes, transcript: bytes, label: bytes, *names: str) -> bytes:
    """Derive a 32-byte key with HKDF-SHA256.

    Args:
        secret: A shared secret or a seed, at least 32 bytes.
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
    """One stream of residues, addressed by chunk. Any thread may use it."""

    __slots__ = ("_count", "_key", "_local", "_mask", "_modulus", "_zeros")

    def __init__(self, key: bytes, modulus: int, count: int) -> None:
        """Open a stream.

        Args:
            key: 32 bytes, for this stream alone.
            modulus: The residues' modulus q, below 2**63.
            count: Residues of a chunk.
        """
        self._key = algorithms.AES(key)
        self._local = threading.local()  # a cipher has a place of its own, so each thread has one
        self._modulus = modulus
        self._count = count
        self._mask = np.uint64((1 << modulus.bit_length()) - 1)
        self._zeros = _zeros(8 * count)

    def __repr__(self) -> str:
        return "Stream(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a secret stream is not copied or stored")

    def chunk(self, index: int) -> Residues:
        """Residues of chunk `index`, shape (count,), uint64."""
        return self.chunks(index, 1).reshape(-1)

    def chunks(self, first: int, number: int, room: Residues | None = None) -> Residues:
        """Residues of some chunks, shape (number, count), uint64.

        Args:
            first: Index of the first.
            number: How many.
            room: Where to write them, as `room_for` makes it; what was there is lost.
        """
        flat = room_for(number, self._count) if room is None else room
        self._fill(flat, first, number)
        words = flat[: number * self._count].reshape(number, self._count)
        words &= self._mask
        if words.max(initial=0) >= self._modulus:
            for index, row in enumerate(words, first):
                row[:] = self._rejecting(index)
        return words

    def _fill(self, flat: Residues, first: int, number: int) -> CipherContext:
        raw, size = flat.view(np.uint8).data, len(self._zeros)
        encryptor = getattr(self._local, "encryptor", None)
        if encryptor is None:
            encryptor = self._local.encryptor = Cipher(self._key, _COUNTER).encryptor()
        for k in range(number):
            encryptor.reset_nonce((first + k).to_bytes(8, "big") + bytes(8))
            # It wants room for more than it fills; what that is of the next chunk comes later.
            encryptor.update_into(self._zeros, raw[k * size : (k + 1) * size + 8 * _SPARE])
        return encryptor

    def _rejecting(self, index: int) -> Residues:
        """Residues of a chunk that holds a word not below q: about one chunk in 2**34."""
        flat = room_for(1, self._count)
        encryptor = self._fill(flat, index, 1)
        kept = flat[: self._count] & self._mask
        kept = kept[kept < self._modulus]
        while len(kept) < self._count:
            more = np.frombuffer(encryptor.update(self._zeros), dtype="<u8") & self._mask
            kept = np.concatenate([kept, more[more < self._modulus]])
        return kept[: self._count]


def room_for(number: int, count: int) -> Residues:
    """Memory for so many chunks of a stream."""
    return np.empty(number * count + _SPARE, dtype="<u8")


@lru_cache(maxsize=8)
def _zeros(size: int) -> bytes:
    return bytes(size)


def self_stream(
    seed: bytes,
    transcript: bytes,
    name: str,
    modulus: int,
    count: int,
    label: bytes = SELF_LABEL,
) -> Stream:
    """The self-mask of site `name`; also how the aggregator takes it away once it is open."""
    return Stream(derive(seed, transcript, label, name), modulus, count)


def self_tags_stream(seed: bytes, transcript: bytes, name: str, prime: int, count: int) -> Stream:
    """The same on a site's tags, where they come with its upload; `count` tags modulo `prime`."""
    return self_stream(seed, transcript, name, prime, count, SELF_TAGS_LABEL)


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """Two neighbours, as one of them sees it.

    Attributes:
        first: Name of the earlier in the cohort, who adds.
        second: Name of the later, who takes away.
        adds: Whether this site is the first.
        secret: What the two share.
    """

    first: str
    second: str
    adds: bool
    secret: bytes


@dataclass(frozen=True, slots=True, repr=False)
class SiteMasks:
    """Masks of one site for one use.

    Attributes:
        plus: Streams it adds: those of its own, and those shared with later sites.
        minus: Streams it takes away: those shared with earlier sites.
        modulus: The residues' modulus q.
    """

    plus: tuple[Stream, ...]
    minus: tuple[Stream, ...]
    modulus: int

    def apply(self, residues: Residues, first: int) -> None:
        """Mask the residues of chunks `first` and following in place, shape (n, count)."""
        _accumulate(residues, self.plus, first, self.modulus)
        _accumulate(residues, self.minus, first, self.modulus, sign=-1)


def site_masks(
    pairs: Iterable[Pair],
    transcript: bytes,
    label: bytes,
    modulus: int,
    count: int,
    own: Iterable[Stream] = (),
) -> SiteMasks:
    """Derive a site's masks for one use.

    Args:
        pairs: The site's neighbours.
        transcript: The attempt's transcript hash.
        label: The use.
        modulus: The residues' modulus q.
        count: Residues of a chunk.
        own: Further streams to add: the self-mask, the custodians'.
    """
    plus = list(own)
    minus: list[Stream] = []
    for pair in pairs:
        key = derive(pair.secret, transcript, label, pair.first, pair.second)
        (plus if pair.adds else minus).append(Stream(key, modulus, count))
    return SiteMasks(tuple(plus), tuple(minus), modulus)


def sum_streams(
    streams: Iterable[Stream], first: int, number: int, modulus: int, count: int
) -> Residues:
    """The sum of several streams' residues of some chunks, shape (number, count)."""
    total = np.zeros((number, count), dtype=np.uint64)
    _accumulate(total, streams, first, modulus)
    return total


def _accumulate(
    total: Residues, streams: Iterable[Stream], first: int, modulus: int, sign: int = 1
) -> None:
    # As many residues as fit a word are added before one reduction. What is taken away is taken
    # from as many moduli, so that a word stays above zero.
    limit = (1 << 64) // modulus - 1
    room = room_for(*total.shape)
    change = np.add if sign > 0 else np.subtract
    rest = iter(streams)
    while group := list(islice(rest, limit)):
        if sign < 0:
            total += np.uint64(len(group) * modulus)
        for stream in group:
            chunks = stream.chunks(first, len(total), room)
            change(total, chunks, out=total)
        reduce(total, modulus)
