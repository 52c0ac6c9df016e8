"""A party draws its own keys, in its own folder, and asks for what goes beside them.

FOLDER/              becomes the party's kit once the answer is beside its keys
  NAME.request       what to send; the rest stays
  renewal/           new keys and their request, until they are answered

`fmfl-secure request` (`cli.keys`) calls `request_keys`, or later `renew_keys`;
`provisioning.put_answer` then finds by `own_request` which of them an answer is to.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec

from aggregation import Identity
from fmfl_secure.errors import ConfigError, ServiceError
from fmfl_secure.outside import MOST_DOCUMENT, read_regular
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR
from fmfl_secure.provisioning.certificates import (
    CUSTODIAN,
    DECRYPTOR,
    SERVER,
    SITE,
    key_pem,
    new_key,
)
from fmfl_secure.provisioning.key_request import SUFFIX, ReadRequest, read_request, write_request
from fmfl_secure.provisioning.kit import write_private
from fmfl_secure.settings.federation import FederationConfig, load_federation, load_site
from fmfl_secure.settings.templates import custodian_toml, site_toml
from privacy import Ledger

Role = Literal["server", "site", "decryptor", "custodian"]
RENEWAL: Final = "renewal"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that lies in a party's folder.

    Attributes:
        path: Its file.
        read: What it says.
    """

    path: Path
    read: ReadRequest


def request_keys(
    folder: Path,
    federation: Path,
    *,
    role: Role,
    name: str = "",
    url: str = "",
    data: str = "data/train.csv",
) -> Asked:
    """Draw a party's keys in a new folder and sign a request.

    A site's ledger is made with its identity, empty: nothing is granted here.

    Args:
        folder: The party's; made here, and never for a second time.
        federation: Path of `federation.toml`.
        role: The party's.
        name: A site's or a custodian's.
        url: Where a server is reached.
        data: Path of a site's training file, from the folder.

    Raises:
        ConfigError: The settings know no such party.
        ServiceError: The folder exists, or name, role and address do not go together.
    """
    config = load_federation(federation)
    name = name or (role if role in {SERVER, DECRYPTOR} else "")
    _check_listed(config, role, name)
    if folder.exists():
        raise ServiceError(
            f"{folder} exists; keys are drawn once",
            hint="For a new certificate or key: fmfl-secure request FOLDER --renew.",
        )
    # Beside it, so that a crash leaves a whole folder or none.
    building = folder.parent / f".{folder.name}.{secrets.token_hex(8)}"
    building.mkdir(parents=True, mode=0o700)
    try:
        identities = _draw_identities(building, role, name)
        tls_key = _draw_tls_key(building / "tls")
        asked = write_request(
            federation=config.federation.name, role=role, name=name, url=url,
            identities=identities, tls_key=tls_key,
        )  # fmt: skip
        write_private(building / f"{name}{SUFFIX}", asked)
        write_private(building / "federation.toml", federation.read_bytes())
        write_private(building / "operations.token", secrets.token_urlsafe(32).encode() + b"\n")
        if role == SITE:
            _prepare_site(building, identities[name], config, data)
        elif role == CUSTODIAN:
            text = custodian_toml(name, config.federation.min_sites)
            write_private(building / "custodian.toml", text.encode())
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return own_request(folder)


def renew_keys(folder: Path, *, new_identity: bool = False) -> Asked:
    """Draw a new key for TLS, and a site's new identity, and sign a request for them.

    The old ones stay in force until `put_answer` has the answer.

    Args:
        folder: The party's own.
        new_identity: Draw a new identity too; its members have to approve.

    Raises:
        ServiceError: The folder's keys were not drawn here, or a renewal waits already.
    """
    request = own_request(folder).read.request
    if new_identity and request.role != SITE:
        raise ServiceError(
            f"the {request.role} is pinned by every party from the start and keeps its identity",
            hint="If its key is lost or known to others, provision a new federation.",
        )
    building = folder / RENEWAL
    if building.exists():
        raise ServiceError(
            f"{building} waits for an answer", hint="Remove it to draw other keys instead."
        )
    identities = own_identities(folder, request.role, request.name)
    previous = identities[request.name] if new_identity else None
    if new_identity:
        building.mkdir(mode=0o700)
        identities = _draw_identities(building, request.role, request.name)
    tls_key = _draw_tls_key(building)
    asked = write_request(
        federation=request.federation, role=request.role, name=request.name, url=request.url,
        identities=identities, tls_key=tls_key, previous=previous,
    )  # fmt: skip
    write_private(building / f"{request.name}{SUFFIX}", asked)
    return _asked(building)


def own_request(folder: Path) -> Asked:
    """The request of the keys in force.

    Raises:
        ServiceError: There is none: the keys were not drawn here.
    """
    if not drew_own_keys(folder):
        raise ServiceError(
            f"there is no request in {folder}: its keys were not drawn by fmfl-secure request",
            hint="Name the folder that fmfl-secure request made.",
        )
    return _asked(folder)


def renewal_request(folder: Path) -> Asked | None:
    """The request that waits in `renewal`, or None."""
    return _asked(folder / RENEWAL) if drew_own_keys(folder / RENEWAL) else None


def drew_own_keys(folder: Path) -> bool:
    """Whether a folder's keys were drawn by its owner."""
    return any(folder.glob(f"*{SUFFIX}"))


def own_identities(folder: Path, role: str, name: str) -> dict[str, Identity]:
    """The identities that a party signs with, by name.

    Raises:
        AggregationError: One cannot be read.
    """
    if role == SERVER:
        return {
            each: Identity.load(folder / each / "identity.pem", each)
            for each in (COORDINATOR, AGGREGATOR)
        }
    return {name: Identity.load(folder / "identity.pem", name)}


def _asked(folder: Path) -> Asked:
    path, *others = sorted(folder.glob(f"*{SUFFIX}"))
    if others:
        raise ServiceError(
            f"{folder} has several requests: {path.name} and {others[0].name}",
            hint="Leave the party's own there, and move the others away.",
        )
    place = folder.parent if folder.name == RENEWAL else folder
    name = load_federation(place / "federation.toml").federation.name
    return Asked(
        path,
        read_request(
            read_regular(path, most_bytes=MOST_DOCUMENT), federation=name, source=str(path)
        ),
    )


def _check_listed(config: FederationConfig, role: Role, name: str) -> None:
    sites = [entry.name for entry in config.sites]
    listed = {SITE: sites, CUSTODIAN: list(config.aggregation.custodians)}.get(role, [role])
    if name not in listed:
        raise ConfigError(
            f"the settings have no {role} {name!r}",
            hint=f"Name one of them: {', '.join(listed)}"
            if listed
            else "They name none: list it in [aggregation] custodians, in every party's settings.",
        )


def _draw_identities(folder: Path, role: str, name: str) -> dict[str, Identity]:
    places = (
        {each: folder / each for each in (COORDINATOR, AGGREGATOR)}
        if role == SERVER
        else {name: folder}
    )
    drawn = {}
    for each, place in places.items():
        place.mkdir(exist_ok=True, mode=0o700)
        drawn[each] = Identity.generate(each)
        drawn[each].save(place / "identity.pem")
    return drawn


def _draw_tls_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    key = new_key()
    write_private(folder / "key.pem", key_pem(key))
    return key


def _prepare_site(folder: Path, identity: Identity, config: FederationConfig, data: str) -> None:
    name = identity.public.name
    text = site_toml(name, config.federation.min_sites, data)
    write_private(folder / "site.toml", text.encode())
    write_private(folder / "storage.key", secrets.token_bytes(32))
    budget = load_site(folder / "site.toml").budget
    Ledger.create(
        budget.ledger_from(folder),
        population=budget.population,
        unit=config.task.unit,
        signer=identity,
        public_key=identity.public.key,
    )
