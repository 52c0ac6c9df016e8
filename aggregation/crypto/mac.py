"""The linear MAC: how sites know that a release is the sum of what they uploaded.

Masks hide, they do not authenticate: an aggregator can swap, double or zero chunks or put an
encryption of its own in a sum's place. So all sites share a key kappa that neither aggregator nor
decryptor has, and each sends with its opening

    t_i = <alpha, M_i> mod p,    p = 2**61 - 1,    twice, with independent alpha from kappa,

over its packed integers M_i, masked pairwise like everything else. The masks cancel, the sum of
the tags belongs to the sum of the integers, and a release with any other sum passes with
probability at most 2**-122: two different sums differ in some packed coefficient by less than p,
and alpha there is uniform in Z_p and unknown. One site adds a pad from kappa besides, so that the
summed tags tell nobody without kappa anything, not even that a sum is zero.

kappa is fresh in every attempt, drawn by the first site of the cohort and sent to each of the
others in a box that only the two can open. It protects against aggregator and decryptor, not
against sites: one that gives kappa away takes the protection from all.

`roles.site_mac` draws kappa at the first site, seals it for the others, tags what a site uploads
and, after the release, compares. `Aggregator` adds the tags up and `Decryptor` passes their sum
on; neither can make one.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aggregation.crypto import masking
from aggregation.errors import OpeningError, SealedError

PRIME: Final = (1 << 61) - 1
TAGS: Final = 2
TAG_BYTES: Final = 8 * TAGS  # of a site's tags, and of their sum
KEY_SIZE: Final = 32  # bytes
BOX_SIZE: Final = KEY_SIZE + 16  # bytes of kappa in a box

_ALPHA_LABEL: Final = b"mac/alpha"
_PAD_LABEL: Final = b"mac/pad"
_BOX_LABEL: Final = b"mac/box"
_NONCE: Final = bytes(12)  # a box's key is used once

# (2**21 - 1) (2**20 - 1) 2**12 < 2**53: a chunk's products of limbs sum exactly in doubles.
_ALPHA_LIMB: Final = 21
_VALUE_LIMB: Final = 20
_LIMBS: Final = 3
_MAX_DEGREE: Final = 4096
_BATCH: Final = 8  # chunks tagged at a time, so that all limbs stay in cache


class LinearMac:
    """Tags of packed integers under one attempt's key kappa."""

    def __init__(self, key: bytes, transcript: bytes, degree: int) -> None:
        """Derive the coefficients.

        Args:
            key: kappa, 32 bytes.
            transcript: The attempt's transcript hash.
            degree: Coefficients of a chunk, at most 4,096.
        """
        if degree > _MAX_DEGREE:
            raise OpeningError(f"a chunk of {degree} coefficients has no exact tag")
        self._degree = degree
        self._alphas = [
            masking.Stream(masking.derive(key, transcript, _ALPHA_LABEL, str(i)), PRIME, degree)
            for i in range(TAGS)
        ]
        self._pad = masking.Stream(masking.derive(key, transcript, _PAD_LABEL), PRIME, TAGS)

    def __repr__(self) -> str:
        return "LinearMac(secret)"

    def tag(self, packed: npt.NDArray[np.int64], first: int = 0) -> tuple[int, ...]:
        """Tags of some chunks; those of several ranges add up modulo p.

        Args:
            packed: Packed integers before scaling, shape (n, N), int64, |M| < 2**60.
            first: Index of the first chunk.
        """
        wide = max(int(packed.max(initial=0)), -int(packed.min(initial=0)))
        used = _LIMBS if wide >> (2 * _VALUE_LIMB - 1) else _LIMBS - 1  # limbs that hold something
        sums = [[0] * used for _ in range(TAGS * _LIMBS)]
        # Doubles hold the sums of a chunk, which are below 2**53, and a word those of a batch.
        shape = (min(len(packed), _BATCH), self._degree)
        values = np.empty((used, *shape))
        limbs = np.empty((shape[0], TAGS * _LIMBS, self._degree))
        room = masking.room_for(*shape)
        for low in range(0, len(packed), _BATCH):
            rows = packed[low : low + _BATCH]
            number = len(rows)
            _split(rows, _VALUE_LIMB, values[:, :number])
            for i, stream in enumerate(self._alphas):
                alphas = stream.chunks(first + low, number, room).view(np.int64)
                part = limbs[:number, i * _LIMBS : (i + 1) * _LIMBS]
                _split(alphas, _ALPHA_LIMB, part.transpose(1, 0, 2))
            # One limb of the values at a time: BLAS is fastest at a matrix by a vector.
            for b in range(used):
                lines = limbs[:number] @ values[b, :number, :, np.newaxis]
                for line, batch in zip(
                    sums, lines.astype(np.int64).sum(axis=0).ravel(), strict=True
                ):
                    line[b] += int(batch)
        total = [0] * TAGS
        for i in range(TAGS):
            for a in range(_LIMBS):
                for b, whole in enumerate(sums[i * _LIMBS + a]):
                    total[i] += whole << (_ALPHA_LIMB * a + _VALUE_LIMB * b)
        return tuple(t % PRIME for t in total)

    def pad(self) -> tuple[int, ...]:
        """Returns the pad that one site adds to its tags so that their sum hides."""
        return tuple(int(v) for v in self._pad.chunk(0))


def new_key() -> bytes:
    """Draws a fresh MAC key kappa, `KEY_SIZE` bytes."""
    return secrets.token_bytes(KEY_SIZE)


def seal_key(key: bytes, shared: bytes, transcript: bytes, leader: str, name: str) -> bytes:
    """Put kappa in a box for one other site, under what the two share; `BOX_SIZE` bytes."""
    box_key = masking.derive(shared, transcript, _BOX_LABEL, leader, name)
    return AESGCM(box_key).encrypt(_NONCE, key, transcript)


def open_key(box: bytes, shared: bytes, transcript: bytes, leader: str, name: str) -> bytes:
    """Take kappa out of its box.

    Raises:
        SealedError: It is not for this site and attempt.
    """
    box_key = masking.derive(shared, transcript, _BOX_LABEL, leader, name)
    try:
        return AESGCM(box_key).decrypt(_NONCE, box, transcript)
    except InvalidTag:
        raise SealedError("the first site's box with the MAC key does not open") from None


def add_tags(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Adds two lists of tags modulo p."""
    return tuple((a + b) % PRIME for a, b in zip(first, second, strict=True))


def encode_tags(tags: tuple[int, ...]) -> bytes:
    """Tags on the wire: 8 bytes each, little endian."""
    return b"".join(tag.to_bytes(8, "little") for tag in tags)


def decode_tags(data: bytes) -> tuple[int, ...]:
    """Read tags off the wire.

    Raises:
        OpeningError: Another length, or a tag that is not below p.
    """
    if len(data) != TAG_BYTES:
        raise OpeningError(f"tags have {len(data)} bytes, expected {TAG_BYTES}")
    tags = tuple(int.from_bytes(data[i : i + 8], "little") for i in range(0, TAG_BYTES, 8))
    if max(tags) >= PRIME:
        raise OpeningError("a tag is not below the prime")
    return tags


def _split(values: npt.NDArray[np.int64], width: int, limbs: npt.NDArray[np.float64]) -> None:
    """Write values as limbs of `width` bits, the last one signed; shape (n, N) to (l, n, N)."""
    mask, rest = np.int64((1 << width) - 1), np.empty_like(values)
    last = len(limbs) - 1
    for j in range(last):
        np.right_shift(values, j * width, out=rest)
        limbs[j] = np.bitwise_and(rest, mask, out=rest)
    limbs[last] = np.right_shift(values, last * width, out=rest)
