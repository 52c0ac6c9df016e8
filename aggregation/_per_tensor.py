"""The pattern of existing platforms, for comparison only: one CKKS vector a tensor.

As in NVFlare's and others' examples: N = 8192, primes of 60, 40 and 40 bits, scale 2**40, one
symmetric key that every site holds, each tensor encrypted and serialised on its own, floats out.
Nothing in this project uses it but its benchmark. Without the platforms' packaging, which puts the
context beside every tensor, it is a further two to ten times faster and two to four times smaller
than they are.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import tenseal as ts


class PerTensorCkks:
    """One federation's worth of keys for the pattern, and its three operations."""

    def __init__(self) -> None:
        self._context = ts.context(
            ts.SCHEME_TYPE.CKKS,
            poly_modulus_degree=8192,
            coeff_mod_bit_sizes=[60, 40, 40],
            encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
        )
        self._context.global_scale = 2**40

    def encrypt(self, update: npt.NDArray[np.floating], sizes: Sequence[int]) -> list[bytes]:
        """Encrypt and serialise one site's update, tensor by tensor."""
        parts = np.split(update, np.cumsum(sizes)[:-1])
        with _quiet():
            return [ts.ckks_vector(self._context, part).serialize() for part in parts]

    def add(self, uploads: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Load, add and serialise, tensor by tensor, one site after the other."""
        with _quiet():
            total = [ts.ckks_vector_from(self._context, data) for data in uploads[0]]
            for upload in uploads[1:]:
                for vector, data in zip(total, upload, strict=True):
                    vector += ts.ckks_vector_from(self._context, data)  # noqa: PLW2901 - in place
            return [vector.serialize() for vector in total]

    def decrypt(self, total: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """Load and decrypt the sum."""
        with _quiet():
            parts = [ts.ckks_vector_from(self._context, data).decrypt() for data in total]
        return np.concatenate([np.asarray(part) for part in parts])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's warnings about long vectors, printed by C++, out of standard output."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
