"""Products by floating-point transforms, against SEAL's and against integers."""

import math

import numpy as np
import pytest

from aggregation import ParameterError, parameter_set
from aggregation.ckks import _ckks, collective, exact_product
from aggregation.ckks.exact_product import ExactMultiplier
from aggregation.ckks.parameters import MAX_SITES

SET = parameter_set("ckks-collective-4096-60-aes")
Q, N = SET.modulus, 4096


def seals(points, secret):
    context = _ckks.context(SET)
    return _ckks.Multiplier(context, secret).times(context.to_ntt(points)).astype(np.int64)


@pytest.mark.parametrize("sites", [1, 3, 40, 128, MAX_SITES])
def test_it_is_seals_bit_by_bit(sites):
    rng = np.random.default_rng(sites)
    points = rng.integers(0, Q, (9, N), dtype=np.uint64)
    secret = sum(collective.draw_ternary(N) for _ in range(sites))
    product = ExactMultiplier(secret, Q).times(points)
    np.testing.assert_array_equal(product % Q, seals(points, secret))


@pytest.mark.parametrize("value", [1, -1, MAX_SITES, -MAX_SITES])
def test_the_largest_secrets_and_points_are_exact_and_stay_in_their_range(value):
    """Every coefficient at its limit: the largest that any limb, sum or word can be."""
    secret = np.full(N, value, dtype=np.int64)
    points = np.full((2, N), Q - 1, dtype=np.uint64)
    points[1] = (1 << 59) - 1
    product = ExactMultiplier(secret, Q).times(points)
    # (X**N + 1) ring: coefficient k is (2 (k + 1) - N) times both factors.
    places = [2 * (k + 1) - N for k in range(N)]
    for row, point in zip(product.tolist(), (Q - 1, (1 << 59) - 1), strict=True):
        assert [v % Q for v in row] == [p * value * point % Q for p in places]
    assert product.min() > -(2**46)
    assert product.max() < 2**61 + 2**46


def test_limbs_are_as_wide_as_the_bound_allows_and_no_wider():
    """A limb too wide rounds wrongly somewhere: what the bound is for (the failing arm)."""
    for secret, width in (
        (np.ones(N, dtype=np.int64), 30),
        (np.full(N, 6, dtype=np.int64), 30),
        (np.full(N, 7, dtype=np.int64), 20),
        (np.full(N, MAX_SITES, dtype=np.int64), 20),
    ):
        assert exact_product._limbs(secret)[0] == width
        norm = math.sqrt(float((secret**2).sum()))
        assert 152 * 2.0**-53 * 2.0**width * 64 * norm < 0.5
    with pytest.raises(ParameterError, match="too large"):
        exact_product._limbs(np.full(N, 1 << 20, dtype=np.int64))


def test_limbs_beyond_the_bound_are_wrong(monkeypatch):
    monkeypatch.setattr(exact_product, "_LIMBS", ((30, 2),))
    monkeypatch.setattr(exact_product, "_ERROR", 0.0)
    rng = np.random.default_rng(5)
    points = rng.integers(0, Q, (2, N), dtype=np.uint64)
    secret = rng.integers(-(1 << 24), 1 << 24, N)
    product = ExactMultiplier(secret, Q).times(points)
    exact = [
        sum(int(a) * int(s) for a, s in zip(row[: j + 1][::-1], secret[: j + 1], strict=True))
        - sum(int(a) * int(s) for a, s in zip(row[j + 1 :], secret[j + 1 :][::-1], strict=True))
        for row in points
        for j in (N - 1,)
    ]
    assert any(v % Q != e % Q for v, e in zip(product[:, -1].tolist(), exact, strict=True))


def test_another_modulus_is_refused():
    with pytest.raises(ParameterError, match="not just below"):
        ExactMultiplier(np.ones(N, dtype=np.int64), 1 << 60)
    with pytest.raises(ParameterError, match="not just below"):
        ExactMultiplier(np.ones(N, dtype=np.int64), 1032193)


def test_it_is_a_secret():
    made = ExactMultiplier(np.ones(N, dtype=np.int64), Q)
    assert repr(made) == "ExactMultiplier(secret)"
    with pytest.raises(TypeError):
        made.__reduce__()
