import math
from fractions import Fraction

import pytest

from aggregation import ParameterError, choose, parameter_set
from aggregation.ckks.parameters import LOG2_FAILURE_LIMIT, MAX_SIZE

SET = parameter_set("ckks-pk-4096-60-20")


@pytest.mark.parametrize(
    ("sites", "bits", "digits"),
    [(3, 8, 5), (8, 8, 4), (8, 16, 2), (128, 8, 3), (128, 16, 2), (64, 10, 3), (1024, 16, 1)],
)
def test_values_a_coefficient(sites, bits, digits):
    assert SET.encoding(sites, bits).digits == digits


@pytest.mark.parametrize("sites", [2, 3, 8, 100, 128, 1024])
@pytest.mark.parametrize("bits", [2, 4, 8, 12, 16, 24, 32])
def test_a_sum_and_its_noise_stay_below_half_the_modulus(sites, bits):
    encoding = SET.encoding(sites, bits)
    largest = (encoding.base**encoding.digits - 1) // 2
    scale = 1 << encoding.scale_bits
    assert largest * scale + scale // 2 <= SET.modulus // 2
    assert encoding.log2_failure <= LOG2_FAILURE_LIMIT
    # int64 arithmetic on the way in and out
    assert largest * scale < 2**62
    # another digit would not fit
    assert SET.modulus // (encoding.base ** (encoding.digits + 1) + 1) < 2 or (
        SET.log2_failure(
            sites,
            (SET.modulus // (encoding.base ** (encoding.digits + 1) + 1)).bit_length() - 1,
            MAX_SIZE,
        )
        > LOG2_FAILURE_LIMIT
    )


def test_worst_case_is_linear_and_never_fails():
    assert SET.noise_bound(1) == Fraction(21 * 8193, 1032193) + Fraction(4097, 2)
    assert SET.noise_bound(8) == 8 * SET.noise_bound(1)
    assert SET.log2_failure(8, 16, MAX_SIZE) == -math.inf  # 2**15 > 8 * 2048.7
    assert SET.log2_failure(8, 15, MAX_SIZE) > -math.inf
    assert SET.log2_failure(128, 8, MAX_SIZE) == 0.0  # nothing is claimed below the noise


def test_failure_falls_with_the_scale_and_grows_with_the_sites():
    assert SET.log2_failure(128, 13, 1000) > SET.log2_failure(128, 14, 1000)
    assert SET.log2_failure(256, 13, 1000) > SET.log2_failure(128, 13, 1000)


def test_the_modulus_is_an_ntt_prime():
    for prime in SET.coeff_modulus:
        assert prime % 8192 == 1
        assert all(pow(base, prime - 1, prime) == 1 for base in (2, 3, 5, 7, 11))
    assert sum(p.bit_length() for p in SET.coeff_modulus) <= 109


@pytest.mark.parametrize(
    ("sites", "bits", "told"),
    [(1, 16, "nearest is 2"), (1025, 16, "nearest is 1024"), (8, 1, "is 2"), (8, 33, "is 32")],
)
def test_a_request_outside_the_table_names_the_nearest(sites, bits, told):
    with pytest.raises(ParameterError, match=told):
        choose(sites, bits)


def test_unknown_names():
    with pytest.raises(ParameterError, match="ckks-pk-4096-60-20"):
        parameter_set("ckks-8192")
    with pytest.raises(ParameterError, match="ckks-pk"):
        choose(8, 16, suite="bfv")
