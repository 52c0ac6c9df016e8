"""Several integers in one coefficient: mixed radix with balanced digits.

n digits d_0 .. d_(n-1), each in [-D, D] with D = K (2**(b - 1) - 1), are carried by

    M = d_0 + d_1 B + ... + d_(n-1) B**(n-1),    B = 2 D + 1.

The sum of K such M has the sums of the digits as its digits: no carry, no offset for negative
values, and every M with |M| <= (B**n - 1) / 2 has exactly one reading. Values fill coefficients
in order, coefficients fill chunks of N, and what is left of the last chunk is zero.

A verified plan makes the `Packing` (`protocol.round`). A site packs its integers before it
encrypts, the decryptor unpacks the sum's coefficients, and each site packs the released sum once
more to compare its tags.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aggregation.ckks.parameters import Encoding
from aggregation.errors import InputError, ReleaseError


@dataclass(frozen=True, slots=True)
class Packing:
    """The layout of one update in chunks of coefficients.

    Attributes:
        size: Values of the update, d.
        degree: Coefficients of a chunk, N.
        encoding: Digits, base and scale.
    """

    size: int
    degree: int
    encoding: Encoding

    @property
    def values_per_chunk(self) -> int:
        """Values that one chunk carries."""
        return self.degree * self.encoding.digits

    @property
    def chunks(self) -> int:
        """Chunks that one update takes, the last one padded."""
        return -(-self.size // self.values_per_chunk)

    def pack(
        self, integers: npt.NDArray[np.int32], start: int = 0, stop: int | None = None
    ) -> npt.NDArray[np.int64]:
        """Pack chunks `start` to `stop` of an update.

        Args:
            integers: The whole update, shape (d,), int32, |v| <= 2**(bits - 1) - 1.
            start: First chunk.
            stop: One past the last chunk; all by default.

        Returns:
            Shape (stop - start, N), int64, |M| <= (B**n - 1) / (2 K).

        Raises:
            InputError: Another shape or dtype, or a value beyond the limit.
        """
        self._check_shape(integers)
        stop = self.chunks if stop is None else stop
        values = integers[start * self.values_per_chunk : stop * self.values_per_chunk]
        self._check_limit(values)
        return self._combine(values, stop - start)

    def check(self, integers: npt.NDArray[np.int32]) -> None:
        """Check a whole update before anything is made of it.

        Raises:
            InputError: Another shape or dtype, or a value beyond the limit.
        """
        self._check_shape(integers)
        self._check_limit(integers)

    def _check_shape(self, integers: npt.NDArray[np.int32]) -> None:
        if not isinstance(integers, np.ndarray) or integers.dtype != np.int32:
            raise InputError("quantised integers must be a NumPy array of int32")
        if integers.shape != (self.size,):
            raise InputError(f"the integers' shape is {integers.shape}, expected ({self.size},)")

    def _check_limit(self, values: npt.NDArray[np.int32]) -> None:
        # -2**31 has no positive counterpart, so compare instead of taking absolute values.
        limit = self.encoding.limit
        if values.size and (values.max() > limit or values.min() < -limit):
            raise InputError(f"a quantised integer is beyond {limit}")

    def pack_sum(
        self, total: npt.NDArray[np.int64], start: int, stop: int
    ) -> npt.NDArray[np.int64]:
        """Pack chunks `start` to `stop` of a sum, as the sum of the packed updates would be.

        Args:
            total: Shape (d,), int64, |v| <= K (2**(bits - 1) - 1).
            start: First chunk.
            stop: One past the last chunk.

        Returns:
            Shape (stop - start, N), int64.
        """
        values = total[start * self.values_per_chunk : stop * self.values_per_chunk]
        return self._combine(values, stop - start)

    def _combine(self, values: npt.NDArray[np.integer], chunks: int) -> npt.NDArray[np.int64]:
        digits, base = self.encoding.digits, self.encoding.base
        packed = np.zeros(chunks * self.degree, dtype=np.int64)
        full = values.size // digits
        rows, whole = values[: full * digits].reshape(-1, digits), packed[:full]
        whole[:] = rows[:, -1]
        for j in range(digits - 2, -1, -1):
            whole *= base
            whole += rows[:, j]
        for value in values[full * digits :][::-1].tolist():  # the last coefficient, not full
            packed[full] = packed[full] * base + value
        return packed.reshape(chunks, self.degree)

    def unpack(
        self, coefficients: npt.NDArray[np.int64], start: int = 0, stop: int | None = None
    ) -> npt.NDArray[np.int64]:
        """Read the values of chunks `start` to `stop` of a sum.

        Args:
            coefficients: Shape (stop - start, N), int64.
            start: First chunk.
            stop: One past the last chunk; all by default.

        Returns:
            Their values, one-dimensional, int64, |v| <= K (2**(bits - 1) - 1); (d,) of all chunks.

        Raises:
            ReleaseError: A coefficient beyond the range of a sum, or padding that is not zero.
        """
        base, digits = self.encoding.base, self.encoding.digits
        half = (base - 1) // 2
        offset = half * sum(base**j for j in range(digits))
        rest = coefficients.reshape(-1)
        if rest.shape != (((self.chunks if stop is None else stop) - start) * self.degree,):
            raise ReleaseError("the sum has another number of coefficients than the plan")
        if rest.max() > offset or rest.min() < -offset:
            raise ReleaseError("a coefficient is beyond the range of a sum")
        # Shifted up, the digits are those of an ordinary non-negative number in base B.
        rest = rest + offset
        values = np.empty((rest.size, digits), dtype=np.int64)
        for j in range(digits - 1):
            quotient = rest // base
            values[:, j] = rest - quotient * base - half
            rest = quotient
        values[:, -1] = rest - half
        flat, size = values.reshape(-1), self.size - start * self.values_per_chunk
        if flat[size:].any():
            raise ReleaseError("the padding of the last chunk is not zero")
        return flat[:size]
