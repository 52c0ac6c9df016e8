"""A federation's certificate authority in its folder: what it issued, renewed and revoked.

DIR/authority/      ca.pem, ca.key, issued.json, revoked.pem; with requests/ and certificates/
                    where parties drew their own keys

`provisioning.provision` and `provisioning.certify` open an `Authority` in their output folder;
`cli.members` lists, renews and revokes what it issued.
"""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from fmfl_secure.errors import ServiceError
from fmfl_secure.outside import MALFORMED
from fmfl_secure.provisioning.certificates import (
    PARTY_DAYS,
    RENEWED_AHEAD,
    Issued,
    certify_key,
    end_of,
    federation_of,
    issue,
    new_authority,
    revocation_list,
    serial_of,
    signing_key,
)
from fmfl_secure.provisioning.kit import Kit, write_private
from fmfl_secure.storage.files import write_files


class Certified(msgspec.Struct, forbid_unknown_fields=True):
    """A certificate that the authority issued.

    Attributes:
        name: Of the party.
        role: Its role.
        serial: Serial number, in hexadecimal: larger than JSON's numbers.
        hosts: Names that a server is reached by.
        revoked: Whether it was revoked.
        expires: The day it ends, as `2027-12-31`; empty for those of 0.1.0, which noted none.
    """

    name: str
    role: str
    serial: str
    hosts: tuple[str, ...] = ()
    revoked: bool = False
    expires: str = ""

    def __post_init__(self) -> None:
        int(self.serial, 16)
        if self.expires:
            dt.date.fromisoformat(self.expires)

    @property
    def state(self) -> str:
        """`revoked`, `ended`, `due` for renewal, or `valid`."""
        if self.revoked:
            return "revoked"
        if not self.expires:
            return "valid"
        left = dt.date.fromisoformat(self.expires) - dt.datetime.now(dt.UTC).date()
        return "ended" if left.days < 0 else "due" if left <= RENEWED_AHEAD else "valid"


@dataclass(frozen=True, slots=True)
class Authority:
    """A federation's certificate authority in its folder.

    Attributes:
        folder: `DIR/authority`.
        federation: Name of the federation.
    """

    folder: Path
    federation: str

    @classmethod
    def open(cls, folder: Path, federation: str, created: list[str]) -> Authority:
        """The authority, made if there is none.

        Raises:
            ServiceError: There was one, and its key is gone.
        """
        authority = cls(folder, federation)
        if not (folder / "ca.key").exists():
            # Without an entry none was made, or it died before it had issued anything.
            if (folder / "issued.json").exists() and authority.issued():
                raise ServiceError(
                    f"the authority in {folder} has issued certificates, and its ca.key is gone",
                    hint="Put it back: no other is made in its place, whose certificates nobody "
                    "of this federation would take.",
                )
            made = new_authority(federation)
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_files(folder, {"ca.pem": made.certificate, "issued.json": b"[]\n"})
            write_private(folder / "ca.key", made.key)
            created.append(f"certificate authority {folder}: keep it to yourself")
        return authority

    @property
    def pair(self) -> Issued:
        """Its certificate and key.

        Raises:
            ServiceError: They are not here, or are no certificate and no key.
        """
        try:
            made = Issued(
                (self.folder / "ca.pem").read_bytes(), (self.folder / "ca.key").read_bytes()
            )
        except OSError as error:
            raise ServiceError(
                f"the authority's key is not in {self.folder}: {error.strerror}",
                hint=f"Put {self.folder} back as it was.",
            ) from error
        federation_of(made.certificate)
        signing_key(made)
        return made

    def issued(self) -> list[Certified]:
        """Everything it issued, in order.

        Raises:
            ServiceError: Its list is not here, or is none.
        """
        path = self.folder / "issued.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[Certified])
        except (OSError, *MALFORMED) as error:
            told = error.strerror if isinstance(error, OSError) else error
            raise ServiceError(
                f"{path} is no list of what the authority issued: {told}",
                hint="Put it back: without it nobody knows what was issued and revoked.",
            ) from error

    def certify(
        self, role: str, name: str, *, hosts: tuple[str, ...] = (), days: int = PARTY_DAYS
    ) -> Issued:
        """Issue a certificate and note it."""
        made = issue(
            self.pair, federation=self.federation, role=role, name=name, hosts=hosts, days=days
        )
        self._note_issued(made.certificate, role, name, hosts)
        return made

    def certify_key(
        self,
        key: ec.EllipticCurvePublicKey,
        role: str,
        name: str,
        *,
        hosts: tuple[str, ...] = (),
        days: int = PARTY_DAYS,
    ) -> bytes:
        """Issue a certificate for a key that its owner drew, and note it; PEM."""
        made = certify_key(
            self.pair, key, federation=self.federation, role=role, name=name, hosts=hosts, days=days
        )
        self._note_issued(made, role, name, hosts)
        return made

    def revoke(self, name: str, *, keep_last: bool) -> int:
        """Revoke a party's certificates.

        Args:
            name: The party.
            keep_last: Leave the newest one valid.

        Returns:
            How many were revoked.

        Raises:
            ServiceError: It has none that could be.
        """
        issued = self.issued()
        own = [c for c in issued if c.name == name and not c.revoked]
        chosen = own[:-1] if keep_last else own
        if not chosen:
            raise ServiceError(
                f"{name} has no certificate to revoke{' but its last' if own else ''}",
                hint="fmfl-secure certificates list DIR names the parties and what they have.",
            )
        _ = self.pair  # a list that cannot be signed afterwards would not say it
        for certified in chosen:
            certified.revoked = True
        self._note(issued)
        return len(chosen)

    def revocations(self) -> bytes:
        """Makes the signed revocation list."""
        return revocation_list(self.pair, [int(c.serial, 16) for c in self.issued() if c.revoked])

    def _note_issued(
        self, certificate: bytes, role: str, name: str, hosts: tuple[str, ...]
    ) -> None:
        serial = f"{serial_of(certificate):x}"
        expires = f"{end_of(certificate):%Y-%m-%d}"
        self._note([*self.issued(), Certified(name, role, serial, hosts, expires=expires)])

    def _note(self, issued: list[Certified]) -> None:
        text = msgspec.json.format(msgspec.json.encode(issued), indent=2) + b"\n"
        write_files(self.folder, {"issued.json": text})


def answers_requests(output: Path) -> bool:
    """Whether the parties of a folder's authority drew their own keys."""
    return (output / "authority" / "requests").exists()


def keys_were_drawn(output: Path) -> bool:
    """Whether the parties' keys of a folder were drawn where it was provisioned."""
    return (output / "authority" / "ca.key").exists() and not answers_requests(output)


def write_tls(folder: Path, authority: Authority, made: Issued) -> None:
    """Key first: who watches the certificate finds its key beside it."""
    files = {"ca.pem": authority.pair.certificate}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = folder / f".key.{secrets.token_hex(8)}"
    write_private(beside, made.key)
    beside.replace(folder / "key.pem")
    write_files(folder, files | {"certificate.pem": made.certificate})


def renew(output: Path, name: str, *, days: int = PARTY_DAYS) -> Path:
    """Issue a new certificate and key to a party. The old one stays valid until it is revoked.

    Returns:
        The `tls` folder to put in place of the party's: in its kit if that is here.

    Raises:
        ServiceError: The authority never issued one to it, or is not here.
    """
    authority = _authority(output)
    last = [c for c in authority.issued() if c.name == name]
    if not last:
        raise ServiceError(
            f"{name} has no certificate of this authority",
            hint="fmfl-secure certificates list DIR names the parties and what they have.",
        )
    if answers_requests(output):
        raise ServiceError(
            f"{name} draws its own keys",
            hint="At the party: fmfl-secure request FOLDER --renew. Then here: "
            "fmfl-secure provision federation.toml --requests DIR.",
        )
    made = authority.certify(last[-1].role, name, hosts=last[-1].hosts, days=days)
    kit = output / name
    folder = kit / "tls" if kit.exists() else output / "renewed" / name / "tls"
    write_tls(folder, authority, made)
    return folder


def revoke(output: Path, name: str, *, keep_last: bool = False) -> Path:
    """Revoke a party's certificates.

    Returns:
        The new revocation list, to put in place of the server's `revoked.pem`: there already if
        the server's kit is here.

    Raises:
        ServiceError: It has none, or the authority is not here.
    """
    authority = _authority(output)
    authority.revoke(name, keep_last=keep_last)
    signed = authority.revocations()
    write_files(authority.folder, {"revoked.pem": signed})
    if (output / "server").exists():
        write_files(output / "server", {"revoked.pem": signed})
        return Kit(output / "server").revocations
    return authority.folder / "revoked.pem"


def issued(output: Path) -> list[Certified]:
    """Every certificate that a folder's authority issued.

    Raises:
        ServiceError: The authority is not here.
    """
    return _authority(output).issued()


def _authority(output: Path) -> Authority:
    folder = output / "authority"
    if not (folder / "ca.pem").exists():
        raise ServiceError(
            f"there is no authority in {output}",
            hint="Name the folder that provision wrote, with authority/ca.pem in it.",
        )
    return Authority(folder, federation_of((folder / "ca.pem").read_bytes()))
