"""Parties compare fingerprints, by voice, and each signs that it did.

    KIT/ceremony/NAME-FINGERPRINT.json    what a party signed; everybody keeps everybody's

Whoever provisions and whoever carries requests could put a key of their own in a party's place. A
signature cannot show that, since it would be made with that key: people who know each other's
voices can. All parties' keys come to one fingerprint, so that one is read and everybody compares.
A party that has checked its own keys and has the same fingerprint as the others has the same keys
for everybody.

`fmfl-secure ceremony` (`cli.keys`) shows the `standing`, signs by `sign_comparison` and takes
others' words in by `collect`. A party's process calls `require_comparison` before it takes part.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from aggregation import AggregationError, Identity
from fmfl_secure.errors import ServiceError
from fmfl_secure.outside import MALFORMED, MOST_DOCUMENT, read_regular
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR
from fmfl_secure.provisioning.fingerprints import typed
from fmfl_secure.provisioning.own_keys import drew_own_keys
from fmfl_secure.run.keys_record import Comparison, KeysRecord
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.files import write_files

_DOMAIN: Final = b"fmfl-secure/fingerprints-compared/v1\x00"
_VIEW: Final = b"fmfl-secure/fingerprints/v1\x00"
_MAX_BYTES: Final = 1 << 20


class View(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom a party trusts now.

    Attributes:
        federation: Name of the federation.
        authority: SHA-256 of the authority's certificate, hexadecimal.
        parties: Fingerprint of each party's identity key, by name.
    """

    federation: str
    authority: str
    parties: dict[str, str]

    @property
    def fingerprint(self) -> str:
        """Of all of it: SHA-256, hexadecimal."""
        return hashlib.sha256(_VIEW + msgspec.json.encode(self, order="sorted")).hexdigest()

    def covers(self, other: View) -> bool:
        """Whether everybody of another view is in this one, with the same key."""
        same = (self.federation, self.authority) == (other.federation, other.authority)
        return same and other.parties.items() <= self.parties.items()


class Compared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A party's signed word that it compared fingerprints.

    Attributes:
        view: What it saw.
        party: Its name; a server's is its coordinator's.
        drew_own_keys: Whether its keys were drawn in its own folder.
        heard_from: Which party read the fingerprint to it.
        at: UTC time.
    """

    view: View
    party: str
    drew_own_keys: bool
    heard_from: str
    at: str


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    compared: Compared
    signature: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the comparison has come, as one party holds it.

    Attributes:
        view: Whom the party trusts now.
        compared: What parties signed of that very view, by name.
        missing: Who has not.
    """

    view: View
    compared: dict[str, Compared]
    missing: tuple[str, ...]


def view_of(folder: Path) -> View:
    """Whom a kit's party trusts.

    Raises:
        FmflError, AggregationError: The kit's files cannot be read.
    """
    members = MembershipFolder(folder).members()
    everyone = (members.coordinator, *members.pinned.values())
    path = folder / "tls" / "ca.pem"
    try:
        authority = x509.load_pem_x509_certificate(read_regular(path, most_bytes=MOST_DOCUMENT))
    except (OSError, ValueError) as error:
        raise ServiceError(f"the authority's certificate {path} cannot be read") from error
    return View(
        federation=load_federation(folder / "federation.toml").federation.name,
        authority=authority.fingerprint(hashes.SHA256()).hex(),
        parties={party.name: party.fingerprint for party in everyone},
    )


def sign_comparison(folder: Path, *, heard_from: str, heard: str) -> Path:
    """Compare what another party read aloud, and sign that it was the same.

    Args:
        folder: The party's kit.
        heard_from: Who read it.
        heard: The fingerprint, as it was typed while it was read.

    Returns:
        What to send to the other parties.

    Raises:
        ServiceError: It is another fingerprint, or nobody else's.
    """
    view, identity = view_of(folder), _identity(folder)
    name = identity.public.name
    if heard_from not in view.parties or heard_from == name:
        others = ", ".join(sorted(view.parties.keys() - {name}))
        raise ServiceError(f"{heard_from} is no other party; these are: {others}")
    if typed(heard) != view.fingerprint:
        raise ServiceError(
            f"what {heard_from} read is not this party's fingerprint",
            hint="If it was read and typed rightly, somebody was given other keys. Take no part; "
            "compare the single parties: fmfl-secure ceremony show KIT.",
        )
    compared = Compared(
        view=view,
        party=name,
        drew_own_keys=drew_own_keys(folder),
        heard_from=heard_from,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    signed = _Signed(compared, identity.sign(_signed_bytes(compared)).hex())
    return _keep(folder, signed)


def collect(folder: Path, data: bytes, *, source: str) -> str:
    """Verify what another party signed and keep it.

    Returns:
        Whose it is.

    Raises:
        ServiceError: Malformed, not that party's, or it saw other keys than are trusted here.
    """
    signed = _read(data, source)
    compared, own = signed.compared, view_of(folder)
    _verify(folder, signed, source)
    if compared.view != own:
        theirs = compared.view.parties
        differ = sorted(
            name
            for name in theirs.keys() | own.parties.keys()
            if theirs.get(name) != own.parties.get(name)
        )
        raise ServiceError(
            f"{compared.party} signed another list of keys than this party has; they differ in: "
            f"{', '.join(differ) or 'federation or authority'}",
            hint="If it is of an earlier list of members, ask for a new one. If not, somebody was "
            "given other keys: take no part.",
        )
    _keep(folder, signed)
    return compared.party


def standing(folder: Path) -> Standing:
    """How far the comparison of what a kit's party trusts now has come.

    Raises:
        ServiceError: A record here is damaged or not its party's.
    """
    view = view_of(folder)
    compared = {each.party: each for each in _kept(folder) if each.view == view}
    needed = _who_signs(view)
    return Standing(view, compared, tuple(n for n in needed if n not in compared))


def require_comparison(folder: Path) -> None:
    """Refuse to take part with keys that this party's people have not compared.

    Kits whose keys were drawn elsewhere are for simulations and are let through: nothing that
    people compare could make them safe.

    Raises:
        ServiceError: Somebody is trusted here whose key this party did not sign for.
    """
    if not drew_own_keys(folder):
        return
    own, view = _identity(folder).public.name, view_of(folder)
    seen = [each.view for each in _kept(folder) if each.party == own]
    if not any(each.covers(view) for each in seen):
        raise ServiceError(
            "this party's people have not compared the keys that it trusts",
            hint=f"fmfl-secure ceremony show {folder}, by telephone; then fmfl-secure ceremony "
            "sign.",
        )


def keys_record(folder: Path) -> KeysRecord:
    """Describes the keys for a run's report, from the server's kit or a federation's folder.

    Raises:
        FmflError, AggregationError: The folder's files cannot be read.
    """
    if not (folder / "tls" / "ca.pem").exists():
        return KeysRecord(one_place=True, fingerprint="", compared=(), missing=())
    found = standing(folder)
    return KeysRecord(
        one_place=not drew_own_keys(folder),
        fingerprint=found.view.fingerprint,
        compared=tuple(
            Comparison(each.party, each.drew_own_keys, each.heard_from, each.at)
            for each in found.compared.values()
        ),
        missing=found.missing,
    )


def _who_signs(view: View) -> list[str]:
    """Everybody but the aggregator, which is the coordinator's process."""
    return [name for name in view.parties if name != AGGREGATOR]


def _identity(folder: Path) -> Identity:
    server = folder / COORDINATOR / "identity.pem"
    return Identity.load(server if server.exists() else folder / "identity.pem")


def _kept(folder: Path) -> list[Compared]:
    """Records of parties that are still trusted with the key that they signed with."""
    found = []
    trusted = view_of(folder).parties
    for path in sorted((folder / "ceremony").glob("*.json")):
        signed = _read(read_regular(path, most_bytes=MOST_DOCUMENT), str(path))
        compared = signed.compared
        if trusted.get(compared.party) != compared.view.parties.get(compared.party):
            continue  # of a key that has left
        _verify(folder, signed, str(path))
        found.append(compared)
    return found


def _keep(folder: Path, signed: _Signed) -> Path:
    compared = signed.compared
    name = f"{compared.party}-{compared.view.fingerprint[:16]}.json"
    text = msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n"
    write_files(folder / "ceremony", {name: text})
    return folder / "ceremony" / name


def _read(data: bytes, source: str) -> _Signed:
    try:
        if len(data) > _MAX_BYTES:
            raise ServiceError(f"{source} is larger than {_MAX_BYTES} bytes")
        return msgspec.json.decode(data, type=_Signed)
    except MALFORMED as error:
        raise ServiceError(f"{source} is no signed comparison: {error}") from error


def _verify(folder: Path, signed: _Signed, source: str) -> None:
    compared = signed.compared
    members = MembershipFolder(folder).members()
    everyone = {COORDINATOR: members.coordinator, **members.pinned}
    try:
        everyone[compared.party].verify(bytes.fromhex(signed.signature), _signed_bytes(compared))
    except (KeyError, ValueError, AggregationError) as error:
        raise ServiceError(
            f"{source} is not signed with the key that is trusted here for {compared.party}"
        ) from error


def _signed_bytes(compared: Compared) -> bytes:
    return _DOMAIN + msgspec.json.encode(compared, order="sorted")
