"""The messages of a round: versioned, size-capped, signed, and of one form only.

An envelope carries the exact bytes of a body and an Ed25519 signature over the protocol version,
the kind of message, the sender and the SHA-256 of those bytes; a signature for one kind never
serves for another.
Both layers are MessagePack with named fields. Unknown fields, other types and any encoding but the
canonical one are refused, so a message has exactly one form and a digest names exactly one message.

Roles call `seal`, and `protocol.checks` calls `unseal` for each that comes in. The kinds stand in
the order in which a round sends them.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Final, TypeVar

import msgspec

from aggregation.ckks.parameters import MAX_SITES
from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.crypto.mac import BOX_SIZE, TAG_BYTES
from aggregation.crypto.sealed_box import (
    KEM_PUBLIC_SIZE,
    OVERHEAD,
    PUBLIC_SIZE,
)
from aggregation.crypto.shamir import SALT_SIZE, SHARE_SIZE
from aggregation.errors import AggregationError, MessageError, SignatureError
from aggregation.protocol.prepared import prepared

VERSION: Final = 1
_DOMAIN: Final = b"fmfl-secure/aggregation/signature/v1"

MAX_CUSTODIANS: Final = 16
MAX_HEADS: Final = 8  # of one party's journals that a message tells
HEAD_SIZE: Final = 120  # bytes of one: journal, sequence, digest, signature
DIGEST_SIZE: Final = 32  # bytes
MAX_SHARED: Final = 128  # sites of a cohort that share their self-masks' seeds out
SALTED_SIZE: Final = SALT_SIZE + SHARE_SIZE  # bytes of a share with its salt
DEALT_SIZE: Final = SALTED_SIZE + 32  # bytes in a box for one site; the last are the MAC key
DEALT_BOX_SIZE: Final = OVERHEAD + DEALT_SIZE

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=TAG_BYTES, max_length=TAG_BYTES)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what an envelope carries.

    A kind says how large its messages can be, in bytes: `CAP`, and for those that grow with the
    update `PER_CHUNK` and `PER_VALUE` besides. Nothing longer is parsed.
    """

    KIND: ClassVar[str] = ""
    CAP: ClassVar[int] = 1024
    PER_CHUNK: ClassVar[int] = 0
    PER_VALUE: ClassVar[int] = 0

    @classmethod
    def cap(cls, chunks: int = 0, values: int = 0) -> int:
        """Largest message of this kind about an update of so many chunks and values, in bytes."""
        return cls.CAP + cls.PER_CHUNK * chunks + cls.PER_VALUE * values


class Announcement(Body, frozen=True, forbid_unknown_fields=True):
    """The decryptor's fresh public material for one plan."""

    KIND: ClassVar[str] = "announcement"
    CAP: ClassVar[int] = 1024 * 1024

    plan: Bytes32
    material: bytes


class Ready(Body, frozen=True, forbid_unknown_fields=True):
    """A site's single-use keys; sent once its update is stored and charged.

    Attributes:
        plan: Digest of the plan.
        key: X25519.
        kem: ML-KEM-768 in a hybrid plan, else empty.
        box: What shares are sealed for, both kinds of key, where sites may vanish.
    """

    KIND: ClassVar[str] = "ready"
    CAP: ClassVar[int] = 4096

    plan: Bytes32
    key: Bytes32
    kem: bytes = b""
    box: bytes | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if len(self.kem) not in {0, KEM_PUBLIC_SIZE}:
            raise MessageError("an ML-KEM key has another length")
        if self.box is not msgspec.UNSET and len(self.box) != PUBLIC_SIZE:
            raise MessageError("a box key has another length")


class CustodianReady(Ready, frozen=True, forbid_unknown_fields=True):
    """A custodian's single-use keys for one plan; fields as `Ready`."""

    KIND: ClassVar[str] = "custodian-ready"


class Cohort(Body, frozen=True, forbid_unknown_fields=True):
    """Who takes part: the announcement and every ready message, byte for byte."""

    KIND: ClassVar[str] = "cohort"
    CAP: ClassVar[int] = Announcement.CAP + (MAX_SITES + MAX_CUSTODIANS) * Ready.CAP

    plan: Bytes32
    announcement: bytes
    readies: tuple[bytes, ...]
    custodians: tuple[bytes, ...] = ()


class Sigma(Body, frozen=True, forbid_unknown_fields=True):
    """A site's masked secret in a box for the decryptor; the collective suite's last chunk."""

    KIND: ClassVar[str] = "sigma"
    CAP: ClassVar[int] = 64 * 1024

    transcript: Bytes32
    box: bytes


class UploadManifest(Body, frozen=True, forbid_unknown_fields=True):
    """A site's upload, less its chunks: their digests, commitments and tags.

    Attributes:
        transcript: Of the attempt.
        chunk_digests: SHA-256 of each chunk in order.
        commitment: H(b_i).
        mac_boxes: From the first site of the cohort, the MAC key in a box for each other; from
            the others as many zeros, so that all uploads are of one size. Where sites may vanish
            the key came in the exchange, and there are none.
        tags: There, the masked tags, which else come with the opening.
    """

    KIND: ClassVar[str] = "upload"
    CAP: ClassVar[int] = 1024 + BOX_SIZE * MAX_SITES
    PER_CHUNK: ClassVar[int] = DIGEST_SIZE

    transcript: Bytes32
    chunk_digests: bytes
    commitment: Bytes32
    mac_boxes: bytes
    tags: Bytes16 | msgspec.UnsetType = msgspec.UNSET


class OpeningList(Body, frozen=True, forbid_unknown_fields=True):
    """The aggregator's statement of what lies with it.

    Attributes:
        transcript: Of the attempt.
        manifests: SHA-256 of every manifest of the cohort.
        first: The first of them, whole: the others find their MAC key in it. Where sites may
            vanish, empty.
    """

    KIND: ClassVar[str] = "opening-list"
    CAP: ClassVar[int] = 4096 + (DIGEST_SIZE + 8) * MAX_SITES + UploadManifest.CAP
    PER_CHUNK: ClassVar[int] = UploadManifest.PER_CHUNK

    transcript: Bytes32
    manifests: tuple[Bytes32, ...]
    first: bytes


class Confirmation(Body, frozen=True, forbid_unknown_fields=True):
    """The decryptor's word that every secret of an opening list came and can be opened."""

    KIND: ClassVar[str] = "confirmation"
    CAP: ClassVar[int] = OpeningList.CAP + 512
    PER_CHUNK: ClassVar[int] = OpeningList.PER_CHUNK

    opening_list: bytes


class Opening(Body, frozen=True, forbid_unknown_fields=True):
    """A site's word for one list and no other.

    Attributes:
        transcript: Of the attempt.
        opening_list: Digest of the list.
        seed: The seed b_i of its self-mask.
        tags: Its masked tags, where they did not come with the upload.
        shares: Where sites may vanish, its share of every site's seed with the salt, in order.
    """

    KIND: ClassVar[str] = "opening"
    CAP: ClassVar[int] = 1024 + MAX_SHARED * SALTED_SIZE

    transcript: Bytes32
    opening_list: Bytes32
    seed: Bytes32
    tags: Bytes16 | msgspec.UnsetType = msgspec.UNSET
    shares: bytes | msgspec.UnsetType = msgspec.UNSET


class Approval(Body, frozen=True, forbid_unknown_fields=True):
    """A custodian's word for one list: the sum of its streams, packed residues."""

    KIND: ClassVar[str] = "approval"
    CAP: ClassVar[int] = 64 * 1024

    transcript: Bytes32
    opening_list: Bytes32
    streams: bytes


class SumManifest(Body, frozen=True, forbid_unknown_fields=True):
    """The sum the aggregator hands over: SHA-256 of each chunk in order, and the summed tags."""

    KIND: ClassVar[str] = "sum"
    PER_CHUNK: ClassVar[int] = DIGEST_SIZE

    transcript: Bytes32
    opening_list: Bytes32
    chunk_digests: bytes
    tags: Bytes16


class Release(Body, frozen=True, forbid_unknown_fields=True):
    """The released integers, little-endian, in the narrowest width the cohort's range allows."""

    KIND: ClassVar[str] = "release"
    PER_VALUE: ClassVar[int] = 8

    transcript: Bytes32
    opening_list: Bytes32
    integers: bytes
    tags: Bytes16


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    kind: str
    sender: str
    body: bytes
    signature: Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


B = TypeVar("B", bound=Body)
S = TypeVar("S", bound=msgspec.Struct)


def seal(identity: Identity, body: Body) -> bytes:
    """Sign a body and wrap it."""
    raw = msgspec.msgpack.encode(body)
    name = identity.public.name
    content = hashlib.sha256(raw).digest()
    signature = identity.sign(_signed(body.KIND, name, content))
    return msgspec.msgpack.encode(_Envelope(VERSION, body.KIND, name, raw, signature))


def sender(message: bytes, cap: int) -> str:
    """The name a message claims to come from; nothing about it is verified yet.

    Raises:
        MessageError: Not an envelope.
    """
    return decode(message, _Envelope, cap).sender


def unseal(message: bytes, body: type[B], signer: PublicIdentity, cap: int | None = None) -> B:
    """Verify an envelope and read its body.

    Args:
        message: What came off the wire.
        body: The kind of body expected here and now.
        signer: Whose signature it must carry.
        cap: Largest length in bytes, checked before anything is parsed; the kind's own by
            default, which suits all that do not grow with the update.

    Raises:
        MessageError: Oversized, malformed, not canonical, or of another kind or version.
        SignatureError: Not by `signer`.
    """
    return unseal_marked(message, body, signer, cap)[0]


def unseal_marked(
    message: bytes, body: type[B], signer: PublicIdentity, cap: int | None = None
) -> tuple[B, bytes]:
    """As `unseal`, and a mark that stands for the message as its digest would.

    It is SHA-256 over that of the body, which the signature is of, and the signature: so a large
    body is read once.

    Returns:
        The body, and the mark, 32 bytes.
    """
    cap = body.cap() if cap is None else cap
    envelope = decode(message, _Envelope, cap)
    if envelope.version != VERSION:
        raise MessageError(f"protocol version {envelope.version} is not {VERSION}")
    if envelope.kind != body.KIND:
        raise MessageError(f"expected a message of kind {body.KIND!r}")
    if envelope.sender != signer.name:
        raise SignatureError(f"a message that {signer.name} must send names another sender")
    content = hashlib.sha256(envelope.body).digest()
    signer.verify(envelope.signature, _signed(body.KIND, signer.name, content))
    mark = hashlib.sha256(content + envelope.signature).digest()
    return decode(envelope.body, body, cap), mark


def digest(message: bytes) -> bytes:
    """SHA-256 of a whole message, 32 bytes."""
    return hashlib.sha256(message).digest()


def transcript_hash(
    plan: bytes,
    announcement: bytes,
    readies: tuple[bytes, ...],
    custodians: tuple[bytes, ...] = (),
) -> bytes:
    """Hash everything that fixes an attempt: the salt of every key derived in it.

    Each message goes in whole, signature included, behind its length; so any two parties that were
    told different things derive different masks and the attempt fails.
    """
    state = hashlib.sha256(b"fmfl-secure/aggregation/transcript/v1")
    # The plan fixes how many custodians there are, so the list has one reading.
    for message in (plan, announcement, *custodians, *readies):
        state.update(len(message).to_bytes(8, "big"))
        state.update(message)
    return state.digest()


def _signed(kind: str, name: str, content: bytes) -> bytes:
    # The body's digest stands for it: Ed25519 would read a large body twice, and slowly.
    parts = (_DOMAIN, kind.encode(), name.encode(), content)
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def checked_bytes(message: bytes) -> bytes:
    """A message as it is.

    Raises:
        MessageError: It is something else than bytes.
    """
    if not isinstance(message, bytes):
        raise MessageError("a message must be bytes")
    return message


def decode(raw: bytes, kind: type[S], cap: int) -> S:
    """Read what must be of one kind and in the one form that it has; nothing is verified.

    Raises:
        MessageError: Longer than `cap` bytes, malformed, or not canonical.
    """
    if len(checked_bytes(raw)) > cap:
        raise MessageError(f"a message has {len(raw)} bytes, more than {cap}")
    try:
        decoded = msgspec.msgpack.decode(raw, type=prepared(kind), strict=True)
        canonical = msgspec.msgpack.encode(decoded)
    except AggregationError as error:
        # A field's own check: from outside it is a malformed message, not a wrong argument.
        raise MessageError(f"a message does not hold together: {error}") from error
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError("a message is malformed") from error
    if canonical != raw:
        raise MessageError("a message is not in its canonical form")
    return decoded
