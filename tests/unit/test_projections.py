"""Projections are exact, whatever the grid and the groups, and a wrong one is noticed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from aggregation.crypto.projections import FEW_ROWS, MOST_GROUP, ROWS, Signs, rows_of

KEY = hashlib.sha256(b"challenge").digest()
SIZES = (770, 1024, 3072, 770, 4097)


def matrix(key: bytes, width: int) -> np.ndarray:
    """P as docs/protocol.md has it, int64: column k is the k-th word, row 0 its lowest bit."""
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    words = np.frombuffer(stream.update(bytes(8 * width)), dtype="<u8")
    return np.array([1 - 2 * (words >> j & 1).astype(np.int64) for j in range(ROWS)])


def plainly(key: bytes, sizes: tuple[int, ...], integers: np.ndarray) -> list[int]:
    signs, found, start = matrix(key, max(sizes)), [], 0
    for size in sizes:
        found += (signs[: rows_of(size), :size] @ integers[start : start + size]).tolist()
        start += size
    return found


@pytest.mark.parametrize(
    "largest", [1, 127, 32_767, 32_768, 262_136, (1 << 23) - 1, 1024 * ((1 << 23) - 1)]
)
def test_projections_are_exact(largest: int) -> None:
    rng = np.random.default_rng(largest)
    integers = rng.integers(-largest, largest, sum(SIZES), endpoint=True)
    integers[:770] = largest  # all at the end of the range: the largest partial sums there are
    signs = Signs(KEY, SIZES)
    found = signs.project(integers, largest)
    assert found.dtype == np.int64
    assert found.tolist() == plainly(KEY, SIZES, integers)
    assert signs.agree(integers, largest, found)
    for place in (0, signs.size - 1):
        for change in (1, -(2**40)):
            wrong = found.copy()
            wrong[place] += change
            assert not signs.agree(integers, largest, wrong)


def test_the_largest_group_at_the_end_of_its_range_is_exact() -> None:
    signs, row = Signs(KEY, (MOST_GROUP,)), 5
    largest = 32_767
    # All of one sign along a row: every partial sum is as large as it can be.
    integers = (largest * matrix(KEY, MOST_GROUP)[row]).astype(np.int32)
    found = signs.project(integers, largest)
    assert found[row] == MOST_GROUP * largest
    assert signs.agree(integers, largest, found)


def test_a_group_with_few_values_gets_fewer_projections() -> None:
    assert [rows_of(size) for size in (512, 1023, 1024)] == [FEW_ROWS, FEW_ROWS, ROWS]
    assert Signs(KEY, SIZES).size == 2 * FEW_ROWS + 3 * ROWS


def test_projections_that_no_such_vector_has_do_not_agree() -> None:
    signs = Signs(KEY, (1024,))
    assert not signs.agree(np.zeros(1024, np.int64), 1, np.full(ROWS, 2**62))


def test_the_signs_are_fixed_by_the_challenge() -> None:
    # A second implementation has to come to the same.
    first = Signs(KEY, (1024,)).project(np.arange(1024), 1023)
    assert hashlib.sha256(first.astype("<i8").tobytes()).hexdigest() == VECTOR
    assert (
        Signs(hashlib.sha256(KEY).digest(), (1024,)).project(np.arange(1024), 1023)[0] != first[0]
    )


VECTOR = "eaa9cd263febf47579356256bbc5ff45fa6131283a93cdbc660697c7ba03b7c3"
