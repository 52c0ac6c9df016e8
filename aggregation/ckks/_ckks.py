"""The only file of this package that knows TenSEAL.

In and out go arrays: integers in coefficients, residues modulo q in SEAL's NTT order. Between the
two stands SEAL itself, for key generation, encryption of zero, decryption and the transform.

Integers go into the *coefficients* of the ring, never through CKKS's complex slots: floats lose
low bits of the noise, and with them the security of the encryption. SEAL's encoder refuses raw
coefficients, but a ciphertext stream marked "not in NTT form" carries them exactly, and
`Evaluator.transform_to_ntt` makes an ordinary ciphertext of it.

Arrays travel as SEAL's own streams (`_seal_streams`), in memory only. The secret key itself is
never written anywhere, not even there.

The layout of a stream belongs to one version of the library: a known-answer test runs before first
use, and anything unexpected is a `BackendError`.

Only `aggregation.ckks.suites` imports it, when a key or an encryption is first wanted, and so do
demonstrations that attack a round. `context` comes first and tests the library once a process;
then, in `ckks-pk`, a site makes an `Encryptor` and the decryptor a `KeyHolder`.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tenseal.sealapi as seal

from aggregation.ckks import _seal_streams, residues
from aggregation.ckks.exact_product import ExactMultiplier
from aggregation.ckks.parameters import COLLECTIVE, MAX_SITES, ParameterSet
from aggregation.ckks.residues import Residues
from aggregation.errors import AggregationError, BackendError, MessageError, ReleaseError

# SEAL allows sixteen polynomials in a ciphertext; one of ours is always the constant one.
_BATCH: Final = 15

# SHA-256 of the NTT (SEAL's order, little-endian) of the polynomial sum_j (j - 2048) X**j, under
# the one prime of all sets.
_KNOWN_NTT: Final = "e69bceca29ca9f392e9b23aae4b5202a43548a54d933076c06de520f0a24a836"


_scratch = _seal_streams.Scratch()


class Context:
    """A SEAL context, its evaluator, and arrays in and out of it. Holds no key."""

    def __init__(self, parameters: ParameterSet) -> None:
        self.parameters = parameters
        self.degree = parameters.poly_modulus_degree
        self.modulus = parameters.modulus
        moduli = seal.CoeffModulus.Create(self.degree, list(parameters.coeff_mod_bit_sizes))
        if tuple(m.value() for m in moduli) != parameters.coeff_modulus:
            raise BackendError(f"TenSEAL picks other primes than {parameters.id} names")
        encryption = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        encryption.set_poly_modulus_degree(self.degree)
        encryption.set_coeff_modulus(moduli)
        self.seal = seal.SEALContext(encryption, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.seal.parameters_set():
            raise BackendError(f"TenSEAL refuses {parameters.id} at 128 bits")
        self._evaluator = seal.Evaluator(self.seal)
        self._data_id = struct.pack("<4Q", *self.seal.first_parms_id())
        self._key_id = struct.pack("<4Q", *self.seal.key_parms_id())

    def load_ciphertext(self, polynomials: Residues, *, ntt: bool) -> Any:
        """Build a SEAL ciphertext of residues, shape (n, N), n from 2 to 16."""
        item = seal.Ciphertext()
        stream = _seal_streams.ciphertext(polynomials, 1, self._data_id, ntt=ntt)
        _scratch.load(item, self.seal, stream)
        return item

    def save_ciphertext(self, item: Any, polynomials: int) -> Residues:
        """Read a SEAL ciphertext's residues, shape (polynomials, N)."""
        stream = _scratch.save(item)
        return _seal_streams.read_ciphertext(stream, polynomials, 1, self.degree, self._data_id)

    def load_public_key(self, polynomials: Residues) -> Any:
        """Build a SEAL public key of residues, shape (2 primes, N): poly 0, then poly 1."""
        item = seal.PublicKey()
        primes = len(self.parameters.coeff_modulus)
        stream = _seal_streams.ciphertext(polynomials, primes, self._key_id, ntt=True)
        _scratch.load(item, self.seal, stream)
        return item

    def save_public_key(self, item: Any) -> Residues:
        """Read a SEAL public key's residues, shape (2 primes, N)."""
        stream, primes = _scratch.save(item), len(self.parameters.coeff_modulus)
        return _seal_streams.read_ciphertext(stream, 2, primes, self.degree, self._key_id)

    def load_plaintext(self, polynomial: Residues) -> Any:
        """Build a SEAL plaintext of residues in NTT order, shape (N,)."""
        item = seal.Plaintext()
        _scratch.load(item, self.seal, _seal_streams.plaintext(polynomial, self._data_id))
        return item

    def save_plaintext(self, item: Any) -> Residues:
        """Read a SEAL plaintext in NTT form, shape (N,)."""
        return _seal_streams.read_plaintext(_scratch.save(item), self.degree, self._data_id)

    def to_ntt(self, polynomials: Residues) -> Residues:
        """Transform coefficients to SEAL's NTT order; shape (n, N) to (n, N), any n."""
        return self._transform(polynomials, forward=True)

    def from_ntt(self, polynomials: Residues) -> Residues:
        """Undoes `to_ntt`: residues of evaluations to residues of coefficients."""
        return self._transform(polynomials, forward=False)

    def products(self, points: Residues, secret: Any) -> Residues:
        """Multiply polynomials by a secret one.

        Args:
            points: Polynomials in NTT order, shape (n, N), any n; not all zero.
            secret: What `load_plaintext` made of the secret polynomial in NTT order.

        Returns:
            The products' coefficients, shape (n, N).
        """
        result = np.empty_like(points)
        for low in range(0, len(points), _BATCH):
            batch = points[low : low + _BATCH]
            # SEAL's smallest ciphertext has two polynomials.
            padded = batch if len(batch) > 1 else np.concatenate([batch, batch])
            item = self.load_ciphertext(padded, ntt=True)
            self._evaluator.multiply_plain_inplace(item, secret)
            self._evaluator.transform_from_ntt_inplace(item)
            result[low : low + _BATCH] = self.save_ciphertext(item, len(padded))[: len(batch)]
        return result

    def _transform(self, polynomials: Residues, *, forward: bool) -> Residues:
        result = np.empty_like(polynomials)
        for low in range(0, len(polynomials), _BATCH):
            batch = polynomials[low : low + _BATCH]
            # SEAL refuses ciphertexts whose later polynomials are all zero, which an update may
            # be; a last one, the constant one in either form, settles it.
            guarded = np.zeros((len(batch) + 1, self.degree), dtype=np.uint64)
            guarded[:-1] = batch
            guarded[-1, : 1 if forward else None] = 1
            item = self.load_ciphertext(guarded, ntt=not forward)
            if forward:
                self._evaluator.transform_to_ntt_inplace(item)
            else:
                self._evaluator.transform_from_ntt_inplace(item)
            result[low : low + _BATCH] = self.save_ciphertext(item, len(guarded))[:-1]
        return result


class Multiplier:
    """Multiplies by one small polynomial, held as a SEAL plaintext and nowhere else."""

    def __init__(self, context: Context, polynomial: npt.NDArray[np.int64]) -> None:
        self._context = context
        coefficients = residues.from_signed(polynomial.reshape(1, -1), context.modulus)
        try:
            self._secret = context.load_plaintext(context.to_ntt(coefficients)[0])
        except (RuntimeError, ValueError):
            raise BackendError("SEAL refuses a small polynomial") from None

    def __repr__(self) -> str:
        return "Multiplier(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a secret polynomial is not copied or stored")

    def times(self, points: Residues) -> Residues:
        """Coefficients of the products with polynomials in NTT order; shape (n, N) both.

        Raises:
            ReleaseError: SEAL refuses, as it does a product of zeros.
        """
        try:
            return self._context.products(points, self._secret)
        except (RuntimeError, ValueError):
            raise ReleaseError("a polynomial cannot be multiplied") from None


class Encryptor:
    """Encrypts integers in coefficients under an attempt's public key."""

    def __init__(self, context: Context, material: bytes) -> None:
        self._context = context
        key = context.load_public_key(_unpack_key(material, context.parameters))
        self._encryptor = seal.Encryptor(context.seal, key)

    def encrypt(self, coefficients: Residues, first: int = 0) -> Residues:  # noqa: ARG002
        """Encrypt; coefficients modulo q of shape (n, N) to residues of shape (n, 2, N)."""
        context = self._context
        messages = context.to_ntt(coefficients)
        result = np.empty((len(messages), 2, context.degree), dtype=np.uint64)
        item = seal.Ciphertext()
        for chunk, message in zip(result, messages, strict=True):
            self._encryptor.encrypt_zero(item)
            chunk[:] = context.save_ciphertext(item, 2)
            residues.add(chunk[0], message, context.modulus)
        return result


class KeyHolder:
    """An attempt's fresh key pair. The secret half exists in this object only."""

    def __init__(self, context: Context) -> None:
        self._context = context
        generator = seal.KeyGenerator(context.seal)
        public = seal.PublicKey()
        generator.create_public_key(public)
        self.material: bytes = _pack_key(context.save_public_key(public), context.parameters)
        self._decryptor: Any = seal.Decryptor(context.seal, generator.secret_key())

    def __repr__(self) -> str:
        return "KeyHolder(secret)"

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not copied or stored")

    def decrypt(self, ciphertexts: Residues, first: int = 0) -> Residues:  # noqa: ARG002
        """Decrypt; residues of shape (n, 2, N) to coefficients modulo q of shape (n, N).

        Raises:
            ReleaseError: The key is gone, or SEAL refuses a ciphertext.
        """
        if self._decryptor is None:
            raise ReleaseError("the key of this attempt is destroyed")
        context = self._context
        plain = np.empty((len(ciphertexts), context.degree), dtype=np.uint64)
        item = seal.Plaintext()
        for row, ciphertext in zip(plain, ciphertexts, strict=True):
            try:
                self._decryptor.decrypt(context.load_ciphertext(ciphertext, ntt=True), item)
            except (RuntimeError, ValueError):
                raise ReleaseError("a ciphertext does not decrypt") from None
            row[:] = context.save_plaintext(item)
        return context.from_ntt(plain)

    def destroy(self) -> None:
        """Drop the secret key; SEAL wipes its memory when it goes."""
        self._decryptor = None


@functools.cache
def context(parameters: ParameterSet) -> Context:
    """The context of a parameter set, after its known-answer test.

    Raises:
        BackendError: TenSEAL is not the version whose streams this file knows.
    """
    try:
        made = Context(parameters)
        _self_test(made)
    except (RuntimeError, ValueError, struct.error) as error:
        raise BackendError("TenSEAL fails its self-test: version 0.3.18 is needed") from error
    return made


def _self_test(made: Context) -> None:
    ramp = np.arange(made.degree, dtype=np.int64) - made.degree // 2
    coefficients = residues.from_signed(np.stack([ramp, ramp[::-1], 0 * ramp]), made.modulus)
    transformed = made.to_ntt(coefficients)
    digest = hashlib.sha256(transformed[0].astype("<u8").tobytes()).hexdigest()
    if digest != _KNOWN_NTT:
        raise BackendError("the NTT of a known polynomial is another one")
    if not np.array_equal(made.from_ntt(transformed), coefficients):
        raise BackendError("the NTT does not round-trip")
    if made.parameters.suite == COLLECTIVE:
        _self_test_products(made, ramp)
    else:
        _self_test_encryption(made, coefficients, ramp + ramp[::-1])


def _self_test_products(made: Context, ramp: npt.NDArray[np.int64]) -> None:
    # X times a polynomial shifts it, with a change of sign at the wrap: known without any NTT.
    x = np.zeros(made.degree, dtype=np.int64)
    x[1] = 1
    points = made.to_ntt(residues.from_signed(ramp.reshape(1, -1), made.modulus))
    product = residues.to_signed(Multiplier(made, x).times(points)[0], made.modulus)
    if not np.array_equal(product, np.concatenate([-ramp[-1:], ramp[:-1]])):
        raise BackendError("a known product is another one")
    # What a site and the key holder multiply with, beside SEAL: full words, and secrets of both.
    words = np.frombuffer(hashlib.shake_256(b"self-test").digest(9 * made.degree), dtype=np.uint8)
    points = words[made.degree :].view("<u8") % np.uint64(made.modulus)
    for largest in (1, MAX_SITES):
        secret = words[: made.degree].astype(np.int64) % (2 * largest + 1) - largest
        expected = Multiplier(made, secret).times(made.to_ntt(points[np.newaxis]))
        product = ExactMultiplier(secret, made.modulus).times(points[np.newaxis])
        if not np.array_equal(product % made.modulus, expected.astype(np.int64)):
            raise BackendError("NumPy's product of two polynomials is not SEAL's")


def _self_test_encryption(
    made: Context, coefficients: Residues, expected: npt.NDArray[np.int64]
) -> None:
    holder = KeyHolder(made)
    total = Encryptor(made, holder.material).encrypt(coefficients)
    residues.add(total[0], total[1], made.modulus)
    opened = residues.to_signed(holder.decrypt(total[:1]), made.modulus)
    bound = made.parameters.noise_bound(2)
    if np.abs(opened[0] - expected).max() > bound:
        raise BackendError("a known sum decrypts to another one")


def _pack_key(polynomials: Residues, parameters: ParameterSet) -> bytes:
    primes = parameters.coeff_modulus
    rows = polynomials.reshape(2, len(primes), -1)
    return b"".join(residues.pack(rows[:, i], prime) for i, prime in enumerate(primes))


def _unpack_key(material: bytes, parameters: ParameterSet) -> Residues:
    primes = parameters.coeff_modulus
    degree = parameters.poly_modulus_degree
    rows = np.empty((2, len(primes), degree), dtype=np.uint64)
    start = 0
    try:
        for i, prime in enumerate(primes):
            size = residues.packed_size(2 * degree, prime)
            part = residues.unpack(material[start : start + size], 2 * degree, prime)
            rows[:, i] = part.reshape(2, degree)
            start += size
    except AggregationError:
        raise MessageError("the public key is not valid") from None
    if start != len(material):
        raise MessageError("the public key has another length")
    return rows.reshape(-1, degree)
