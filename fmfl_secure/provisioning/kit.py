"""A party's kit: a folder with everything that party needs, and no other party's secret.

    federation.toml     the settings, the same for everyone
    service.toml        how this party's process talks
    members.json        public keys of all parties; membership/ holds the signed lists
    tls/                ca.pem, certificate.pem, key.pem
    operations.token    opens this process's health, metrics and page
    identity.pem        a site's or the decryptor's signing key; a server has two, in
                        coordinator/ and aggregator/
    revoked.pem         at the server: certificates that were revoked
    start.safetensors   at the server: what a run starts from, made where the base model is

A site's kit is its folder of `init` besides: site.toml, storage.key, ledger.sqlite.

A kit travels sealed: AES-256-GCM under a key that scrypt derives from a passphrase.

`provisioning.provision` fills and seals kits, `provisioning.put_answer` fills one from an answer,
and a party's process opens its `Kit` and requires its role.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from fmfl_secure.errors import ServiceError
from fmfl_secure.outside import MALFORMED, MOST_SETTINGS, read_regular

if TYPE_CHECKING:
    from fmfl_secure.parties.membership import MembershipFolder

_MAGIC: Final = b"fmfl-secure kit v1\n"
_SALT, _NONCE = 16, 12  # bytes
_LOG2_N: Final = 17  # 128 MiB, below a second
_MIN_PASSPHRASE: Final = 12  # characters
_MAX_SEALED: Final = 256 << 20  # bytes
_TOKEN_CHARACTERS: Final = 16  # fewest; provision and request draw 43
_DRAW_ANOTHER: Final = "Draw another: openssl rand -hex 32 > {0} && chmod 600 {0}"
_NO_KIT: Final = "Name the .kit file as it was sent, and whole."
# By role: what no other kit has, and what starts its process.
_OWN_FILES: Final = {"site.toml": "site", "custodian.toml": "custodian"}
_COMMANDS: Final = {
    "server": "serve",
    "site": "join",
    "decryptor": "decryptor",
    "custodian": "custodian",
}


@dataclass(frozen=True, slots=True)
class Kit:
    """Paths of a kit.

    Attributes:
        folder: The kit.
    """

    folder: Path

    @property
    def federation_file(self) -> Path:
        """Path of the federation's settings."""
        return self.folder / "federation.toml"

    @property
    def service_file(self) -> Path:
        """Path of this party's own `service.toml`."""
        return self.folder / "service.toml"

    @property
    def tls(self) -> Path:
        """Certificates and the key for TLS."""
        return self.folder / "tls"

    @property
    def certificate(self) -> Path:
        """Path of its own certificate, PEM."""
        return self.tls / "certificate.pem"

    @property
    def revocations(self) -> Path:
        """At the server: the authority's revocation list."""
        return self.folder / "revoked.pem"

    @property
    def membership(self) -> MembershipFolder:
        """Who belongs to the federation, as this party holds it."""
        # On first use: it brings the signatures, which a health check can do without.
        from fmfl_secure.parties.membership import MembershipFolder  # noqa: PLC0415

        return MembershipFolder(self.folder)

    @property
    def role(self) -> str:
        """Whose kit it is, by what is in it: one of `certificates.ROLES`.

        Raises:
            ServiceError: It is nobody's.
            AggregationError: Its key cannot be read.
        """
        from aggregation import Identity  # noqa: PLC0415 - a health check can do without
        from fmfl_secure.provisioning import certificates  # noqa: PLC0415

        if (self.folder / "coordinator" / "identity.pem").is_file():
            return certificates.SERVER
        if not (self.folder / "identity.pem").is_file():
            raise ServiceError(
                f"{self.folder} is no party's kit: it has no identity.pem",
                hint="Name the folder that request, provision or unseal made.",
            )
        for file, role in _OWN_FILES.items():
            if (self.folder / file).is_file():
                return role
        name = Identity.load(self.folder / "identity.pem").public.name
        if name == certificates.DECRYPTOR:
            return certificates.DECRYPTOR
        raise ServiceError(
            f"the kit of {name} has none of {', '.join(_OWN_FILES)}",
            hint=f"Put that file back into {self.folder}, as request or provision made it.",
        )

    def require(self, role: str) -> None:
        """Require that it is the kit of a role.

        Raises:
            ServiceError: It is another's, or nobody's; says which, and which command it is for.
            AggregationError: Its key cannot be read.
        """
        found = self.role
        if found != role:
            raise ServiceError(
                f"{self.folder} is a {found}'s kit, and a {role}'s is needed here",
                hint=f"Run its own command: fmfl-secure {_COMMANDS[found]} {self.folder}",
            )

    def operations_token(self) -> str:
        """The secret that opens health, metrics and page.

        Raises:
            ServiceError: It is missing, others may read it, or it is so short that anybody may
                guess it: an empty one would open the port to everybody.
        """
        path = self.folder / "operations.token"
        try:
            if path.is_file() and path.stat().st_mode & 0o077:
                raise ServiceError(f"others may read {path}", hint=f"chmod 600 {path}")
            told = read_regular(path, most_bytes=MOST_SETTINGS)
        except OSError as error:
            raise ServiceError(
                f"cannot read {path}: {error.strerror}", hint=_DRAW_ANOTHER.format(path)
            ) from error
        token = told.decode("ascii", errors="replace").strip()
        if not re.fullmatch(rf"[!-~]{{{_TOKEN_CHARACTERS},}}", token):
            raise ServiceError(
                f"{path} holds no token: {_TOKEN_CHARACTERS} visible characters at least",
                hint=_DRAW_ANOTHER.format(path),
            )
        return token


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    data: bytes


def seal_kit(folder: Path, passphrase: str) -> bytes:
    """Seal a kit's files under a passphrase.

    Raises:
        ServiceError: The passphrase is too short, or the kit too large.
    """
    if len(passphrase) < _MIN_PASSPHRASE:
        raise ServiceError(f"a kit's passphrase needs at least {_MIN_PASSPHRASE} characters")
    files = [
        _File(path.relative_to(folder).as_posix(), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    head = _MAGIC + bytes([_LOG2_N]) + os.urandom(_SALT)
    nonce = os.urandom(_NONCE)
    sealed = AESGCM(_key(head, passphrase)).encrypt(nonce, msgspec.msgpack.encode(files), head)
    if len(head) + len(nonce) + len(sealed) > _MAX_SEALED:
        raise ServiceError(
            f"the kit in {folder} is larger than the {_MAX_SEALED} bytes that are opened",
            hint="Take the largest file out, a server's start.safetensors, and send it beside: it "
            "is public.",
        )
    return head + nonce + sealed


def open_kit(data: bytes, passphrase: str, folder: Path) -> list[str]:
    """Open a sealed kit into a new folder that only its owner can read.

    Returns:
        The files that were written.

    Raises:
        ServiceError: Another form, another passphrase, or the folder exists.
    """
    size = len(_MAGIC) + 1 + _SALT
    head, rest = data[:size], data[size:]
    if len(data) > _MAX_SEALED or len(rest) <= _NONCE or not head.startswith(_MAGIC):
        raise ServiceError("this is no sealed kit", hint=_NO_KIT)
    if head[len(_MAGIC)] != _LOG2_N:
        raise ServiceError("this kit was sealed at another cost than this version's")
    try:
        plain = AESGCM(_key(head, passphrase)).decrypt(rest[:_NONCE], rest[_NONCE:], head)
        files = msgspec.msgpack.decode(plain, type=list[_File])
    except InvalidTag:
        raise ServiceError(
            "the passphrase does not open this kit, or the kit was changed",
            hint="Name the passphrase that was told for this party, or ask for the kit again.",
        ) from None
    except MALFORMED as error:
        raise ServiceError("this is no sealed kit", hint=_NO_KIT) from error
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise ServiceError("a file of this kit would lie outside of it")
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise ServiceError(
            f"{folder} exists; a kit is opened once",
            hint="Keep the ledger that is there: one that a kit brings has forgotten what was "
            "spent since.",
        ) from None
    for file in files:
        write_private(folder / file.path, file.data)
    return [file.path for file in files]


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, and its folders likewise; durable."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _key(head: bytes, passphrase: str) -> bytes:
    kdf = Scrypt(salt=head[-_SALT:], length=32, n=1 << head[len(_MAGIC)], r=8, p=1)
    return kdf.derive(passphrase.encode())
