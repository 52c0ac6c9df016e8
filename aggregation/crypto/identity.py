"""Ed25519 identities: who signed what.

A party's identity is a key pair it makes once. Others pin its public half, by fingerprint, before
they take part in a round with it; a name alone means nothing.

`parties.workspace` generates and saves one for each party and loads it again. `protocol.messages`
signs and verifies with it, and `protocol.journal_heads` signs a head.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aggregation.crypto import sealed_key
from aggregation.errors import IdentityError, IdentityUnavailable, SignatureError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PREFIX: Final = "ed25519:"
_TITLE: Final = "Identity: "  # explanatory text before the PEM block, as RFC 7468 allows
# What is so until somebody changes the path or its rights; all else is of disk and descriptors.
_OF_THE_PATH: Final = frozenset(
    {errno.ENOENT, errno.EEXIST, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR,
     errno.ELOOP, errno.ENAMETOOLONG}
)  # fmt: skip
_MAX_FILE: Final = 16 * 1024  # bytes


class PublicIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A party's name and public key.

    Attributes:
        name: 1 to 64 of letters, digits, dot, underscore and hyphen; starts with one of the first
            two.
        key: Raw Ed25519 public key, 32 bytes.
    """

    name: str
    key: bytes

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise IdentityError("a party's name must be 1 to 64 letters, digits and . _ -")
        if len(self.key) != 32:
            raise IdentityError(f"a public key has 32 bytes, not {len(self.key)}")

    @property
    def fingerprint(self) -> str:
        """The word that people compare: `ed25519:` and the raw key's SHA-256 in hexadecimal."""
        return _PREFIX + hashlib.sha256(self.key).hexdigest()

    @property
    def text(self) -> str:
        """The key for configuration files: `ed25519:` and base64."""
        return _PREFIX + base64.b64encode(self.key).decode("ascii")

    @classmethod
    def parse(cls, name: str, text: str) -> PublicIdentity:
        """Read `text` back.

        Raises:
            IdentityError: Not in that form.
        """
        if not text.startswith(_PREFIX):
            raise IdentityError(f"the public key of {name!r} must start with {_PREFIX!r}")
        try:
            key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError) as error:
            raise IdentityError(f"the public key of {name!r} is not base64") from error
        return cls(name=name, key=key)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature.

        Raises:
            SignatureError: It is not this party's over these bytes.
        """
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, data)
        except (InvalidSignature, ValueError):
            raise SignatureError(f"a message is not signed by {self.name}") from None


class Identity:
    """A party's own key pair. Made by `generate` or `load`; has no useful repr."""

    __slots__ = ("_key", "_public")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = PublicIdentity(
            name=name,
            key=key.public_key().public_bytes(
                serialization.Encoding.Raw, serialization.PublicFormat.Raw
            ),
        )

    def __repr__(self) -> str:
        return f"Identity({self._public.name!r})"

    def __reduce__(self) -> str:
        raise TypeError("an identity is not copied or pickled; use save and load")

    @classmethod
    def generate(cls, name: str) -> Identity:
        """Draw a new key pair.

        Raises:
            IdentityError: The name is not allowed.
        """
        return cls(name, Ed25519PrivateKey.generate())

    @property
    def public(self) -> PublicIdentity:
        """The half that others pin."""
        return self._public

    def sign(self, data: bytes) -> bytes:
        """Returns the Ed25519 signature of `data`, 64 bytes."""
        return self._key.sign(data)

    def save(self, path: str | os.PathLike[str], *, passphrase: str | None = None) -> None:
        """Write the key, readable by its owner only, to a file that must not exist yet.

        Args:
            path: Where.
            passphrase: Seals the key (scrypt, AES-256-GCM). Without one it is PKCS #8 PEM, and
                only the file's mode protects it.

        Raises:
            IdentityError: The file exists or cannot be written, or the passphrase is too short.
        """
        title = f"{_TITLE}{self._public.name}\n".encode("ascii")
        if passphrase is not None:
            pem = sealed_key.seal(self._key.private_bytes_raw(), title, passphrase)
        else:
            pem = self._key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(title + pem)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _kind_of(error)(
                f"cannot write the key file {path}: {error.strerror}",
                hint="Make room; or name a place where this account may write, and no file is yet.",
            ) from error

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        passphrase: str | None = None,
    ) -> Identity:
        """Read a file written by `save`.

        Args:
            path: The PEM file.
            name: The party's name; by default what the file's first line says. A sealed file
                is for one name only.
            passphrase: What a sealed file was sealed with.

        Raises:
            IdentityError: Not such a file, or one that others than its owner may use.
        """
        try:
            with Path(path).open("rb") as file:
                # Of the open file, not of the path: nobody can swap it in between.
                mode = os.fstat(file.fileno()).st_mode
                pem = file.read(_MAX_FILE)
        except OSError as error:
            raise _kind_of(error)(f"cannot read the key file {path}: {error.strerror}") from error
        if not stat.S_ISREG(mode):
            raise IdentityError(f"{path} is not a file")
        first, _, body = pem.partition(b"\n")
        if body.startswith(sealed_key.BEGIN):
            return cls._load_sealed(path, name, first + b"\n", body, passphrase)
        if mode & 0o077:
            raise IdentityError(f"others may use the key file {path}: chmod 600 it")
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise IdentityError(f"{path} holds no private key in PKCS #8 PEM") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(f"{path} holds a key of another kind than Ed25519")
        if name is None:
            title = pem.split(b"\n", 1)[0].decode("ascii", errors="replace")
            if not title.startswith(_TITLE):
                raise IdentityError(f"{path} does not say whose key it is: pass a name")
            name = title.removeprefix(_TITLE)
        return cls(name, key)

    @classmethod
    def _load_sealed(
        cls,
        path: str | os.PathLike[str],
        name: str | None,
        title: bytes,
        body: bytes,
        passphrase: str | None,
    ) -> Identity:
        if passphrase is None:
            raise IdentityError(f"{path} is sealed: pass its passphrase")
        raw = sealed_key.unseal(body, title, passphrase)
        text = title.decode("ascii", errors="replace").strip()
        own = text.removeprefix(_TITLE)
        if not text.startswith(_TITLE) or name not in {None, own}:
            raise IdentityError(f"{path} is the key of another party")
        return cls(own, Ed25519PrivateKey.from_private_bytes(raw))


def _kind_of(error: OSError) -> type[IdentityError]:
    return IdentityError if error.errno in _OF_THE_PATH else IdentityUnavailable
