"""The wire form of a ciphertext: residues modulo q, bit-packed, nothing else.

A library object off the network is a parser to attack. A ciphertext is N residues modulo q a
polynomial; sent as such, with the length and every residue checked, *every* accepted input is a
valid ciphertext. Two residues of w bits fill 2 w bits, little endian, lower residue first, so a
60-bit residue costs 7.5 bytes. Adding ciphertexts is adding residues modulo q.

Every role calls it: a site packs what `ckks.collective` encrypted, `protocol.round` checks
whatever arrives as it reads it, and `Aggregator` adds it up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aggregation.errors import ParameterError, UploadError

Residues = npt.NDArray[np.uint64]


def packed_size(count: int, modulus: int) -> int:
    """Bytes that `count` residues take; `count` must be even."""
    return count // 2 * _pair_size(modulus)


def pack(residues: Residues, modulus: int) -> bytes:
    """Bit-pack residues.

    Args:
        residues: Any shape with an even number of items, uint64, each below `modulus`.
        modulus: Below 2**63; its bit length must be a multiple of four.
    """
    packed = np.empty(packed_size(residues.size, modulus), dtype=np.uint8)
    pack_into(packed, residues, modulus)
    return packed.tobytes()


def pack_into(packed: npt.NDArray[np.uint8], residues: Residues, modulus: int) -> None:
    """`pack` to where it shall lie: contiguous bytes, as many as `packed_size` says."""
    pairs = np.ascontiguousarray(residues, dtype="<u8").reshape(-1, 2)
    join_into(packed, pairs.T, modulus)


def join_into(packed: npt.NDArray[np.uint8], planes: Residues, modulus: int) -> None:
    """Bit-pack residues whose pairs are split; shape (2, n), first the lower of each pair."""
    size = _pair_size(modulus)
    width = modulus.bit_length()
    low, high = planes
    if size < 8:
        both = (high << np.uint64(width) | low).astype("<u8", copy=False)
        packed.reshape(-1, size)[:] = both.view(np.uint8).reshape(-1, 8)[:, :size]
        return
    # Eight bytes from the start of each pair, then eight to its end; both say the same in between.
    ends = _both_ends(packed.reshape(-1), len(low), size)
    words = high << np.uint64(width)
    words |= low
    ends[0] = words
    np.left_shift(high, np.uint64(64 - width), out=words)
    words |= low >> np.uint64(2 * width - 64)
    ends[1] = words


def unpack(data: bytes, count: int, modulus: int) -> Residues:
    """Read bit-packed residues and check them.

    Args:
        data: What came off the wire.
        count: Residues expected, even.
        modulus: What each must be below.

    Returns:
        Shape (count,), uint64.

    Raises:
        UploadError: Another length, or a residue that is not below the modulus.
    """
    return split(data, count, modulus).T.reshape(-1)


def split(data: bytes, count: int, modulus: int) -> Residues:
    """Read bit-packed residues and check them; as `unpack`, but shape (2, count / 2).

    Raises:
        UploadError: Another length, or a residue that is not below the modulus.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise UploadError("a chunk must be bytes")
    expected = packed_size(count, modulus)
    if len(data) != expected:
        raise UploadError(f"a chunk has {len(data)} bytes, expected {expected}")
    size = _pair_size(modulus)
    width = modulus.bit_length()
    if size >= 8:
        # The first eight bytes of a pair hold the low residue, its last eight the high one.
        planes = _both_ends(data, count // 2, size).astype(np.uint64, order="C")
        planes[0] &= np.uint64((1 << width) - 1)
        planes[1] >>= np.uint64(64 - width)
    else:
        raw = np.zeros((count // 2, 8), dtype=np.uint8)
        raw[:, :size] = np.frombuffer(data, dtype=np.uint8).reshape(-1, size)
        words = raw.view("<u8")[:, 0]
        planes = np.stack([words & np.uint64((1 << width) - 1), words >> np.uint64(width)])
    if planes.max(initial=0) >= modulus:
        raise UploadError("a residue is not below the modulus")
    return planes


def add(total: Residues, other: Residues, modulus: int) -> None:
    """Add residues in place, modulo `modulus` (below 2**63); broadcasting as NumPy does."""
    total += other
    _reduce(total, modulus)


def subtract(total: Residues, other: Residues, modulus: int) -> None:
    """Subtract residues in place, modulo `modulus` (below 2**63)."""
    # q - other is in (0, q], so the sum stays below 2 q and one conditional subtraction is enough.
    total += np.uint64(modulus) - other
    _reduce(total, modulus)


def from_signed(values: npt.NDArray[np.int64], modulus: int) -> Residues:
    """Reduce integers with |v| < modulus to residues; same shape, uint64."""
    # The sign bit, spread over the word, selects what is added: no branch.
    return (values + ((values >> 63) & np.int64(modulus))).astype(np.uint64)


def to_signed(values: Residues, modulus: int) -> npt.NDArray[np.int64]:
    """Read residues as integers centred on zero; same shape, int64."""
    signed = values.astype(np.int64)
    signed -= (np.int64(modulus // 2) - signed >> 63) & np.int64(modulus)
    return signed


def reduce(total: Residues, modulus: int) -> None:
    """Reduce any 64-bit words in place, modulo `modulus`."""
    total -= total // np.uint64(modulus) * np.uint64(modulus)


def _reduce(total: Residues, modulus: int) -> None:
    # Where total < q, total - q wraps to something huge, and the minimum keeps total: no branch.
    np.minimum(total, total - np.uint64(modulus), out=total)


def _pair_size(modulus: int) -> int:
    width = modulus.bit_length()
    if width % 4 or not 4 <= width <= 60:
        raise ParameterError(f"a modulus of {width} bits has no wire form")
    return width // 4


def _both_ends(data: bytes | npt.NDArray[np.uint8], pairs: int, size: int) -> Residues:
    """The first and the last eight bytes of each pair, shape (2, pairs): a view."""
    return np.ndarray((2, pairs), dtype="<u8", buffer=data, strides=(size - 8, size))
