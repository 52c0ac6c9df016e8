"""Sealed boxes and key agreement: X25519 and ML-KEM-768 together.

Both must be broken to open what was recorded. The two secrets, both ciphertexts and the
recipient's key go into one HKDF, so neither half can be exchanged or dropped (as in X-Wing and
HPKE). ML-KEM and X25519 come from `cryptography`; nothing here is a primitive.

A box is of constant length over its content: 32 bytes of X25519, 1,088 of ML-KEM-768, then
AES-256-GCM. Its key is used once, so its nonce is constant.

`crypto.pairwise` agrees on the secrets that two sites share; `roles.site_secrets` and
`roles.site_shares` seal what one party alone may read. A box key is revealed as the proof in
`protocol.accusation` or at the end of a rehearsal, and is of no use after that.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aggregation.errors import MessageError

X25519_SIZE: Final = 32  # bytes of a public key and of a secret
KEM_PUBLIC_SIZE: Final = 1184  # bytes, FIPS 203
KEM_CIPHERTEXT_SIZE: Final = 1088  # bytes, FIPS 203
PUBLIC_SIZE: Final = X25519_SIZE + KEM_PUBLIC_SIZE
PRIVATE_SIZE: Final = X25519_SIZE + 64  # X25519's scalar and ML-KEM's seed, FIPS 203
TAG_SIZE: Final = 16  # bytes, AES-GCM
OVERHEAD: Final = X25519_SIZE + KEM_CIPHERTEXT_SIZE + TAG_SIZE

# The coordinates of every point of order 1, 2, 4 and 8 on Curve25519 and its twist: with these, and
# with no others, an agreement gives zeros (RFC 7748, 6.1 and 7).
_FIELD: Final = (1 << 255) - 19
_LOW_ORDER: Final = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)

_LABEL: Final = b"fmfl-secure/aggregation/v1/box"
_NONCE: Final = bytes(12)


def check_public(key: bytes, kem: bytes = b"") -> None:
    """Refuse public keys with which nobody can agree, while it is known whose they are.

    Args:
        key: X25519, 32 bytes.
        kem: ML-KEM-768, 1,184 bytes; may be empty.

    Raises:
        MessageError: The X25519 key has another length or is of low order, or the ML-KEM key does
            not decode (FIPS 203, 7.2).
    """
    if len(key) != X25519_SIZE:
        raise MessageError(f"an X25519 key has {len(key)} bytes, expected {X25519_SIZE}")
    # As X25519 reads it: without the top bit, modulo the prime.
    if int.from_bytes(key, "little") % (1 << 255) % _FIELD in _LOW_ORDER:
        raise MessageError("an X25519 key is of low order")
    if kem:
        _decode(kem)


def _decode(public: bytes) -> MLKEM768PublicKey:
    try:
        return MLKEM768PublicKey.from_public_bytes(public)
    except ValueError:
        raise MessageError("an ML-KEM key is not valid") from None


class KemKey:
    """A single-use ML-KEM-768 key pair."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes | None = None) -> None:
        self._key = (
            MLKEM768PrivateKey.generate()
            if seed is None
            else MLKEM768PrivateKey.from_seed_bytes(seed)
        )
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "KemKey(secret)"

    def reveal(self) -> bytes:
        """The private key, as its seed of 64 bytes: proof of what it opens, and its end."""
        return self._key.private_bytes_raw()

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not copied or stored")

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The secret in a ciphertext; 32 bytes.

        Raises:
            MessageError: Not a ciphertext by its length. Any other altered one gives a secret
                that nobody else has (implicit rejection).
        """
        try:
            return self._key.decapsulate(ciphertext)
        except ValueError:
            raise MessageError("an ML-KEM ciphertext has another length") from None


def encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """Make a secret for the holder of an ML-KEM-768 key.

    Returns:
        The secret, 32 bytes, and its ciphertext, 1,088 bytes.

    Raises:
        MessageError: Not a valid key.
    """
    return _decode(public).encapsulate()


def agree(key: X25519PrivateKey, other: bytes) -> bytes:
    """X25519; 32 bytes.

    Raises:
        MessageError: The public key has another length or is of low order.
    """
    try:
        return key.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise MessageError("an X25519 key is not valid or of low order") from None


class BoxKey:
    """The recipient's key pair of one attempt: what `seal_box` makes, only this opens."""

    __slots__ = ("_kem", "_key", "public")

    def __init__(self, revealed: bytes | None = None) -> None:
        """Draw a key pair, or take one that its owner revealed.

        Raises:
            MessageError: What was revealed is no private key.
        """
        if revealed is None:
            self._key, self._kem = X25519PrivateKey.generate(), KemKey()
        elif len(revealed) == PRIVATE_SIZE:
            self._key = X25519PrivateKey.from_private_bytes(revealed[:X25519_SIZE])
            self._kem = KemKey(revealed[X25519_SIZE:])
        else:
            raise MessageError(f"a private box key has {len(revealed)} bytes")
        self.public = self._key.public_key().public_bytes_raw() + self._kem.public

    def __repr__(self) -> str:
        return "BoxKey(secret)"

    def reveal(self) -> bytes:
        """The private key, `PRIVATE_SIZE` bytes: proof of what it opens, and its end."""
        return self._key.private_bytes_raw() + self._kem.reveal()

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not copied or stored")

    def open(self, box: bytes, associated: bytes) -> bytes:
        """Open a box.

        Args:
            box: What came off the wire.
            associated: What it must have been sealed with.

        Raises:
            MessageError: Not a box for this key and these data.
        """
        if len(box) < OVERHEAD:
            raise MessageError("a sealed box is too short")
        sender, rest = box[:X25519_SIZE], box[X25519_SIZE:]
        ciphertext, sealed = rest[:KEM_CIPHERTEXT_SIZE], rest[KEM_CIPHERTEXT_SIZE:]
        secret = agree(self._key, sender) + self._kem.decapsulate(ciphertext)
        key = _box_key(secret, sender, ciphertext, self.public)
        try:
            return AESGCM(key).decrypt(_NONCE, sealed, associated)
        except InvalidTag:
            raise MessageError("a sealed box does not open") from None


def seal_box(public: bytes, content: bytes, associated: bytes) -> bytes:
    """Seal content for the holder of a box key.

    Args:
        public: The recipient's `BoxKey.public`, 1,216 bytes.
        content: What to seal.
        associated: What the box is bound to; not in it.

    Returns:
        `OVERHEAD` bytes more than the content.

    Raises:
        MessageError: The key is not valid.
    """
    if len(public) != PUBLIC_SIZE:
        raise MessageError(f"a box key has {len(public)} bytes, expected {PUBLIC_SIZE}")
    own = X25519PrivateKey.generate()
    sender = own.public_key().public_bytes_raw()
    kem_secret, ciphertext = encapsulate(public[X25519_SIZE:])
    secret = agree(own, public[:X25519_SIZE]) + kem_secret
    key = _box_key(secret, sender, ciphertext, public)
    return sender + ciphertext + AESGCM(key).encrypt(_NONCE, content, associated)


def _box_key(secret: bytes, sender: bytes, ciphertext: bytes, public: bytes) -> bytes:
    info = _LABEL + hashlib.sha256(sender + ciphertext + public).digest()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)
