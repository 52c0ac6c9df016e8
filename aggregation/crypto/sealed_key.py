"""A private key at rest under a passphrase: scrypt, then AES-256-GCM.

    Identity: site-a
    -----BEGIN SEALED ED25519 KEY-----
    base64 of: version (1 byte), log2 n (1), salt (16), nonce (12), sealed raw key (32 + 16)
    -----END SEALED ED25519 KEY-----

The first line is authenticated with the key, so a file cannot be given to another name. The cost
of scrypt is stored, and capped before it is paid.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from aggregation.errors import IdentityError

BEGIN: Final = b"-----BEGIN SEALED ED25519 KEY-----"
END: Final = b"-----END SEALED ED25519 KEY-----"
MIN_PASSPHRASE: Final = 8  # characters
_VERSION: Final = 1
_LOG2_N: Final = 16  # 64 MiB, about 0.2 s
_MAX_LOG2_N: Final = 20  # 1 GiB
_SALT, _NONCE = 16, 12  # bytes
_SIZE: Final = 2 + _SALT + _NONCE + 32 + 16


def seal(raw: bytes, title: bytes, passphrase: str) -> bytes:
    """Seal a raw 32-byte key; the lines that follow the title.

    Raises:
        IdentityError: The passphrase is too short.
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise IdentityError(f"a passphrase needs at least {MIN_PASSPHRASE} characters")
    head = bytes([_VERSION, _LOG2_N]) + os.urandom(_SALT)
    nonce = os.urandom(_NONCE)
    sealed = AESGCM(_key(head, passphrase)).encrypt(nonce, raw, title + head)
    return b"\n".join((BEGIN, base64.b64encode(head + nonce + sealed), END, b""))


def unseal(body: bytes, title: bytes, passphrase: str) -> bytes:
    """Open what `seal` made.

    Raises:
        IdentityError: Another form, another passphrase, or a file that was changed.
    """
    lines = body.strip().split(b"\n")
    if len(lines) != 3 or lines[0] != BEGIN or lines[2] != END:
        raise IdentityError("a sealed key has another form")
    try:
        data = base64.b64decode(lines[1], validate=True)
    except binascii.Error as error:
        raise IdentityError("a sealed key is not base64") from error
    if len(data) != _SIZE or data[0] != _VERSION or not 10 <= data[1] <= _MAX_LOG2_N:
        raise IdentityError("a sealed key has another version, size or cost")
    head, nonce = data[: 2 + _SALT], data[2 + _SALT : 2 + _SALT + _NONCE]
    try:
        return AESGCM(_key(head, passphrase)).decrypt(
            nonce, data[2 + _SALT + _NONCE :], title + head
        )
    except InvalidTag:
        raise IdentityError("the passphrase does not open this key, or it was changed") from None


def _key(head: bytes, passphrase: str) -> bytes:
    kdf = Scrypt(salt=head[2:], length=32, n=1 << head[1], r=8, p=1)
    return kdf.derive(passphrase.encode())
