"""Floats to integers on a public grid, and back.

A tensor's range r and the width b fix its grid: step = r / (2**(b - 1) - 1). Rounding is
stochastic, so a value inside its range is unbiased and the errors of many sites average out.
Ranges are public and come from the plan; a value beyond its range is clamped to it.

Rounding is done on data that are already private (or declared public): it is post-processing,
one site at a time, and nothing here is counted as noise.

A plan carries the grid (`protocol.plan`). `training.local_round` quantises a site's update with
it, and `training.server_step`, at coordinator and sites alike, turns the released sum back.
"""

from __future__ import annotations

import math
import secrets
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from aggregation.ckks.parameters import MAX_BITS, MAX_SIZE, MIN_BITS
from aggregation.errors import InputError, ParameterError

_MAX_NAME: Final = 512  # characters of a tensor's name
_BLOCK: Final = 1 << 15  # values rounded at a time, so that scratch memory stays in a cache


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor in the flat update.

    Attributes:
        name: The tensor's name.
        size: Its number of values.
        range: Largest absolute value on its grid; finite and above zero.
    """

    name: str
    size: int
    range: float

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= _MAX_NAME or not self.name.isprintable():
            raise ParameterError("a segment's name must be 1 to 512 printable characters")
        if not 1 <= self.size <= MAX_SIZE:
            raise ParameterError(f"segment {self.name}: size {self.size} is not 1 to {MAX_SIZE}")
        # Below the smallest normal float the step would lose its precision.
        if not (math.isfinite(self.range) and 1e-30 <= self.range <= 1e30):
            raise ParameterError(f"segment {self.name}: range {self.range} is not 1e-30 to 1e30")


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public grid of one update.

    Attributes:
        bits: Width b of a value, sign included; |v| <= 2**(b - 1) - 1.
        segments: Tensors in the order of the flat vector.
    """

    bits: int
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise ParameterError(f"bits {self.bits} is not {MIN_BITS} to {MAX_BITS}")
        if not self.segments:
            raise ParameterError("a quantization needs at least one segment")
        if len({s.name for s in self.segments}) != len(self.segments):
            raise ParameterError("two segments have one name")
        if self.size > MAX_SIZE:
            raise ParameterError(f"{self.size} values are more than {MAX_SIZE}")

    @property
    def size(self) -> int:
        """Values in the flat update, d."""
        return sum(s.size for s in self.segments)

    @property
    def limit(self) -> int:
        """Largest absolute value of an integer."""
        return (1 << (self.bits - 1)) - 1


def quantize(
    update: npt.NDArray[np.floating],
    quantization: Quantization,
    weight: float = 1.0,
) -> npt.NDArray[np.int32]:
    """Round an update stochastically to its grid.

    Args:
        update: Flat vector, shape (d,), any float dtype, finite.
        quantization: The plan's grid.
        weight: The site's weight over the largest weight, in (0, 1]; applied before rounding.

    Returns:
        Shape (d,), int32, |v| <= 2**(bits - 1) - 1; E[v] = weight * update / step inside the range.

    Raises:
        InputError: Another shape or dtype, a non-finite value or a weight outside (0, 1].
    """
    if not isinstance(update, np.ndarray) or not np.issubdtype(update.dtype, np.floating):
        raise InputError("an update must be a NumPy array of floats")
    if update.shape != (quantization.size,):
        raise InputError(f"the update's shape is {update.shape}, expected ({quantization.size},)")
    if not 0.0 < weight <= 1.0:
        raise InputError(f"weight {weight} is not in (0, 1]: divide by the largest weight")
    blocks = range(0, update.size, _BLOCK)
    if not all(np.isfinite(update[low : low + _BLOCK]).all() for low in blocks):
        raise InputError("the update holds a value that is not finite")
    # Fresh OS entropy for every call: a seed kept across a fork would repeat in both processes.
    rng = np.random.Generator(np.random.SFC64(secrets.randbits(256)))
    limit = float(quantization.limit)
    bound = weight * limit
    integers = np.empty(quantization.size, dtype=np.int32)
    scaled, drawn = np.empty(_BLOCK), np.empty(_BLOCK)  # once: new ones would be a fifth of all
    start = 0
    for segment in quantization.segments:
        factor = weight * (limit / segment.range)
        end = start + segment.size
        for low in range(start, end, _BLOCK):
            high = min(low + _BLOCK, end)
            values = scaled[: high - low]
            with np.errstate(over="ignore"):  # what overflows is clamped like all else
                np.multiply(update[low:high], factor, out=values, dtype=np.float64)
            np.clip(values, -bound, bound, out=values)
            values += rng.random(out=drawn[: high - low])
            np.floor(values, out=values)
            # limit + u may round up to limit + 1 in floating point.
            np.minimum(values, limit, out=values)
            integers[low:high] = values
        start = end
    return integers


def dequantize(
    total: npt.NDArray[np.int64],
    quantization: Quantization,
    weight_sum: float,
) -> npt.NDArray[np.float64]:
    """Turn a released sum into the weighted mean of the updates.

    Args:
        total: Released integers, shape (d,), int64.
        quantization: The plan's grid.
        weight_sum: Sum of the cohort's weights, each over the largest; above zero.

    Returns:
        Shape (d,), float64, in the update's units.

    Raises:
        InputError: Another shape or dtype, or a weight sum that is not above zero.
    """
    if not isinstance(total, np.ndarray) or not np.issubdtype(total.dtype, np.integer):
        raise InputError("a released sum must be a NumPy array of integers")
    if total.shape != (quantization.size,):
        raise InputError(f"the sum's shape is {total.shape}, expected ({quantization.size},)")
    if not (math.isfinite(weight_sum) and weight_sum > 0.0):
        raise InputError(f"weight_sum {weight_sum} is not above zero")
    mean = total.astype(np.float64)
    start = 0
    for segment in quantization.segments:
        end = start + segment.size
        mean[start:end] *= segment.range / (quantization.limit * weight_sum)
        start = end
    return mean
