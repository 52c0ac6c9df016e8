"""Gaussian noise in float64 from an OS-seeded stream cipher.

Two properties that `torch.randn` lacks matter here. Its float32 normals never exceed about 5.8
standard deviations, a truncation that delta = 1e-5 does not cover over many coordinates and
steps; and its generator is not cryptographic. Here each value is the sum of four Box-Muller
normals, divided by two: float64 with 53-bit uniforms (tails to 8.5 standard deviations each),
and four terms make the attack on the floating-point grid of a single Box-Muller draw
infeasible (Holohan and Braghin, arXiv 2107.10138, section 5.1).

What remains is a floating-point gap: the result is a sum of float64 numbers and not a real
Gaussian, so the guarantee holds up to an error that no analysis of this code bounds exactly.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.mechanism.keystream import KeyStream

_TERMS = 4
_CHUNK = 1 << 13  # values drawn at a time: what is worked on stays in the processor's cache


class GaussianSource:
    """A stream of standard normals. Two sources never share a key, nor do two processes."""

    __slots__ = ("_words",)

    def __init__(self) -> None:
        self._words = KeyStream()

    def __repr__(self) -> str:
        return "GaussianSource()"

    def _uniforms(self, count: int) -> torch.Tensor:
        """Multiples of 2^-53 in (0, 1], never 0, so that their logarithm is finite."""
        words = self._words.words(count) >> np.uint64(11)
        return torch.from_numpy(words.astype(np.float64)).add_(1.0).mul_(2.0**-53)

    def normal(self, count: int) -> NDArray[np.float64]:
        """`count` independent standard normals.

        Returns:
            float64 array of shape (count,).
        """
        result = torch.zeros(count, dtype=torch.float64)
        for total in torch.split(result, _CHUNK):
            for _ in range(_TERMS):
                # A pair of uniforms for each term: the cosine and sine of one pair would add up
                # to a single Box-Muller draw again.
                radius, angle = self._uniforms(2 * len(total)).view(2, -1)
                radius.log_().mul_(-2.0).sqrt_()
                total.addcmul_(radius, angle.mul_(2.0 * torch.pi).cos_())
            total.div_(math.sqrt(_TERMS))
        return result.numpy()
