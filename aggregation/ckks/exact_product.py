"""Products with a small secret polynomial, exact, by NumPy's Fourier transform.

    r = a s    in Z[X] / (X**N + 1),    a public with coefficients in [0, q), s secret and small

What goes in and out of SEAL goes through files, it compresses random residues, and TenSEAL holds
the interpreter's lock meanwhile: two and a half times the time, and no second core
(docs/decisions/0013-products-by-fourier-transform.md). `_ckks` compares products of this file with
SEAL's, bit by bit, before a process encrypts anything.

*How.* Coefficients of a are cut into limbs of w bits. X**N = -1 is X**(N/2) = i, so a limb is a
complex vector of N/2 numbers, c_j + i c_(j + N/2); multiplied by zeta**j, zeta = exp(i pi / N), its
cyclic products are those modulo X**(N/2) - i. Rounded to integers, limbs are put together modulo q.

*Why it is exact.* For a cyclic product of length 2**m by fast Fourier transforms in floating point,
with eps = 2**-53 and roots of unity that are right to beta, in Euclidean norms,

    max |r' - r| < ||a|| ||s|| ((1 + eps)**3m (1 + eps sqrt(5))**(3m + 1) (1 + beta)**3m - 1)

(Percival, Math. Comp. 72, 2003, theorem 5.1; the sqrt(5) is proved in Brent, Percival, Zimmermann,
Math. Comp. 76, 2007). Here m = 11 and beta <= eps, and three more products by roots for the twist:
below 152 eps in all. A limb's norm is at most 2**w sqrt(N). So rounding is right wherever
152 * 2**-53 * 2**w * 64 * ||s|| < 1/2: for w = 30 up to ||s|| = 433, which a site's ternary secret
(at most 64) always meets; for w = 20 up to 2**18, which a sum of 1,024 of them always does. The
widest w that its own s allows is taken.

No branch and no index hangs on s: its time tells nothing of it.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from aggregation.ckks.residues import Residues
from aggregation.errors import ParameterError

_LIMBS: Final = ((30, 2), (20, 3))  # bits of a limb, limbs: together the 60 bits of a residue
_WORD: Final = 60
_ERROR: Final = 152 * 2.0**-53


class ExactMultiplier:
    """Multiplies by one secret polynomial. Holds nothing that changes: any thread may use it."""

    def __init__(self, secret: npt.NDArray[np.int64], modulus: int) -> None:
        """Transform the secret.

        Args:
            secret: Its coefficients, shape (N,), small.
            modulus: q, of 60 bits, just below 2**60.

        Raises:
            ParameterError: A modulus of another size, or a secret too large to be exact.
        """
        degree = len(secret)
        self._fold = (1 << _WORD) - modulus  # 2**60 modulo q
        if not 0 < self._fold < 1 << 20:
            raise ParameterError(f"the modulus {modulus} is not just below 2**{_WORD}")
        self._width, self._limbs = _limbs(secret)
        self._half = degree // 2
        angles = np.arange(self._half) * (math.pi / degree)
        self._twist = np.exp(1j * angles)
        self._back = np.conj(self._twist) / self._half
        pairs = secret.reshape(2, self._half)
        self._spectrum = np.fft.fft((pairs[0] + 1j * pairs[1]) * self._twist)

    def __repr__(self) -> str:
        return "ExactMultiplier(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not copied or stored")

    def times(self, points: Residues) -> npt.NDArray[np.int64]:
        """Multiply polynomials by the secret.

        Args:
            points: Coefficients, shape (n, N), each below q.

        Returns:
            Shape (n, N), int64, congruent to the product modulo q, above -2**46 and below
            2**61 + 2**46: the caller reduces it, together with what it adds.
        """
        shape = (len(points), self._limbs, self._half)
        values = np.empty(shape, dtype=np.complex128)
        parts = values.view(np.float64).reshape(*shape, 2)
        word = np.empty_like(points)
        mask = np.uint64((1 << self._width) - 1)
        for j in range(self._limbs):
            np.right_shift(points, np.uint64(j * self._width), out=word)
            np.bitwise_and(word, mask, out=word)
            # Below 2**30, so the same number either way; signed words turn into floats faster.
            halves = word.view(np.int64).reshape(-1, 2, self._half)
            parts[:, j, :, 0], parts[:, j, :, 1] = halves[:, 0], halves[:, 1]
        values *= self._twist
        np.fft.fft(values, out=values)
        values *= self._spectrum
        np.fft.ifft(values, norm="forward", out=values)  # `_back` divides by the length
        values *= self._back
        np.rint(parts, out=parts)
        return self._joined(parts)

    def _joined(self, parts: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Limbs of products, shape (n, limbs, N / 2, 2), as one number each, shape (n, N)."""
        total = np.empty((len(parts), 2, self._half), dtype=np.int64)
        high = np.empty_like(total)
        total[:, 0], total[:, 1] = parts[:, 0, :, 0], parts[:, 0, :, 1]
        for j in range(1, self._limbs):
            place = j * self._width
            high[:, 0], high[:, 1] = parts[:, j, :, 0], parts[:, j, :, 1]
            # What lies beyond 60 bits comes back as multiples of 2**60 modulo q.
            beyond = high >> (_WORD - place)
            beyond *= self._fold
            total += beyond
            high &= (1 << (_WORD - place)) - 1
            high <<= place
            total += high
        return total.reshape(len(parts), -1)


def _limbs(secret: npt.NDArray[np.int64]) -> tuple[int, int]:
    """The widest limbs whose products with this secret round exactly, and how many."""
    norm = math.sqrt(float(np.square(secret.astype(np.float64)).sum()))
    for width, limbs in _LIMBS:
        if _ERROR * 2.0**width * math.sqrt(len(secret)) * norm < 0.5:
            return width, limbs
    raise ParameterError("a secret polynomial is too large for an exact product")
