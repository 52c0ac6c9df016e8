import numpy as np
import pytest

from aggregation import InputError, ParameterError, Quantization, Segment, dequantize, quantize

GRID = Quantization(
    bits=8, segments=(Segment(name="a", size=3, range=1.0), Segment(name="b", size=2, range=0.01))
)


def test_each_tensor_has_its_own_range():
    update = np.array([1.0, -1.0, 0.0, 0.01, -0.01])
    integers = quantize(update, GRID)
    assert integers.dtype == np.int32
    assert integers.tolist() == [127, -127, 0, 127, -127]
    np.testing.assert_allclose(dequantize(integers.astype(np.int64), GRID, 1.0), update)


def test_beyond_the_range_is_clamped():
    assert quantize(np.array([5.0, -5.0, 1e300, 1.0, -1.0]), GRID).tolist() == [
        127, -127, 127, 127, -127,
    ]  # fmt: skip


def test_what_overflows_on_the_grid_is_clamped_too():
    grid = Quantization(bits=8, segments=(Segment(name="a", size=2, range=1e-30),))
    assert quantize(np.array([1e300, -1e300]), grid).tolist() == [127, -127]


@pytest.mark.parametrize("bits", [2, 8, 16, 24, 32])
def test_no_rounding_leaves_the_grid(bits):
    grid = Quantization(bits=bits, segments=(Segment(name="a", size=4000, range=0.3),))
    update = np.full(4000, 0.3)
    update[::2] = -0.3
    integers = quantize(update, grid)
    assert integers.max() == grid.limit
    assert integers.min() == -grid.limit


def test_rounding_is_unbiased():
    grid = Quantization(bits=8, segments=(Segment(name="a", size=200_000, range=1.0),))
    value = 0.3 / 127  # 0.3 of a step
    mean = quantize(np.full(200_000, value), grid).mean()
    # five standard errors of a Bernoulli(0.3)
    assert abs(mean - 0.3) < 5 * np.sqrt(0.21 / 200_000)


def test_weight_comes_before_rounding():
    grid = Quantization(bits=16, segments=(Segment(name="a", size=2, range=1.0),))
    integers = quantize(np.array([1.0, 1.0]), grid, weight=0.5)
    assert np.all(np.abs(integers - 32767 / 2) <= 1)


def test_two_calls_round_differently():
    grid = Quantization(bits=8, segments=(Segment(name="a", size=512, range=1.0),))
    update = np.full(512, 0.5 / 127)
    assert not np.array_equal(quantize(update, grid), quantize(update, grid))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_is_refused(bad):
    with pytest.raises(InputError, match="finite"):
        quantize(np.array([0.0, bad, 0.0, 0.0, 0.0]), GRID)


@pytest.mark.parametrize(
    "update", [np.zeros(4), np.zeros((5, 1)), np.zeros(5, dtype=np.int64), [0.0] * 5]
)
def test_shape_and_dtype_are_checked(update):
    with pytest.raises(InputError):
        quantize(update, GRID)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.01, float("nan")])
def test_weight_is_checked(weight):
    with pytest.raises(InputError):
        quantize(np.zeros(5), GRID, weight)


@pytest.mark.parametrize("weight_sum", [0.0, -1.0, float("inf"), float("nan")])
def test_weight_sum_is_checked(weight_sum):
    with pytest.raises(InputError):
        dequantize(np.zeros(5, dtype=np.int64), GRID, weight_sum)


def test_dequantize_checks_its_input():
    with pytest.raises(InputError):
        dequantize(np.zeros(4, dtype=np.int64), GRID, 1.0)
    with pytest.raises(InputError):
        dequantize(np.zeros(5), GRID, 1.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Segment(name="", size=1, range=1.0),
        lambda: Segment(name="a\n", size=1, range=1.0),
        lambda: Segment(name="a", size=0, range=1.0),
        lambda: Segment(name="a", size=1, range=0.0),
        lambda: Segment(name="a", size=1, range=float("inf")),
        lambda: Quantization(bits=1, segments=GRID.segments),
        lambda: Quantization(bits=33, segments=GRID.segments),
        lambda: Quantization(bits=8, segments=()),
        lambda: Quantization(bits=8, segments=(GRID.segments[0], GRID.segments[0])),
    ],
)
def test_an_impossible_grid_is_refused(make):
    with pytest.raises(ParameterError):
        make()
