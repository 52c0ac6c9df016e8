"""A federation's private certificate authority: X.509 for TLS, apart from the protocol's keys.

A certificate says which party speaks: its subject alternative name is a URI
`fmfl-secure://FEDERATION/ROLE/NAME`. Clients get certificates that serve for clients only, so no
site can pose as the server. Keys are ECDSA P-256 (TLS 1.3 suites); signing identities of the
protocol are others, and Ed25519.

`provisioning.authority` makes and signs with it, and keeps the files; `transports.https.listener`
reads a peer's name and role by `read_peer`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fmfl_secure.errors import ServiceError

SERVER, SITE, DECRYPTOR, CUSTODIAN = "server", "site", "decryptor", "custodian"
ROLES: Final = (SERVER, SITE, DECRYPTOR, CUSTODIAN)
AUTHORITY_DAYS: Final = 3650
RENEWED_AHEAD: Final = dt.timedelta(days=30)  # a certificate that ends sooner is due
PARTY_DAYS: Final = 397  # what browsers and libraries accept at most
CRL_DAYS: Final = 3650  # a list stands until the next; it is replaced, and never runs out quietly
_SCHEME: Final = "fmfl-secure"
_PATH: Final = re.compile(r"/([a-z]+)/([a-z0-9][a-z0-9._-]{0,62})\Z", re.ASCII)
# Clocks of parties differ by minutes.
_BACKDATED: Final = dt.timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end of a connection, as its certificate says.

    Attributes:
        federation: Name of the federation.
        role: One of `ROLES`.
        name: Of the party.
        serial: Serial number of the certificate.
        expires: When it ends.
    """

    federation: str
    role: str
    name: str
    serial: int
    expires: dt.datetime


@dataclass(frozen=True, slots=True, repr=False)
class Issued:
    """A certificate with its key.

    Attributes:
        certificate: PEM.
        key: PKCS #8 PEM, not encrypted; a secret.
    """

    certificate: bytes
    key: bytes


def new_authority(federation: str) -> Issued:
    """Draw an authority's key and sign its own certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.COMMON_NAME, "authority"),
        ]
    )
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(_pem(certificate), key_pem(key))


def issue(
    authority: Issued,
    *,
    federation: str,
    role: str,
    name: str,
    hosts: Iterable[str] = (),
    days: int = PARTY_DAYS,
) -> Issued:
    """Draw a key for a party and certify it: for simulations, and for 0.1.0's way.

    Args:
        authority: The authority.
        federation: Name of the federation.
        role: One of `ROLES`.
        name: Name of the party.
        hosts: Names and addresses that a server is reached by.
        days: How long it is valid.

    Raises:
        ServiceError: There is no such role.
    """
    key = new_key()
    certificate = certify_key(
        authority, key.public_key(), federation=federation, role=role, name=name, hosts=hosts,
        days=days,
    )  # fmt: skip
    return Issued(certificate, key_pem(key))


def new_key() -> ec.EllipticCurvePrivateKey:
    """Draw a key for TLS."""
    return ec.generate_private_key(ec.SECP256R1())


def certify_key(
    authority: Issued,
    key: ec.EllipticCurvePublicKey,
    *,
    federation: str,
    role: str,
    name: str,
    hosts: Iterable[str] = (),
    days: int = PARTY_DAYS,
) -> bytes:
    """Certify a party's key that it drew itself; PEM.

    Args:
        authority: The authority.
        key: The party's public key for TLS.
        federation: Name of the federation.
        role: One of `ROLES`.
        name: Name of the party.
        hosts: Names and addresses that a server is reached by.
        days: How long it is valid.

    Raises:
        ServiceError: There is no such role.
    """
    if role not in ROLES:
        raise ServiceError(f"{role!r} is no role that is certified: {', '.join(ROLES)}")
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = signing_key(authority)
    serves = ExtendedKeyUsageOID.SERVER_AUTH if role == SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    certificate = (
        _builder(_name(f"{name} ({role})"), issuer.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([serves]), critical=False)
        .add_extension(alternative_names(federation, role, name, hosts), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate)


def signing_key(authority: Issued) -> ec.EllipticCurvePrivateKey:
    """The authority's private key.

    Raises:
        ServiceError: It is none, or of another kind.
    """
    try:
        signer = serialization.load_pem_private_key(authority.key, password=None)
    except (ValueError, TypeError) as error:
        raise ServiceError(
            "the authority's ca.key holds no private key", hint="Put it back as it was."
        ) from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ServiceError("the authority's key is of another kind than ECDSA")
    return signer


def alternative_names(
    federation: str, role: str, name: str, hosts: Iterable[str] = ()
) -> x509.SubjectAlternativeName:
    """Who a certificate is of, and the names that a server is reached by."""
    uri = x509.UniformResourceIdentifier(f"{_SCHEME}://{federation}/{role}/{name}")
    return x509.SubjectAlternativeName([uri, *map(_host, hosts)])


def revocation_list(authority: Issued, serials: Iterable[int]) -> bytes:
    """Sign a certificate revocation list (PEM) of these serial numbers."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = signing_key(authority)
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(now + dt.timedelta(days=CRL_DAYS))
    )
    for serial in sorted(set(serials)):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def revoked_serials(crl: bytes, authority: bytes) -> frozenset[int]:
    """Serial numbers on a list.

    Args:
        crl: The list, PEM.
        authority: The authority's certificate, PEM.

    Raises:
        ServiceError: It is malformed, or not this authority's.
    """
    try:
        parsed = x509.load_pem_x509_crl(crl)
        issuer = x509.load_pem_x509_certificate(authority)
        key = issuer.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not parsed.is_signature_valid(key):
            raise ServiceError("the revocation list is not signed by this authority")
    except (ValueError, InvalidSignature) as error:
        raise ServiceError("the revocation list is malformed") from error
    return frozenset(entry.serial_number for entry in parsed)


def serial_of(certificate: bytes) -> int:
    """Serial number of a certificate in PEM."""
    return x509.load_pem_x509_certificate(certificate).serial_number


def end_of(certificate: bytes) -> dt.datetime:
    """When a certificate in PEM ends, in UTC.

    Raises:
        ValueError: It is none.
    """
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def federation_of(authority: bytes) -> str:
    """The federation that an authority's certificate (PEM) is of.

    Raises:
        ServiceError: It is no certificate of an authority.
    """
    try:
        subject = x509.load_pem_x509_certificate(authority).subject
        (name,) = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    except ValueError as error:
        raise ServiceError(
            "the authority's ca.pem holds no certificate of an authority",
            hint="Put it back as it was.",
        ) from error
    return str(name.value)


def read_peer(der: bytes) -> Peer:
    """Reads the holder's name and role from a certificate whose chain TLS verified.

    Raises:
        ServiceError: It names no party of a federation.
    """
    certificate = x509.load_der_x509_certificate(der)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise ServiceError("the certificate names no party") from error
    found: Sequence[str] = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    for uri in found:
        parts = urlsplit(uri)
        match = _PATH.match(parts.path)
        if parts.scheme == _SCHEME and match and match[1] in ROLES:
            return Peer(
                federation=parts.netloc,
                role=match[1],
                name=match[2],
                serial=certificate.serial_number,
                expires=certificate.not_valid_after_utc,
            )
    raise ServiceError("the certificate names no party")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED - dt.timedelta(days=max(0, -days)))
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as PKCS #8 PEM, not encrypted; a secret."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
