"""The interface of a protocol suite, so that the protocol need not know which one it runs.

A suite turns coefficients modulo q into residues and back. Everything else (packing, masks, the
wire, signatures, the order of steps) is the same for all suites, but for one difference: in the
collective suite each site also hands the decryptor its masked secret. The module that knows
TenSEAL is imported only where a key or an encryption is needed: the aggregator never loads it.
"""

from __future__ import annotations

import importlib
from contextlib import suppress
from importlib import metadata
from types import ModuleType
from typing import Final, Protocol

from aggregation.ckks.collective import CollectiveEncryptor, CollectiveKeyHolder
from aggregation.ckks.parameters import COLLECTIVE, ParameterSet
from aggregation.ckks.residues import Residues, packed_size
from aggregation.crypto import sealed_box
from aggregation.errors import BackendError, BackendUnavailable, MessageError

_VERSION: Final = "0.3.18"  # of TenSEAL; see `_ckks`


class Encryptor(Protocol):
    """A site's side of a suite: encrypts its chunks, each once."""

    def encrypt(self, coefficients: Residues, first: int = 0) -> Residues:
        """Encrypt chunks `first` and following, shape (n, N), modulo q, to (n, P, N)."""
        ...


class KeyHolder(Protocol):
    """The decryptor's side of a suite for one attempt."""

    material: bytes  # what it announces to the sites; public

    def decrypt(self, ciphertexts: Residues, first: int = 0) -> Residues:
        """Open chunks `first` and following, shape (n, P, N), to (n, N), modulo q."""
        ...

    def destroy(self) -> None:
        """Forgets everything that is secret."""
        ...


def new_key(parameters: ParameterSet) -> KeyHolder:
    """Draw the fresh key of one attempt."""
    ckks = _backend()
    if parameters.suite == COLLECTIVE:
        return CollectiveKeyHolder(ckks, parameters)
    holder: KeyHolder = ckks.KeyHolder(ckks.context(parameters))
    return holder


def encryptor(parameters: ParameterSet, material: bytes, transcript: bytes = b"") -> Encryptor:
    """Set a site's encryption up.

    Args:
        parameters: The plan's set.
        material: What the decryptor announced.
        transcript: The attempt's transcript hash, which fixes a collective suite's public half.

    Raises:
        MessageError: The material is not a valid public key.
        BackendError: The CKKS library cannot be used here.
    """
    ckks = _backend()
    if parameters.suite == COLLECTIVE:
        return CollectiveEncryptor(ckks, parameters, transcript)
    made: Encryptor = ckks.Encryptor(ckks.context(parameters), material)
    return made


def check_material(parameters: ParameterSet, material: bytes) -> None:
    """Refuse material of another length, or that nobody can seal for; needs no CKKS library.

    Raises:
        MessageError: Another length, or in the collective suite keys that are none.
    """
    expected = material_size(parameters)
    if len(material) != expected:
        raise MessageError(f"the announced key has {len(material)} bytes, expected {expected}")
    if parameters.suite == COLLECTIVE:
        size = sealed_box.X25519_SIZE
        sealed_box.check_public(material[:size], material[size:])


def material_size(parameters: ParameterSet) -> int:
    """Bytes of the announced material."""
    if parameters.suite == COLLECTIVE:
        return sealed_box.PUBLIC_SIZE
    return sum(
        packed_size(2 * parameters.poly_modulus_degree, prime) for prime in parameters.coeff_modulus
    )


def _backend() -> ModuleType:
    try:
        from aggregation.ckks import _ckks  # noqa: PLC0415 - only roles that encrypt or decrypt need TenSEAL
    except ImportError as error:
        # Python takes a folder that it has no memory to list for an empty one, and remembers that.
        importlib.invalidate_caches()
        with suppress(metadata.PackageNotFoundError):
            if metadata.version("tenseal") == _VERSION:
                raise BackendUnavailable(f"TenSEAL cannot be loaded now: {error}") from error
        raise BackendError(f"TenSEAL {_VERSION} is needed to encrypt or decrypt") from error
    return _ckks
