"""From a federation's settings to one kit a party, and to what becomes of certificates later.

    DIR/authority/      ca.pem, ca.key, issued.json: whoever provisions keeps it, offline
    DIR/server/         a kit each; see kit.py
    DIR/decryptor/
    DIR/SITE/

What exists is left alone, so that a site that was added to the settings gets its kit by running it
again.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from aggregation import Identity
from fmfl_secure.atomic import write_files
from fmfl_secure.config import load_federation
from fmfl_secure.errors import ConfigError
from fmfl_secure.membership import MembershipFolder, next_list
from fmfl_secure.service.certificates import (
    DECRYPTOR,
    PARTY_DAYS,
    SERVER,
    SITE,
    Issued,
    federation_of,
    issue,
    new_authority,
    revocation_list,
    serial_of,
)
from fmfl_secure.service.errors import ServiceError
from fmfl_secure.service.kit import Kit, seal_kit, write_private
from fmfl_secure.service.templates import client_toml, server_toml
from fmfl_secure.templates import site_toml
from fmfl_secure.workspace import AGGREGATOR, COORDINATOR, Members, Workspace, initialise

DEFAULT_URL: Final = "https://localhost:8443"


class Certified(msgspec.Struct, forbid_unknown_fields=True):
    """A certificate that the authority issued.

    Attributes:
        name: Of the party.
        role: Its role.
        serial: Serial number, in hexadecimal: larger than JSON's numbers.
        hosts: Names that a server is reached by.
        revoked: Whether it was revoked.
    """

    name: str
    role: str
    serial: str
    hosts: tuple[str, ...] = ()
    revoked: bool = False


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
        """The authority, made if there is none."""
        authority = cls(folder, federation)
        if not (folder / "ca.key").exists():
            made = new_authority(federation)
            write_private(folder / "ca.key", made.key)
            write_files(folder, {"ca.pem": made.certificate, "issued.json": b"[]\n"})
            created.append(f"certificate authority {folder}: keep it to yourself")
        return authority

    @property
    def pair(self) -> Issued:
        """Its certificate and key.

        Raises:
            ServiceError: They are not here.
        """
        try:
            return Issued(
                (self.folder / "ca.pem").read_bytes(), (self.folder / "ca.key").read_bytes()
            )
        except OSError as error:
            raise ServiceError(
                f"the authority's key is not in {self.folder}: {error.strerror}"
            ) from error

    def issued(self) -> list[Certified]:
        """Everything it issued, in order."""
        return msgspec.json.decode((self.folder / "issued.json").read_bytes(), type=list[Certified])

    def certify(
        self, role: str, name: str, *, hosts: tuple[str, ...] = (), days: int = PARTY_DAYS
    ) -> Issued:
        """Issue a certificate and note it."""
        made = issue(
            self.pair, federation=self.federation, role=role, name=name, hosts=hosts, days=days
        )
        serial = f"{serial_of(made.certificate):x}"
        self._note([*self.issued(), Certified(name, role, serial, hosts)])
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
            raise ServiceError(f"{name} has no certificate to revoke")
        for certified in chosen:
            certified.revoked = True
        self._note(issued)
        return len(chosen)

    def revocations(self) -> bytes:
        """The signed revocation list."""
        return revocation_list(self.pair, [int(c.serial, 16) for c in self.issued() if c.revoked])

    def _note(self, issued: list[Certified]) -> None:
        text = msgspec.json.format(msgspec.json.encode(issued), indent=2) + b"\n"
        write_files(self.folder, {"issued.json": text})


def provision(
    federation: Path,
    output: Path,
    *,
    url: str = DEFAULT_URL,
    epsilon: float | None = None,
    delta: float | None = None,
    data: str = "data/train.csv",
) -> list[str]:
    """Make the kits that are missing.

    Args:
        federation: Path of `federation.toml`.
        output: Folder for the authority and the kits.
        url: Where sites and decryptor reach the server.
        epsilon: First grant of each new site's ledger; None takes the settings' epsilon.
        delta: The same for delta.
        data: Path of a site's training file from its kit; `{site}` stands for its name.

    Returns:
        What was made, for people to read.

    Raises:
        ConfigError: The settings are wrong.
        ServiceError: A new site cannot be added here.
        PrivacyError: A grant of this epsilon and delta is not possible; nothing was made.
    """
    config = load_federation(federation)
    if config.aggregation.custodians:
        raise ConfigError(
            "aggregation.custodians are parties of runs on one machine; the service has no agent "
            "for them yet",
            hint="Leave them out, or use fmfl-secure run.",
        )
    created: list[str] = []
    taken = {e.name for e in config.sites} & {"authority", SERVER}
    if taken:
        raise ConfigError(f"no site can be named {min(taken)}: a folder of {output} is")
    output.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = Authority.open(output / "authority", config.federation.name, created)
    certified = {c.name for c in authority.issued()}
    missing = [e.name for e in config.sites if e.name not in certified]
    if SERVER in certified and not missing:
        return created
    if SERVER in certified and not (output / SERVER).exists():
        raise ServiceError(
            f"the server's kit is not in {output} any more",
            hint="Bring it back for as long as provisioning takes: it signs the list of members.",
        )
    # Built aside, so that a crash leaves whole kits or none.
    building = output / ".building"
    shutil.rmtree(building, ignore_errors=True)
    workspace = Workspace(building / "workspace")
    workspace.folder.mkdir(parents=True, mode=0o700)
    building.chmod(0o700)
    shutil.copy(federation, workspace.federation_file)
    for name in missing:
        text = site_toml(name, config.federation.min_sites, data.replace("{site}", name))
        write_private(workspace.site(name) / "site.toml", text.encode())
    initialise(workspace.folder, epsilon=epsilon, delta=delta)
    parties = [(SITE, name) for name in missing]
    if SERVER not in certified:
        parties += [(DECRYPTOR, DECRYPTOR), (SERVER, SERVER)]
    for role, name in parties:
        _fill_kit(building / name, role, name, workspace, url=url)
    _sign_members(building, output, missing)
    hosts = tuple(dict.fromkeys([urlsplit(url).hostname or "localhost", "localhost", "127.0.0.1"]))
    for role, name in parties:
        given = hosts if role == SERVER else ()
        _write_tls(building / name / "tls", authority, authority.certify(role, name, hosts=given))
        (building / name).rename(output / name)
        created.append(f"{role} kit {output / name}")
    shutil.rmtree(building)
    if SERVER in certified:
        shutil.copy(federation, output / SERVER / "federation.toml")
        created.append("a new list of members: bring federation.toml to every older kit as well")
    return created


def _fill_kit(kit: Path, role: str, name: str, workspace: Workspace, *, url: str) -> None:
    if role == SITE:
        shutil.copytree(workspace.site(name), kit)
    elif role == DECRYPTOR:
        shutil.copytree(workspace.role(DECRYPTOR), kit)
    else:
        kit.mkdir(mode=0o700)
        for each in (COORDINATOR, AGGREGATOR):
            shutil.copytree(workspace.role(each), kit / each)
    shutil.copy(workspace.federation_file, kit / "federation.toml")
    shutil.copy(workspace.members_file, kit / "members.json")
    text = server_toml(urlsplit(url).port or 443) if role == SERVER else client_toml(url)
    write_private(kit / "service.toml", text.encode())
    write_private(kit / "operations.token", secrets.token_urlsafe(32).encode() + b"\n")
    kit.chmod(0o700)


def _write_tls(folder: Path, authority: Authority, made: Issued) -> None:
    """Key first: who watches the certificate finds its key beside it."""
    files = {"ca.pem": authority.pair.certificate}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = folder / f".key.{secrets.token_hex(8)}"
    write_private(beside, made.key)
    beside.replace(folder / "key.pem")
    write_files(folder, files | {"certificate.pem": made.certificate})


def _sign_members(building: Path, output: Path, missing: list[str]) -> None:
    """The next signed list of members, for the server and for every new site."""
    made = Members.load(Workspace(building / "workspace").members_file)
    new = {name: made.sites[name] for name in missing}
    server = building / SERVER if (building / SERVER).exists() else output / SERVER
    held = MembershipFolder(server)
    last = held.last()
    members = made if last is None else replace(held.members(), sites=held.members().sites | new)
    identity = Identity.load(server / COORDINATOR / "identity.pem", COORDINATOR)
    federation = load_federation(Kit(server).federation_file).federation.name
    following = next_list(identity, last, federation=federation, members=members)
    if last is None:
        held.begin(following)
    else:
        held.approve(following)
    lists = {f"{number:05}.list": message for number, message in enumerate(held.lists(), 1)}
    # The decryptor holds the lists too, and counts the sites of the last that it approved.
    new_kits = [*missing, DECRYPTOR] if last is None else missing
    for name in new_kits:
        write_files(building / name, {"members.json": members.encode()})
        write_files(building / name / "membership", lists)


def seal_kits(output: Path, *, passphrase: Callable[[str], str]) -> list[str]:
    """Seal every kit of a folder into a file beside it, and delete the kit.

    Args:
        output: What `provision` filled.
        passphrase: A kit's, by the party's name.

    Returns:
        The sealed files.

    Raises:
        ServiceError: A passphrase is too short.
    """
    sealed = []
    for folder in sorted(output.iterdir()):
        if folder.name == "authority" or not (folder / "service.toml").exists():
            continue
        path = output / f"{folder.name}.kit"
        write_private(path, seal_kit(folder, passphrase(folder.name)))
        shutil.rmtree(folder)
        sealed.append(str(path))
    return sealed


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
        raise ServiceError(f"{name} has no certificate of this authority")
    made = authority.certify(last[-1].role, name, hosts=last[-1].hosts, days=days)
    kit = output / name
    folder = kit / "tls" if kit.exists() else output / "renewed" / name / "tls"
    _write_tls(folder, authority, made)
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


def remove_site(server: Kit, name: str) -> int:
    """Sign a membership list without a site; a running server goes by it at once.

    Returns:
        Number of the list.

    Raises:
        ConfigError: There is no such site.
    """
    held = server.membership
    members = held.members()
    if name not in members.sites:
        raise ConfigError(f"{name} is not among the members")
    identity = Identity.load(server.folder / COORDINATOR / "identity.pem", COORDINATOR)
    config = load_federation(server.federation_file)
    sites = {n: site for n, site in members.sites.items() if n != name}
    following = next_list(
        identity,
        held.last(),
        federation=config.federation.name,
        members=replace(members, sites=sites),
    )
    held.approve(following)
    return len(held.lists())


def issued(output: Path) -> list[Certified]:
    """Every certificate that a folder's authority issued.

    Raises:
        ServiceError: The authority is not here.
    """
    return _authority(output).issued()


def _authority(output: Path) -> Authority:
    folder = output / "authority"
    if not (folder / "ca.pem").exists():
        raise ServiceError(f"there is no authority in {output}")
    return Authority(folder, federation_of((folder / "ca.pem").read_bytes()))
