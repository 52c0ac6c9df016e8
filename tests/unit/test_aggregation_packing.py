import numpy as np
import pytest

from aggregation import InputError, ReleaseError, parameter_set
from aggregation.ckks.packing import Packing
from aggregation.ckks.parameters import Encoding

SMALL = Packing(size=10, degree=4, encoding=Encoding(3, 4, 2, 10, -40.0))  # base 43


def test_layout():
    assert SMALL.encoding.base == 43
    assert SMALL.values_per_chunk == 8
    assert SMALL.chunks == 2


def test_extremes_of_a_full_cohort_survive_the_sum():
    encoding = parameter_set("ckks-pk-4096-60-20").encoding(8, 16)
    packing = Packing(size=9000, degree=4096, encoding=encoding)
    rng = np.random.default_rng()
    updates = rng.choice(np.array([-32767, 32767, 0, -1], dtype=np.int32), (8, 9000))
    total = sum(packing.pack(u) for u in updates)
    np.testing.assert_array_equal(packing.unpack(total), updates.astype(np.int64).sum(axis=0))


def test_blocks_equal_the_whole():
    values = np.arange(-5, 5, dtype=np.int32)
    whole = SMALL.pack(values)
    parts = np.concatenate([SMALL.pack(values, 0, 1), SMALL.pack(values, 1, 2)])
    np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize(
    "integers",
    [
        np.zeros(9, dtype=np.int32),
        np.zeros((10, 1), dtype=np.int32),
        np.zeros(10, dtype=np.int64),
        np.full(10, 8, dtype=np.int32),
        np.full(10, np.iinfo(np.int32).min, dtype=np.int32),
        [0] * 10,
    ],
)
def test_input_is_checked(integers):
    with pytest.raises(InputError):
        SMALL.pack(integers)


def test_range_and_padding_of_a_sum_are_checked():
    coefficients = np.zeros((2, 4), dtype=np.int64)
    coefficients[0, 0] = (43**2 - 1) // 2
    assert SMALL.unpack(coefficients)[:2].tolist() == [21, 21]
    for bad in (coefficients[0, 0] + 1, -coefficients[0, 0] - 1, np.iinfo(np.int64).min):
        wrong = coefficients.copy()
        wrong[0, 0] = bad
        with pytest.raises(ReleaseError, match="range"):
            SMALL.unpack(wrong)
    coefficients[1, 1] = 1
    with pytest.raises(ReleaseError, match="padding"):
        SMALL.unpack(coefficients)
    with pytest.raises(ReleaseError, match="number of coefficients"):
        SMALL.unpack(np.zeros((1, 4), dtype=np.int64))
