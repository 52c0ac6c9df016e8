"""Projections of an update on random signs: what is sent so that a norm can be checked.

An update x of whole numbers is looked at in groups of consecutive values. Of each group J inner
products with vectors of +1 and -1 are taken: y = P x. Every group uses the first columns of one
matrix P, whose entries are bits of AES-256-CTR under a key that nobody knows before all updates
are fixed. E |y|^2 / J = |x|^2, and two one-sided bounds hold for every x (docs/protocol.md):

    P(|y|^2 / J >= r |x|^2) <= exp(-J/2 (r - 1 - ln r)),  r > 1    (Achlioptas 2003, Lemma 5.2)
    P(|y|^2 / J <= r |x|^2) <= (exp(r / 2) / sqrt(2))^J,              r < 1

All arithmetic is exact: products are taken in float32 or
float64 so few at a time that every partial sum is a whole number that the type can hold.

`NormCheck` (`protocol.norms`) makes the signs of an attempt from its release. A site has its own
update projected on them; to check a sum it is enough that the projections `agree`, which is
faster.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

ROWS: Final = 64  # J, of a group of enough values
FEW_ROWS: Final = 32  # of one with fewer
LEAST_GROUP: Final = 512  # values; what is sent is a sixteenth of them at most
ALL_ROWS_FROM: Final = 1024
MOST_GROUP: Final = 16_384  # values; larger tensors are several groups, and P has so many columns
_TILE: Final = 512  # values of one product in float32: 512 x (2^15 - 1) < 2^24
_WIDE_TILE: Final = 1024
_AT_ONCE: Final = 1 << 18  # values multiplied at a time, so that they stay in a core's cache
_SINGLE_BITS: Final = 24  # whole numbers up to 2^24 are exact in float32, up to 2^53 in float64
_DOUBLE_BITS: Final = 53
_SUM_TILE: Final = 4096
_CHECK_BITS: Final = 40  # a wrong sum passes `agree` with probability 2^-40 at most

Integers = npt.NDArray[np.integer]


def rows_of(size: int) -> int:
    """Projections of a group of so many values: 64, or 32 of fewer than 1,024."""
    return ROWS if size >= ALL_ROWS_FROM else FEW_ROWS


class Signs:
    """The matrix P of one attempt, and what is computed with it. Nothing in it is secret.

    Args:
        key: 32 bytes; the challenge.
        sizes: Values of each group, in order, 1 to `MOST_GROUP`.
    """

    def __init__(self, key: bytes, sizes: Sequence[int]) -> None:
        self._sizes = tuple(sizes)
        width = max(self._sizes)
        encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        raw = np.frombuffer(encryptor.update(bytes(width * ROWS // 8)), dtype=np.uint8)
        # Column k of P is bits 64 k to 64 k + 63, the first row the lowest bit of the first byte.
        bits = np.unpackbits(raw, bitorder="little").reshape(width, ROWS)
        self._signs = bits.astype(np.float32)  # P transposed
        self._signs *= -2.0
        self._signs += 1.0
        starts = np.cumsum((0, *self._sizes))
        # Groups of one size are multiplied together.
        self._alike: dict[int, list[int]] = {}
        for place, size in enumerate(self._sizes):
            self._alike.setdefault(size, []).append(place)
        self._starts = [int(start) for start in starts[:-1]]
        self.rows = np.array([rows_of(size) for size in self._sizes])
        self._kept = np.arange(ROWS) < self.rows[:, np.newaxis]

    @property
    def size(self) -> int:
        """Projections of all groups together."""
        return int(self.rows.sum())

    def project(self, integers: Integers, largest: int) -> npt.NDArray[np.int64]:
        """P x of every group, exact.

        Args:
            integers: x, shape (d,), d at least the groups' values together.
            largest: No absolute value of x is larger; below 2^36.

        Returns:
            Shape (size,), int64: the projections of the first group, then of the second, and on.
        """
        found = np.zeros((len(self._sizes), ROWS), dtype=np.int64)
        single = _bits(largest) + _bits(_TILE - 1) <= _SINGLE_BITS
        tile = _TILE if single else _WIDE_TILE
        kind: type[np.floating] = np.float32 if single else np.float64
        signs: npt.NDArray[np.floating] = self._signs if single else self._signs.astype(np.float64)
        for places, values in self._groups(integers, kind):
            sums, size = np.zeros((len(places), ROWS)), values.shape[1]
            for low in range(0, size, tile):
                sums += values[:, low : low + tile] @ signs[low : min(low + tile, size)]
            found[places] = sums
        return found[self._kept]

    def agree(self, integers: Integers, largest: int, projections: npt.NDArray[np.int64]) -> bool:
        """Whether these are P x, but for a chance of 2^-40; several times faster than `project`.

        One combination of rows that nobody can foresee is compared, or a few (Freivalds 1977): if
        P x is not y, of the 2^b values of a coefficient of a row that differs one at most makes
        both sides equal.

        Args:
            integers: x, as for `project`.
            largest: As there.
            projections: y, shape (size,), below 2^52 in absolute value.
        """
        most = MOST_GROUP * largest
        if projections.max(initial=0) > most or projections.min(initial=0) < -most:
            return False  # as no such x has
        spread = np.zeros((len(self._sizes), ROWS), dtype=np.int64)
        spread[self._kept] = projections
        row_bits, tile_bits = ROWS.bit_length() - 1, _SUM_TILE.bit_length() - 1
        bits = min(_SINGLE_BITS - row_bits, _DOUBLE_BITS - row_bits - tile_bits - _bits(largest))
        times = -(-_CHECK_BITS // bits)
        drawn = _draw(bits, times)
        expected = spread @ drawn.T  # rows that a group has not are zero on this side
        combined = {
            rows: (drawn[:, :rows].astype(np.float32) @ self._signs[:, :rows].T).astype(np.float64)
            for rows in set(self.rows.tolist())
        }
        for places, values in self._groups(integers, np.float64):
            size, sums = values.shape[1], np.zeros((len(places), times), dtype=np.int64)
            for low in range(0, size, _SUM_TILE):
                high = min(low + _SUM_TILE, size)
                for time, row in enumerate(combined[rows_of(size)]):
                    sums[:, time] += (values[:, low:high] @ row[low:high]).astype(np.int64)
            if (sums != expected[places]).any():
                return False
        return True

    def _groups(
        self, integers: Integers, kind: type[np.floating]
    ) -> Iterator[tuple[list[int], npt.NDArray[np.floating]]]:
        """Places of groups of one size, a few at a time, and their values, a group a row."""
        for size, alike in self._alike.items():
            at_once = max(1, _AT_ONCE // size)
            for first in range(0, len(alike), at_once):
                places = alike[first : first + at_once]
                values = np.empty((len(places), size), dtype=kind)
                for row, place in zip(values, places, strict=True):
                    start = self._starts[place]
                    row[:] = integers[start : start + size]
                yield places, values


def _bits(number: int) -> int:
    return number.bit_length()


def _draw(bits: int, times: int) -> npt.NDArray[np.int64]:
    """Coefficients of `bits` bits each, shape (times, ROWS), that nobody can foresee."""
    words = np.frombuffer(secrets.token_bytes(4 * times * ROWS), dtype="<u4")
    return (words & ((1 << bits) - 1)).astype(np.int64).reshape(times, ROWS)
