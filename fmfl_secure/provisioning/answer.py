"""The answer to a party's request: what belongs beside its keys, signed by the authority.

    NAME.answer       settings, parties' public keys, the authority's certificate and the party's

It holds no secret. Whoever made it could still have lied about others' keys, or be another
authority than the one that was meant: a party checks its own part here, and the rest by comparing
fingerprints (`ceremony.py`).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from fmfl_secure.errors import ServiceError
from fmfl_secure.provisioning.certificates import Issued, signing_key

SUFFIX: Final = ".answer"
_DOMAIN: Final = b"fmfl-secure/key-answer/v1\x00"
_MAX_BYTES: Final = 16 << 20


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The authority's answer to a request.

    Attributes:
        federation: Name of the federation.
        role: Of the party that it is for.
        name: The party that it is for.
        request: Digest of the request that it answers.
        settings: `federation.toml`.
        members: `members.json`.
        url: Where the server is reached.
        authority: The authority's certificate, PEM.
        certificate: The party's, PEM.
    """

    federation: str
    role: Literal["server", "site", "decryptor", "custodian"]
    name: str
    request: str
    settings: str
    members: str
    url: str
    authority: str
    certificate: str


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    answer: Answer
    signature: str


def sign_answer(authority: Issued, answer: Answer) -> bytes:
    """The answer's file.

    Raises:
        ServiceError: The authority's key is of another kind.
    """
    signature = signing_key(authority).sign(_signed_bytes(answer), ec.ECDSA(hashes.SHA256()))
    signed = _Signed(answer, signature.hex())
    return msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n"


def read_answer(data: bytes, *, source: str) -> Answer:
    """Read an answer and verify that the authority it names signed it.

    Args:
        data: Its file.
        source: The file, for errors.

    Raises:
        ServiceError: Malformed, or altered on the way.
    """
    try:
        if len(data) > _MAX_BYTES:
            raise ServiceError(f"{source} is no answer: it is larger than {_MAX_BYTES} bytes")
        signed = msgspec.json.decode(data, type=_Signed)
        key = x509.load_pem_x509_certificate(signed.answer.authority.encode()).public_key()
        signature = bytes.fromhex(signed.signature)
    except ValueError as error:
        raise ServiceError(f"{source} is no answer to a request: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ServiceError(f"{source} names an authority with a key of another kind than ECDSA")
    try:
        key.verify(signature, _signed_bytes(signed.answer), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise ServiceError(
            f"{source} is not signed by the authority that it names",
            hint="It was altered on the way: ask for it again.",
        ) from error
    return signed.answer


def _signed_bytes(answer: Answer) -> bytes:
    return _DOMAIN + msgspec.json.encode(answer, order="sorted")
