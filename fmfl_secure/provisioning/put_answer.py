"""A party puts the answer beside its own keys, once everything in it that it can know is right.

`fmfl-secure accept` (`cli.keys`) calls `check_answer`, shows what was found, and then calls
`put_answer`. Keys that wait in `renewal/` are taken over first, and the settings are written last.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aggregation import AggregationError, Identity
from fmfl_secure.errors import FmflError, ServiceError
from fmfl_secure.parties.membership import MembershipFolder, next_list
from fmfl_secure.parties.workspace import COORDINATOR, Members
from fmfl_secure.provisioning.answer import Answer, read_answer
from fmfl_secure.provisioning.certificate_requests import public_bytes
from fmfl_secure.provisioning.certificates import SERVER, read_peer
from fmfl_secure.provisioning.kit import write_private
from fmfl_secure.provisioning.own_keys import (
    RENEWAL,
    Asked,
    own_identities,
    own_request,
    renewal_request,
)
from fmfl_secure.provisioning.service_toml import client_toml, operations_port, server_toml
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.storage.files import write_files

_KEYS_BACK = (
    "Put the keys back as request drew them; where they are lost, request others and send that."
)


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer that matches a party's own keys; nothing was written.

    Attributes:
        folder: The party's.
        asked: Its request that is answered.
        answer: What it says.
        members: All parties, as the answer has them.
        new_settings: Whether its settings are others than the party asked with.
        added: At a server that has a list of members: who would come, by name.
    """

    folder: Path
    asked: Asked
    answer: Answer
    members: Members
    new_settings: bool
    added: tuple[str, ...]


def check_answer(folder: Path, data: bytes, *, source: str) -> Checked:
    """Compare an answer with a party's own keys, request and settings.

    Args:
        folder: The party's.
        data: The answer's file.
        source: The file, for errors.

    Raises:
        ServiceError: It is not this party's, or something in it is not what it should be.
        ConfigError: Its settings cannot be used.
        AggregationError: This party's own key is gone, or none.
    """
    answer = read_answer(data, source=source)
    asked = _which(folder, answer)
    _check_own_keys(folder, asked)
    known = folder / "tls" / "ca.pem"
    if known.exists() and known.read_bytes() != answer.authority.encode():
        raise ServiceError(
            f"{source} is of another authority than {known}",
            hint="Ask whoever provisions; by telephone, not by where the answer came from.",
        )
    config = _settings(folder, answer)
    _check_certificate(answer, asked)
    members = _members(answer, source)
    _check_parties(members, config, asked)
    held = MembershipFolder(folder)
    sites = held.members().sites if (folder / "members.json").exists() else {}
    changed = answer.role == SERVER and bool(sites)
    return Checked(
        folder=folder,
        asked=asked,
        answer=answer,
        members=members,
        new_settings=config.digest != load_federation(folder / "federation.toml").digest,
        added=tuple(n for n, i in members.sites.items() if changed and sites.get(n) != i),
    )


def put_answer(checked: Checked) -> list[str]:
    """Put a checked answer beside the keys; at the server, sign the list of members.

    Returns:
        What was done, for people to read.

    Raises:
        ServiceError: Another key of another party was pinned before.
        AggregationError: A key that was revoked would come back.
    """
    folder, answer = checked.folder, checked.answer
    first = not (folder / "members.json").exists()
    if not first:
        _check_pinned(checked)
    done = []
    renewed = checked.asked.path.parent
    if renewed.name == RENEWAL:
        left = _take_over(folder, renewed, checked.asked)
        done.append("the new keys are in force")
        if left is not None:
            done.append(
                f"its ledger knows the old identity, {left}: fmfl-secure ledger admit "
                f"{folder / 'ledger.sqlite'} {folder / 'identity.pem'} --custodian "
                f"--name 'new identity' --identity {left}"
            )
    if not (folder / "service.toml").exists():
        text = (
            server_toml(urlsplit(answer.url).port or 443)
            if answer.role == SERVER
            else client_toml(answer.url, operations_port(_settings(folder, answer), answer.name))
        )
        write_private(folder / "service.toml", text.encode())
    if first:
        write_files(folder, {"members.json": checked.members.encode()})
    if answer.role == SERVER:
        done += _sign_members(folder, checked)
    write_files(
        folder / "tls",
        {"ca.pem": answer.authority.encode(), "certificate.pem": answer.certificate.encode()},
    )
    write_files(folder, {"federation.toml": answer.settings.encode()})
    return [*done, f"the {answer.role} {answer.name} has its certificate beside its keys"]


def _which(folder: Path, answer: Answer) -> Asked:
    """The request of this folder that the answer is to."""
    candidates = [own_request(folder), renewal_request(folder)]
    for asked in candidates:
        if asked is not None and asked.read.digest == answer.request:
            request = asked.read.request
            if (answer.federation, answer.role, answer.name) != (
                request.federation,
                request.role,
                request.name,
            ):
                raise ServiceError("the answer names another party than the request it answers")
            return asked
    mine = own_request(folder).read.request
    raise ServiceError(
        f"this is the answer for the {answer.role} {answer.name} of {answer.federation}, and none "
        f"to a request of the {mine.role} {mine.name} in {folder}",
        hint="Ask whoever provisions for the answer to this folder's own request.",
    )


def _check_own_keys(folder: Path, asked: Asked) -> None:
    """The private keys that were asked for are still here: an answer is of no use without them."""
    request, drawn = asked.read.request, asked.path.parent
    if request.role == SERVER:
        identities = own_identities(folder, request.role, request.name)
    else:
        new = drawn / "identity.pem"
        place = new if new.exists() else folder / "identity.pem"
        identities = {request.name: Identity.load(place, request.name)}
    key = drawn / "key.pem"
    if not key.exists():
        key = folder / "tls" / "key.pem"
    try:
        tls = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it holds no private key"
        raise ServiceError(f"cannot use {key}: {told}", hint=_KEYS_BACK) from error
    is_own = isinstance(tls, ec.EllipticCurvePrivateKey) and (
        public_bytes(tls.public_key()) == public_bytes(request.tls_key)
    )
    if not is_own or {n: each.public for n, each in identities.items()} != request.public:
        raise ServiceError(
            f"the keys in {folder} are not those of its own request", hint=_KEYS_BACK
        )


def _settings(folder: Path, answer: Answer) -> FederationConfig:
    beside = folder / ".federation.toml"  # paths in it are seen from the party's folder
    try:
        write_files(folder, {beside.name: answer.settings.encode()})
        config = load_federation(beside)
    finally:
        beside.unlink(missing_ok=True)
    if config.federation.name != answer.federation:
        raise ServiceError("the answer's settings are of another federation")
    return config


def _check_certificate(answer: Answer, asked: Asked) -> None:
    """It certifies this folder's own key, for this party, by the authority that answered."""
    try:
        issuer = x509.load_pem_x509_certificate(answer.authority.encode())
        certificate = x509.load_pem_x509_certificate(answer.certificate.encode())
        certificate.verify_directly_issued_by(issuer)
        peer = read_peer(certificate.public_bytes(serialization.Encoding.DER))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ServiceError("the answer's certificate is not of the authority it names") from error
    key = certificate.public_key()
    own = asked.read.request.tls_key
    if not isinstance(key, ec.EllipticCurvePublicKey) or public_bytes(key) != public_bytes(own):
        raise ServiceError(
            "the answer certifies another key than this party's",
            hint="Whoever holds that key would speak in this party's name. Tell the others.",
        )
    if (peer.federation, peer.role, peer.name) != (answer.federation, answer.role, answer.name):
        raise ServiceError("the answer's certificate names another party")


def _members(answer: Answer, source: str) -> Members:
    try:
        return Members.decode(answer.members.encode(), source=source)
    except (FmflError, AggregationError) as error:
        raise ServiceError(f"the parties in {source} are malformed: {error}") from error


def _check_parties(members: Members, config: FederationConfig, asked: Asked) -> None:
    """The settings' parties and no others, this one with its own keys, none with another's."""
    names = {entry.name for entry in config.sites}
    if set(members.sites) != names or set(members.custodians) != set(config.aggregation.custodians):
        raise ServiceError("the answer has other parties than its settings")
    everyone = {COORDINATOR: members.coordinator, **members.pinned}
    for name, own in asked.read.request.public.items():
        if everyone.get(name) != own:
            raise ServiceError(
                f"the answer has another identity key for {name} than this party's own",
                hint="With it somebody else would sign in this party's name. Tell the others.",
            )
    keys = [party.key for party in everyone.values()]
    if len(set(keys)) != len(keys):
        raise ServiceError("two parties in the answer have one identity key")


def _check_pinned(checked: Checked) -> None:
    """Refuses an answer that changes a pinned party; sites change by signed lists alone."""
    held, new = MembershipFolder(checked.folder).members(), checked.members
    if replace(held, sites={}) != replace(new, sites={}):
        raise ServiceError(
            "the answer has another coordinator, aggregator, decryptor or custodian than before",
            hint="Every party pins them from the start: a change is a new federation.",
        )


def _take_over(folder: Path, renewed: Path, asked: Asked) -> Path | None:
    """New keys take the place of the old ones; an identity that leaves is kept beside."""
    identity, left = renewed / "identity.pem", None
    if identity.exists():
        old = Identity.load(folder / "identity.pem").public.fingerprint.partition(":")[2][:16]
        left = folder / f"identity-{old}.pem"
        (folder / "identity.pem").rename(left)
        identity.rename(folder / "identity.pem")
    key = renewed / "key.pem"
    if key.exists():  # a crash in here is gone on from
        key.rename(folder / "tls" / "key.pem")
    asked.path.rename(folder / asked.path.name)
    shutil.rmtree(renewed)
    return left


def _sign_members(folder: Path, checked: Checked) -> list[str]:
    """The coordinator's next list, with the sites of the answer."""
    held = MembershipFolder(folder)
    last = held.last()
    members = replace(held.members(), sites=checked.members.sites)
    if last is not None and members == held.members():
        return []
    identity = Identity.load(folder / COORDINATOR / "identity.pem", COORDINATOR)
    following = next_list(identity, last, federation=checked.answer.federation, members=members)
    if last is None:
        held.begin(following)
    else:
        held.approve(following)
    return [f"membership list {len(held.lists())} is signed"]
