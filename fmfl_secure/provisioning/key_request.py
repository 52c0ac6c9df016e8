"""A party's request, with keys that it drew itself: nothing in it is secret.

    NAME.request      who it is, its public identity keys, its certificate request; signed by each

The signatures prove that whoever asks holds the keys. They do not prove who that is: people compare
fingerprints for that, once everybody has an answer (`ceremony.py`).

`provisioning.own_keys` signs a request with every key that it names, and `provisioning.certify`
reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from aggregation import AggregationError, Identity, PublicIdentity
from fmfl_secure.errors import ConfigError, ServiceError
from fmfl_secure.outside import MALFORMED
from fmfl_secure.parties.workspace import AGGREGATOR, COORDINATOR
from fmfl_secure.provisioning.certificate_requests import request_certificate, requested_key
from fmfl_secure.provisioning.certificates import DECRYPTOR, SERVER
from fmfl_secure.settings.service import require_url

SUFFIX: Final = ".request"
_DOMAIN: Final = b"fmfl-secure/key-request/v1\x00"
_MAX_BYTES: Final = 64 * 1024
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class KeyRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A party's request.

    Attributes:
        federation: Name of the federation it is for, and for no other.
        role: The party's.
        name: The party's.
        url: Where a server is reached; empty for others.
        identities: Public identity keys by name: the party's own; a server has two.
        certificate_request: For TLS, PEM.
        at: UTC time.
    """

    federation: _Text
    role: Literal["server", "site", "decryptor", "custodian"]
    name: _Text
    url: str = ""
    identities: dict[str, str]
    certificate_request: str
    at: str

    def __post_init__(self) -> None:
        expected = {COORDINATOR, AGGREGATOR} if self.role == SERVER else {self.name}
        if set(self.identities) != expected:
            raise ValueError(f"a {self.role} signs as {' and '.join(sorted(expected))}")
        if self.role in {SERVER, DECRYPTOR} and self.name != self.role:
            raise ValueError(f"a {self.role} is named {self.role}")
        if bool(self.url) != (self.role == SERVER):
            raise ValueError("a server says where it is reached, and nobody else does")
        if self.url:
            try:
                require_url(self.url)
            except ConfigError as error:
                raise ValueError(str(error)) from None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that the party is reached by."""
        if self.role != SERVER:
            return ()
        return tuple(dict.fromkeys([urlsplit(self.url).hostname or "", "localhost", "127.0.0.1"]))

    @property
    def public(self) -> dict[str, PublicIdentity]:
        """Its identities.

        Raises:
            AggregationError: One is malformed.
        """
        return {name: PublicIdentity.parse(name, text) for name, text in self.identities.items()}

    @property
    def tls_key(self) -> ec.EllipticCurvePublicKey:
        """The key that it asks to be certified.

        Raises:
            ServiceError: It is not proven to be the asker's, or for something else.
        """
        return requested_key(
            self.certificate_request,
            federation=self.federation,
            role=self.role,
            name=self.name,
            hosts=self.hosts,
            identities=self.identities,
        )


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    request: KeyRequest
    signatures: dict[str, str]
    # By the key that a new identity takes the place of: the party itself wants it.
    previous_signature: str = ""


class ReadRequest(msgspec.Struct, frozen=True):
    """A request that was verified.

    Attributes:
        request: What it says.
        data: Its file.
        previous_signature: Hexadecimal, by the identity that a new one replaces; may be empty.
    """

    request: KeyRequest
    data: bytes
    previous_signature: str

    @property
    def digest(self) -> str:
        """SHA-256 of what was signed, hexadecimal: how an answer names it."""
        return hashlib.sha256(_signed_bytes(self.request)).hexdigest()

    def replaces(self, identity: PublicIdentity) -> bool:
        """Whether the owner of an earlier identity signed that this one takes its place."""
        try:
            identity.verify(bytes.fromhex(self.previous_signature), _signed_bytes(self.request))
        except (AggregationError, ValueError):
            return False
        return True


def write_request(
    *,
    federation: str,
    role: Literal["server", "site", "decryptor", "custodian"],
    name: str,
    url: str,
    identities: Mapping[str, Identity],
    tls_key: ec.EllipticCurvePrivateKey,
    previous: Identity | None = None,
) -> bytes:
    """Sign a request with every key that it names.

    Args:
        federation: Name of the federation.
        role: The party's.
        name: The party's.
        url: Where a server is reached; empty for others.
        identities: Its own, by name.
        tls_key: Its own for TLS.
        previous: The identity that a new one takes the place of.

    Raises:
        ServiceError: Name, role and address do not go together.
    """
    public = {each: identity.public.text for each, identity in identities.items()}
    try:
        unsigned = KeyRequest(
            federation=federation, role=role, name=name, url=url, identities=public,
            certificate_request="", at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )  # fmt: skip
        asked = request_certificate(
            tls_key, federation=federation, role=role, name=name, hosts=unsigned.hosts,
            identities=public,
        )  # fmt: skip
    except ValueError as error:  # a host that no certificate can name, too
        raise ServiceError(str(error)) from error
    request = msgspec.structs.replace(unsigned, certificate_request=asked)
    raw = _signed_bytes(request)
    signed = _Signed(
        request,
        {each: identity.sign(raw).hex() for each, identity in identities.items()},
        "" if previous is None else previous.sign(raw).hex(),
    )
    return msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n"


def read_request(data: bytes, *, federation: str, source: str) -> ReadRequest:
    """Verify a request as far as it goes by itself.

    Args:
        data: Its file.
        federation: Name of the federation that it must be for.
        source: The file, for errors.

    Raises:
        ServiceError: Malformed, altered, for another federation, or without proof of a key.
    """
    try:
        if len(data) > _MAX_BYTES:
            raise ServiceError(f"{source} is no request: it is larger than {_MAX_BYTES} bytes")
        signed = msgspec.json.decode(data, type=_Signed)
        request = signed.request
        public = request.public
    except (AggregationError, *MALFORMED) as error:
        raise ServiceError(f"{source} is no request: {error}") from error
    if request.federation != federation:
        raise ServiceError(
            f"{source} is a request for the federation {request.federation!r}, and this one is "
            f"{federation!r}",
            hint="Ask the party for a request of its own for this federation.",
        )
    raw = _signed_bytes(request)
    for name, identity in public.items():
        try:
            identity.verify(bytes.fromhex(signed.signatures.get(name, "")), raw)
        except (AggregationError, ValueError) as error:
            raise ServiceError(
                f"{source} is not signed with the key of {name} that it names",
                hint="It was altered on the way, or is not the key owner's: ask for it again.",
            ) from error
    _ = request.tls_key  # proof of possession, and for this party alone
    return ReadRequest(request, data, signed.previous_signature)


def _signed_bytes(request: KeyRequest) -> bytes:
    return _DOMAIN + msgspec.json.encode(request, order="sorted")
