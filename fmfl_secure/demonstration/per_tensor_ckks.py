"""The pattern of existing platforms, for comparison only: one CKKS vector a tensor.

As in NVFlare's and others' examples: N = 8192, primes of 60, 40 and 40 bits, scale 2**40, one
symmetric key that every site holds, each tensor encrypted and serialised on its own, floats out.
Nothing in this project uses it but its benchmark and the demonstration of what is wrong with it.
Without the platforms' packaging, which puts the context beside every tensor, it is a further two to
ten times faster and two to four times smaller than they are.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import tenseal as ts
import tenseal.sealapi as seal

from aggregation.ckks import _seal_streams
from aggregation.ckks.residues import Residues

_DEGREE = 8192
_SCALE = 2.0**40
_PRIMES = 2  # of a ciphertext; SEAL keeps the third for key switching


class PerTensorCkks:
    """One federation's worth of keys for the pattern, and its three operations."""

    def __init__(self) -> None:
        self._context = ts.context(
            ts.SCHEME_TYPE.CKKS,
            poly_modulus_degree=_DEGREE,
            coeff_mod_bit_sizes=[60, 40, 40],
            encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
        )
        self._context.global_scale = _SCALE

    def public_context(self) -> bytes:
        """The context without its secret key: what a server is given."""
        data: bytes = self._context.serialize(save_secret_key=False)
        return data

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

    def add_constant(self, total: Sequence[bytes], values: Sequence[float]) -> list[bytes]:
        """Add public values to the first tensor: no key is needed, and nothing shows it."""
        with _quiet():
            first = ts.ckks_vector_from(self._context, total[0])
            first += [*values, *[0.0] * (first.size() - len(values))]
            return [first.serialize(), *total[1:]]

    def decrypt(self, total: Sequence[bytes]) -> npt.NDArray[np.float64]:
        """Load and decrypt the sum."""
        with _quiet():
            parts = [ts.ckks_vector_from(self._context, data).decrypt() for data in total]
        return np.concatenate([np.asarray(part) for part in parts])


class PublicView:
    """Computes what the pattern's public context shows to who has no key: its server, say.

    Residues are modulo the first prime, in SEAL's NTT order, shape (8192,).
    """

    degree, scale = _DEGREE, _SCALE
    slots = _DEGREE // 2

    def __init__(self, public_context: bytes) -> None:
        self._context = ts.context_from(public_context)
        self._seal = self._context.seal_context().data
        self._identifier = struct.pack("<4Q", *self._seal.first_parms_id())
        self._scratch = _seal_streams.Scratch()
        self._encoder = seal.CKKSEncoder(self._seal)

    def polynomials(self, data: bytes) -> list[tuple[Residues, Residues]]:
        """c0 and c1 of every ciphertext of a serialised tensor."""
        with _quiet():
            items = ts.ckks_vector_from(self._context, data).ciphertext()
        found = []
        for item in items:
            rows = _seal_streams.read_ciphertext(
                self._scratch.save(item), 2, _PRIMES, _DEGREE, self._identifier
            )
            found.append((rows[0].copy(), rows[_PRIMES].copy()))
        return found

    def encode(self, values: npt.NDArray[np.float64]) -> Residues:
        """The plaintext of so many real values; one in every slot, shape (slots,)."""
        plain = seal.Plaintext()
        self._encoder.encode(values.tolist(), _SCALE, plain)
        stream = self._scratch.save(plain)
        both = _seal_streams.read_plaintext(stream, _PRIMES * _DEGREE, self._identifier)
        return both[:_DEGREE].copy()


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
