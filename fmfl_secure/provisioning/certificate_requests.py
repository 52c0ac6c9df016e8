"""Certificate requests (PKCS #10): a party's public key for TLS, signed with its other half.

A request names its party as a certificate does, so that nobody else's certificate comes of it, and
carries the digest of the identities it belongs to, so that it cannot be put beside another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AttributeOID, NameOID

from fmfl_secure.errors import ServiceError
from fmfl_secure.provisioning.certificates import alternative_names


def request_certificate(
    key: ec.EllipticCurvePrivateKey,
    *,
    federation: str,
    role: str,
    name: str,
    hosts: Iterable[str],
    identities: Mapping[str, str],
) -> str:
    """Ask for a certificate; PEM.

    Args:
        key: The party's own for TLS.
        federation: Name of the federation.
        role: The party's.
        name: The party's.
        hosts: Names that a server is reached by.
        identities: Its public identity keys, by name.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(alternative_names(federation, role, name, hosts), critical=False)
        .add_attribute(AttributeOID.UNSTRUCTURED_NAME, _belongs_to(identities))
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def requested_key(
    pem: str,
    *,
    federation: str,
    role: str,
    name: str,
    hosts: Iterable[str],
    identities: Mapping[str, str],
) -> ec.EllipticCurvePublicKey:
    """The key that a certificate is asked for, once it is proven to be the asker's.

    Args:
        pem: The request.
        federation: The federation it must be for.
        role: The role it must be for.
        name: The party it must be for.
        hosts: The only names a server may be reached by.
        identities: The identities it must belong to.

    Raises:
        ServiceError: It is malformed, altered, without proof of its key, or for something else.
    """
    what = f"the certificate request of {name}"
    try:
        request = x509.load_pem_x509_csr(pem.encode("ascii"))
        key = request.public_key()
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        belongs_to = request.attributes.get_attribute_for_oid(AttributeOID.UNSTRUCTURED_NAME).value
        proven = request.is_signature_valid
        expected = alternative_names(federation, role, name, hosts)
    except (
        ValueError,
        InvalidSignature,
        UnsupportedAlgorithm,
        x509.ExtensionNotFound,
        x509.AttributeNotFound,
    ) as error:
        raise ServiceError(f"{what} is malformed") from error
    if not proven:
        raise ServiceError(f"{what} is not signed with the key that it asks for")
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != ec.SECP256R1.name:
        raise ServiceError(f"{what} has a key of another kind than ECDSA P-256")
    if names != expected:
        raise ServiceError(f"{what} names another party, federation, role or host")
    if belongs_to != _belongs_to(identities):
        raise ServiceError(f"{what} belongs to other identity keys")
    return key


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key's form (SubjectPublicKeyInfo, DER), to compare keys by."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _belongs_to(identities: Mapping[str, str]) -> bytes:
    joined = "\n".join(f"{name} {key}" for name, key in sorted(identities.items()))
    return hashlib.sha256(joined.encode()).hexdigest().encode("ascii")
