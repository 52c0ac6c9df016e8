"""The collective suite: every site encrypts under a secret of its own, and only sums open.

    site i:       c0_k = x_k + e_k - a_k s_i                 s_i ternary, e_k binomial, both fresh
    aggregator:   C0_k = sum of c0_k = X_k + E_k - a_k S     S the sum of the s_i
    decryptor:    C0_k + a_k S = X_k + E_k                   rounded: X_k

This is the multiparty form of ring-LWE encryption (Mouchet et al., PETS 2021) without its joint
public key: a_k is SHAKE-256 of the transcript, the same for everybody and chosen by nobody, so
half of a ciphertext need not travel. S reaches the decryptor as a sum of masked s_i.

x is added in integers, after the transform: |E| <= 21 K, always, and none of the noise is lost.
(Through CKKS's complex slots, large values erase the noise, and the secret is then a quotient.)

Polynomials on the wire are in coefficient form; a_k is defined in SEAL's NTT order, where uniform
is uniform all the same and a product is point by point. SEAL does the multiplication.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from types import ModuleType
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from aggregation.ckks import residues
from aggregation.ckks.parameters import KEY_ERROR, ParameterSet
from aggregation.ckks.residues import Residues
from aggregation.crypto import sealed_box
from aggregation.errors import ReleaseError

_A_LABEL: Final = b"fmfl-secure/aggregation/v1/a"
_SPARE: Final = 16  # words beyond N squeezed at once; more are fetched if ever needed


def public_points(transcript: bytes, chunk: int, parameters: ParameterSet) -> Residues:
    """a_k in SEAL's NTT order, shape (N,): SHAKE-256, words not below q thrown away."""
    degree, modulus = parameters.poly_modulus_degree, parameters.modulus
    mask = np.uint64((1 << modulus.bit_length()) - 1)
    state = hashlib.shake_256(_A_LABEL + transcript + chunk.to_bytes(8, "big"))
    length = degree + _SPARE
    while True:
        words = np.frombuffer(state.digest(8 * length), dtype="<u8") & mask
        if words[:degree].max() < modulus:
            return words[:degree]
        words = words[words < modulus]
        if len(words) >= degree:
            return words[:degree]
        length *= 2  # squeezing more repeats the beginning, so everybody gets the same polynomial


def public_chunks(transcript: bytes, first: int, count: int, parameters: ParameterSet) -> Residues:
    """a_k of `count` chunks from `first` on, shape (count, N)."""
    points = np.empty((count, parameters.poly_modulus_degree), dtype=np.uint64)
    for k, row in enumerate(points, first):
        row[:] = public_points(transcript, k, parameters)
    return points


def draw_ternary(count: int) -> npt.NDArray[np.int64]:
    """Uniform in {-1, 0, 1}, from the operating system; shape (count,)."""
    kept = np.empty(0, dtype=np.uint8)
    while len(kept) < count:
        drawn = np.frombuffer(os.urandom(count + 64), dtype=np.uint8)
        kept = np.concatenate([kept, drawn[drawn < 255]])  # 255 = 3 x 85, so no value is favoured
    values: npt.NDArray[np.int64] = (kept[:count] % 3).astype(np.int64)
    return values - 1


def draw_errors(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Centred binomial of 2 x 21 coins, under a fresh key from the operating system."""
    count = math.prod(shape)
    generator = Cipher(algorithms.AES(secrets.token_bytes(32)), modes.CTR(bytes(16))).encryptor()
    words = np.frombuffer(generator.update(bytes(8 * count)), dtype="<u8")
    coins = np.uint64((1 << KEY_ERROR) - 1)
    heads = np.bitwise_count(words & coins).view(np.int8)
    tails = np.bitwise_count(words >> np.uint64(KEY_ERROR) & coins).view(np.int8)
    errors: npt.NDArray[np.int64] = (heads - tails).astype(np.int64)
    return errors.reshape(shape)


class CollectiveEncryptor:
    """A site's half: a fresh secret, and encryptions under it. One attempt, one use a chunk."""

    def __init__(self, backend: ModuleType, parameters: ParameterSet, transcript: bytes) -> None:
        self._parameters = parameters
        self._transcript = transcript
        self._secret = draw_ternary(parameters.poly_modulus_degree)
        self._multiplier = backend.Multiplier(backend.context(parameters), self._secret)
        self._next = 0

    def __repr__(self) -> str:
        return "CollectiveEncryptor(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not copied or stored")

    def encrypt(self, coefficients: Residues, first: int = 0) -> Residues:
        """Encrypt chunks `first` and following; shape (n, N) to (n, 1, N).

        Raises:
            ReleaseError: A chunk was encrypted before: two under one a_k would open their
                difference.
        """
        if first < self._next:
            raise ReleaseError("this chunk was encrypted before in this attempt")
        self._next = first + len(coefficients)
        modulus = self._parameters.modulus
        points = public_chunks(self._transcript, first, len(coefficients), self._parameters)
        result: Residues = self._multiplier.times(points)
        # x + e - a s + 2 q, between 0 and 4 q: one reduction. Words wrap, so e may be negative.
        np.subtract(coefficients, result, out=result)
        result += draw_errors(coefficients.shape).view(np.uint64)
        result += np.uint64(2 * modulus)
        residues.reduce(result, modulus)
        return result[:, np.newaxis, :]

    def secret(self) -> Residues:
        """s_i modulo q, shape (N,): to be masked and sealed for the decryptor, nothing else."""
        return residues.from_signed(self._secret, self._parameters.modulus)


class CollectiveKeyHolder:
    """The decryptor's half: a box key for the attempt, and the sum of the sites' secrets."""

    def __init__(self, backend: ModuleType, parameters: ParameterSet) -> None:
        self._backend = backend
        self._parameters = parameters
        self._transcript = b""
        self._box: sealed_box.BoxKey | None = sealed_box.BoxKey()
        self._multiplier: object | None = None
        self.material: bytes = self._box.public

    def __repr__(self) -> str:
        return "CollectiveKeyHolder(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not copied or stored")

    def open_box(self, box: bytes, associated: bytes) -> bytes:
        """Open what a site sealed.

        Raises:
            ReleaseError: The key is gone.
            MessageError: Not a box for this key.
        """
        if self._box is None:
            raise ReleaseError("the key of this attempt is destroyed")
        return self._box.open(box, associated)

    def reveal(self) -> bytes:
        """The private box key, as proof of what it opens. To be destroyed with that.

        Raises:
            ReleaseError: The key is gone.
        """
        if self._box is None:
            raise ReleaseError("the key of this attempt is destroyed")
        return self._box.reveal()

    def learn(self, total: Residues, sites: int, transcript: bytes) -> None:
        """Take S, once all masks are off it.

        Args:
            total: S modulo q, shape (N,).
            sites: K.
            transcript: The attempt's, for the a_k.

        Raises:
            ReleaseError: It is no sum of K ternary secrets.
        """
        secret = residues.to_signed(total, self._parameters.modulus)
        if np.abs(secret).max() > sites:
            raise ReleaseError("the sum of secrets does not hold")
        context = self._backend.context(self._parameters)
        self._multiplier = self._backend.Multiplier(context, secret)
        self._transcript = transcript

    def decrypt(self, ciphertexts: Residues, first: int = 0) -> Residues:
        """Open summed chunks `first` and following; shape (n, 1, N) to (n, N), modulo q.

        Raises:
            ReleaseError: There is no key.
        """
        if self._multiplier is None:
            raise ReleaseError("the key of this attempt is destroyed or was never learned")
        points = public_chunks(self._transcript, first, len(ciphertexts), self._parameters)
        result: Residues = self._multiplier.times(points)  # type: ignore[attr-defined]
        residues.add(result, ciphertexts[:, 0], self._parameters.modulus)
        return result

    def destroy(self) -> None:
        """Forget the box key and S."""
        self._box = None
        self._multiplier = None
