"""The collective suite: every site encrypts under a secret of its own, and only sums open.

    site i:       c0_k = x_k + e_k - a_k s_i                 s_i ternary, e_k binomial, both fresh
    aggregator:   C0_k = sum of c0_k = X_k + E_k - a_k S     S the sum of the s_i
    decryptor:    C0_k + a_k S = X_k + E_k                   rounded: X_k

This is the multiparty form of ring-LWE encryption (Mouchet et al., PETS 2021) without its joint
public key: the a_k are a stream of AES-256-CTR under a key that is SHAKE-256 of the transcript, the
same for everybody and chosen by nobody, so half of a ciphertext need not travel. A public matrix
from AES under a public seed is what FrodoKEM's AES variant has, with its reduction (FrodoKEM,
specification of 2021, section 5.1.4). S reaches the decryptor as a sum of masked s_i.

x is added in integers, after the product: |E| <= 21 K, always, and none of the noise is lost.
(Through CKKS's complex slots, large values erase the noise, and the secret is then a quotient.)

All polynomials are coefficients. Products are exact (`exact_product`), and a process compares some
with SEAL's before it encrypts anything.

`suites` makes both halves. `SiteSecrets` encrypts a site's chunks and seals its secret;
`Decryptor` draws a box key, opens each site's box, learns the sum S once the masks are off it,
decrypts and destroys.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import threading
from types import ModuleType
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from aggregation.ckks import residues
from aggregation.ckks.exact_product import ExactMultiplier
from aggregation.ckks.parameters import KEY_ERROR, ParameterSet
from aggregation.ckks.residues import Residues
from aggregation.crypto import sealed_box
from aggregation.crypto.masking import Stream
from aggregation.errors import ReleaseError

_A_LABEL: Final = b"fmfl-secure/aggregation/v2/a"
_KEY_SIZE: Final = 32  # bytes of the public stream's key


def public_stream(transcript: bytes, parameters: ParameterSet) -> Stream:
    """The stream whose chunk k is a_k, coefficients below q, shape (N,). Nothing in it is secret.

    It is the stream that masks are made of, under a key that everybody derives. Whoever expands
    chunks in several threads opens one for each.
    """
    key = hashlib.shake_256(_A_LABEL + transcript).digest(_KEY_SIZE)
    return Stream(key, parameters.modulus, parameters.poly_modulus_degree)


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
    """A site's half: a fresh secret, and encryptions under it. One attempt, one use a chunk.

    Threads may encrypt different chunks at once.
    """

    def __init__(self, backend: ModuleType, parameters: ParameterSet, transcript: bytes) -> None:
        backend.context(parameters)  # the library's own word on primes and products, once a process
        self._parameters = parameters
        self._transcript = transcript
        self._secret = draw_ternary(parameters.poly_modulus_degree)
        self._multiplier = ExactMultiplier(self._secret, parameters.modulus)
        self._encrypted: set[int] = set()
        self._lock = threading.Lock()

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
        with self._lock:
            chunks = range(first, first + len(coefficients))
            if not self._encrypted.isdisjoint(chunks):
                raise ReleaseError("this chunk was encrypted before in this attempt")
            self._encrypted.update(chunks)
        modulus = self._parameters.modulus
        points = public_stream(self._transcript, self._parameters).chunks(first, len(chunks))
        result: Residues = self._multiplier.times(points).view(np.uint64)
        # x + e - a s + 3 q, between 0 and 5 q: one reduction. Words wrap, so e may be negative.
        np.subtract(coefficients, result, out=result)
        result += draw_errors(coefficients.shape).view(np.uint64)
        result += np.uint64(3 * modulus)
        residues.reduce(result, modulus)
        return result[:, np.newaxis, :]

    def secret(self) -> Residues:
        """s_i modulo q, shape (N,): to be masked and sealed for the decryptor, nothing else."""
        return residues.from_signed(self._secret, self._parameters.modulus)


class CollectiveKeyHolder:
    """The decryptor's half: a box key for the attempt, and the sum of the sites' secrets."""

    def __init__(self, backend: ModuleType, parameters: ParameterSet) -> None:
        backend.context(parameters)  # as at a site
        self._parameters = parameters
        self._transcript = b""
        self._box: sealed_box.BoxKey | None = sealed_box.BoxKey()
        self._multiplier: ExactMultiplier | None = None
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
        self._multiplier = ExactMultiplier(secret, self._parameters.modulus)
        self._transcript = transcript

    def decrypt(self, ciphertexts: Residues, first: int = 0) -> Residues:
        """Open summed chunks `first` and following; shape (n, 1, N) to (n, N), modulo q.

        Threads may open different chunks at once.

        Raises:
            ReleaseError: There is no key.
        """
        if self._multiplier is None:
            raise ReleaseError("the key of this attempt is destroyed or was never learned")
        modulus = self._parameters.modulus
        stream = public_stream(self._transcript, self._parameters)
        points = stream.chunks(first, len(ciphertexts))
        result: Residues = self._multiplier.times(points).view(np.uint64)
        result += ciphertexts[:, 0]
        result += np.uint64(modulus)  # above zero, whatever the product
        residues.reduce(result, modulus)
        return result

    def destroy(self) -> None:
        """Forget the box key and S."""
        self._box = None
        self._multiplier = None
