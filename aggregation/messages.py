"""The messages of a round: versioned, size-capped, signed, and of one form only.

An envelope carries the exact bytes of a body and an Ed25519 signature over the protocol version,
the kind of message, the sender and the SHA-256 of those bytes; a signature for one kind never
serves for another.
Both layers are MessagePack with named fields. Unknown fields, other types and any encoding but the
canonical one are refused, so a message has exactly one form and a digest names exactly one message.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, ClassVar, Final, TypeVar

import msgspec

from .errors import AggregationError, MessageError, PlanError, SignatureError
from .identity import NAME, Identity, PublicIdentity
from .mac import BOX_SIZE, TAG_BYTES
from .pairwise import CLASSICAL, KEY_AGREEMENTS
from .parameters import COLLECTIVE, MAX_SITES, MAX_SIZE, parameter_set
from .quantization import Quantization
from .sealed_box import KEM_CIPHERTEXT_SIZE, KEM_PUBLIC_SIZE

VERSION: Final = 1
_DOMAIN: Final = b"fmfl-secure/aggregation/signature/v1"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_RUN: Final = re.compile(r"[0-9a-f]{8,64}", re.ASCII)

# Largest messages, in bytes. Those that grow with the update are capped by the plan's own size.
PLAN_CAP: Final = 4 * 1024 * 1024
READY_CAP: Final = 2048
OPENING_CAP: Final = 1024
ANNOUNCEMENT_CAP: Final = 1024 * 1024
MAX_CUSTODIANS: Final = 16
COHORT_CAP: Final = ANNOUNCEMENT_CAP + (MAX_SITES + MAX_CUSTODIANS) * READY_CAP
EXCHANGE_CAP: Final = 1024 + (MAX_SITES + MAX_CUSTODIANS) * KEM_CIPHERTEXT_SIZE
SIGMA_CAP: Final = 64 * 1024
APPROVAL_CAP: Final = 64 * 1024
DIGEST_SIZE: Final = 32  # bytes

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=TAG_BYTES, max_length=TAG_BYTES)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Counter = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what an envelope carries."""

    KIND: ClassVar[str] = ""


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site a plan invites.

    Attributes:
        identity: Name and public key.
        weight: Weight over the largest, in (0, 1]; public, and coarse.
    """

    identity: PublicIdentity
    weight: float = 1.0

    def __post_init__(self) -> None:
        # Weights below a thousandth vanish on the grid and are a mistake more often than a wish.
        if not 1e-3 <= self.weight <= 1.0:
            raise PlanError(f"weight {self.weight} of {self.identity.name} is not 0.001 to 1")


class RoundPlan(Body, frozen=True, forbid_unknown_fields=True):
    """What a round is: everything that all parties must agree on before it starts.

    Attributes:
        federation: Name of the federation.
        run: Identifier of the training run, 8 to 64 hexadecimal digits.
        round: Number of the round, from 1.
        attempt: Number of the attempt at this round, from 1.
        suite: Protocol suite.
        parameter_set: Id in the vetted table.
        quantization: The grid of the update.
        members: Sites invited; their order is the order of the cohort.
        aggregator: Who adds.
        decryptor: Who opens the sum.
        coordinator: Who signs this plan.
        adapter_digest: `sha256:` of the current global adapter.
        layout_digest: `sha256:` of the names and shapes of its tensors.
        base_model_digest: `sha256:` of the base model.
        training_digest: `sha256:` of the public training settings.
        min_cohort: Smallest cohort, at least 3.
        key_agreement: How sites agree on pairwise secrets: `x25519`, or `x25519-mlkem768` with
            an `exchange` message more.
        custodians: Parties that must all approve before the sum opens; collective suite only.
        membership_digest: `sha256:` of the membership list the plan was made under; may be empty.
    """

    KIND: ClassVar[str] = "plan"

    federation: str
    run: str
    round: Counter
    attempt: Counter
    suite: str
    parameter_set: str
    quantization: Quantization
    members: tuple[Member, ...]
    aggregator: PublicIdentity
    decryptor: PublicIdentity
    coordinator: PublicIdentity
    adapter_digest: str
    layout_digest: str
    base_model_digest: str
    training_digest: str
    min_cohort: int = 3
    key_agreement: str = CLASSICAL
    custodians: tuple[PublicIdentity, ...] = ()
    membership_digest: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.federation):
            raise PlanError("the federation's name must be 1 to 64 letters, digits and . _ -")
        if not _RUN.fullmatch(self.run):
            raise PlanError("the run must be 8 to 64 hexadecimal digits")
        for name in ("adapter", "layout", "base_model", "training"):
            if not _DIGEST.fullmatch(getattr(self, f"{name}_digest")):
                raise PlanError(f"{name}_digest must be 'sha256:' and 64 hexadecimal digits")
        if self.membership_digest and not _DIGEST.fullmatch(self.membership_digest):
            raise PlanError("membership_digest must be empty, or 'sha256:' and 64 digits")
        if not 3 <= self.min_cohort <= len(self.members):
            raise PlanError(
                f"min_cohort {self.min_cohort} is not 3 to {len(self.members)}, the members invited"
            )
        keys = [m.identity.key for m in self.members]
        names = [m.identity.name for m in self.members]
        if len(set(keys)) != len(keys) or len(set(names)) != len(names):
            raise PlanError("two members have one name or one key")
        if self.aggregator.key == self.decryptor.key:
            raise PlanError("the aggregator and the decryptor must be two parties")
        self._check_custodians()
        known: dict[str, bytes] = {}
        parties = (self.aggregator, self.decryptor, *self.custodians)
        for party in (*(m.identity for m in self.members), *parties):
            if known.setdefault(party.name, party.key) != party.key:
                raise PlanError(f"the name {party.name} stands for two keys")
        chosen = parameter_set(self.parameter_set)
        if chosen.suite != self.suite:
            raise PlanError(f"{self.parameter_set} belongs to the suite {chosen.suite}")
        chosen.encoding(len(self.members), self.quantization.bits)
        if self.key_agreement not in KEY_AGREEMENTS:
            raise PlanError(f"key_agreement must be one of: {', '.join(KEY_AGREEMENTS)}")

    def _check_custodians(self) -> None:
        if not self.custodians:
            return
        if self.suite != COLLECTIVE:
            raise PlanError(f"custodians need the suite {COLLECTIVE}")
        if len(self.custodians) > MAX_CUSTODIANS:
            raise PlanError(f"{len(self.custodians)} custodians are more than {MAX_CUSTODIANS}")
        keys = [c.key for c in self.custodians]
        others = {self.aggregator.key, self.decryptor.key, *(m.identity.key for m in self.members)}
        if len(set(keys)) != len(keys) or others & set(keys):
            raise PlanError("a custodian must be a party of its own")


class Announcement(Body, frozen=True, forbid_unknown_fields=True):
    """The decryptor's fresh public material for one plan."""

    KIND: ClassVar[str] = "announcement"

    plan: Bytes32
    material: bytes


class Ready(Body, frozen=True, forbid_unknown_fields=True):
    """A site's single-use keys; sent once its update is stored and charged.

    Attributes:
        plan: Digest of the plan.
        key: X25519.
        kem: ML-KEM-768 in a hybrid plan, else empty.
    """

    KIND: ClassVar[str] = "ready"

    plan: Bytes32
    key: Bytes32
    kem: bytes = b""

    def __post_init__(self) -> None:
        if len(self.kem) not in {0, KEM_PUBLIC_SIZE}:
            raise MessageError("an ML-KEM key has another length")


class CustodianReady(Ready, frozen=True, forbid_unknown_fields=True):
    """A custodian's single-use keys for one plan; fields as `Ready`."""

    KIND: ClassVar[str] = "custodian-ready"


class Cohort(Body, frozen=True, forbid_unknown_fields=True):
    """Who takes part: the announcement and every ready message, byte for byte."""

    KIND: ClassVar[str] = "cohort"

    plan: Bytes32
    announcement: bytes
    readies: tuple[bytes, ...]
    custodians: tuple[bytes, ...] = ()


class Exchange(Body, frozen=True, forbid_unknown_fields=True):
    """A site's ML-KEM ciphertexts: for the neighbours it initiates to, then for the custodians."""

    KIND: ClassVar[str] = "exchange"

    transcript: Bytes32
    ciphertexts: bytes


class Sigma(Body, frozen=True, forbid_unknown_fields=True):
    """A site's masked secret in a box for the decryptor; the collective suite's last chunk."""

    KIND: ClassVar[str] = "sigma"

    transcript: Bytes32
    box: bytes


class UploadManifest(Body, frozen=True, forbid_unknown_fields=True):
    """What a site uploads.

    Attributes:
        transcript: Of the attempt.
        chunk_digests: SHA-256 of each chunk in order.
        commitment: H(b_i).
        mac_boxes: From the first site of the cohort, the MAC key in a box for each other; from
            the others as many zeros, so that all uploads are of one size.
    """

    KIND: ClassVar[str] = "upload"

    transcript: Bytes32
    chunk_digests: bytes
    commitment: Bytes32
    mac_boxes: bytes


class OpeningList(Body, frozen=True, forbid_unknown_fields=True):
    """The aggregator's statement of what lies with it.

    Attributes:
        transcript: Of the attempt.
        manifests: SHA-256 of every manifest of the cohort.
        first: The first of them, whole: the others find their MAC key in it.
    """

    KIND: ClassVar[str] = "opening-list"

    transcript: Bytes32
    manifests: tuple[Bytes32, ...]
    first: bytes


class Confirmation(Body, frozen=True, forbid_unknown_fields=True):
    """The decryptor's word that every secret of an opening list came and can be opened."""

    KIND: ClassVar[str] = "confirmation"

    opening_list: bytes


class Opening(Body, frozen=True, forbid_unknown_fields=True):
    """A site's seed b_i and its masked tags, for one list and no other."""

    KIND: ClassVar[str] = "opening"

    transcript: Bytes32
    opening_list: Bytes32
    seed: Bytes32
    tags: Bytes16


class Approval(Body, frozen=True, forbid_unknown_fields=True):
    """A custodian's word for one list: the sum of its streams, packed residues."""

    KIND: ClassVar[str] = "approval"

    transcript: Bytes32
    opening_list: Bytes32
    streams: bytes


class SumManifest(Body, frozen=True, forbid_unknown_fields=True):
    """The sum the aggregator hands over: SHA-256 of each chunk in order, and the summed tags."""

    KIND: ClassVar[str] = "sum"

    transcript: Bytes32
    opening_list: Bytes32
    chunk_digests: bytes
    tags: Bytes16


class Release(Body, frozen=True, forbid_unknown_fields=True):
    """The released integers, little-endian, in the narrowest width the cohort's range allows."""

    KIND: ClassVar[str] = "release"

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
    signature = identity.sign(_signed(body.KIND, name, raw))
    return msgspec.msgpack.encode(_Envelope(VERSION, body.KIND, name, raw, signature))


def sender(message: bytes, cap: int) -> str:
    """The name a message claims to come from; nothing about it is verified yet.

    Raises:
        MessageError: Not an envelope.
    """
    return _decode(message, _Envelope, cap).sender


def unseal(message: bytes, body: type[B], signer: PublicIdentity, cap: int) -> B:
    """Verify an envelope and read its body.

    Args:
        message: What came off the wire.
        body: The kind of body expected here and now.
        signer: Whose signature it must carry.
        cap: Largest length in bytes, checked before anything is parsed.

    Raises:
        MessageError: Oversized, malformed, not canonical, or of another kind or version.
        SignatureError: Not by `signer`.
    """
    envelope = _decode(message, _Envelope, cap)
    if envelope.version != VERSION:
        raise MessageError(f"protocol version {envelope.version} is not {VERSION}")
    if envelope.kind != body.KIND:
        raise MessageError(f"expected a message of kind {body.KIND!r}")
    if envelope.sender != signer.name:
        raise SignatureError(f"a message that {signer.name} must send names another sender")
    signer.verify(envelope.signature, _signed(body.KIND, signer.name, envelope.body))
    return _decode(envelope.body, body, cap)


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


def manifest_cap(chunks: int) -> int:
    """Largest manifest of an upload or a sum, in bytes."""
    return 1024 + DIGEST_SIZE * chunks + BOX_SIZE * MAX_SITES


def list_cap(chunks: int) -> int:
    """Largest opening list or confirmation, in bytes."""
    return 4096 + (DIGEST_SIZE + 8) * MAX_SITES + manifest_cap(chunks)


def release_cap(size: int) -> int:
    """Largest release of `size` values, in bytes."""
    return 1024 + 8 * min(size, MAX_SIZE)


def _signed(kind: str, name: str, raw: bytes) -> bytes:
    # The body's digest stands for it: Ed25519 would read a large body twice, and slowly.
    parts = (_DOMAIN, kind.encode(), name.encode(), hashlib.sha256(raw).digest())
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def _decode(raw: bytes, kind: type[S], cap: int) -> S:
    if not isinstance(raw, bytes):
        raise MessageError("a message must be bytes")
    if len(raw) > cap:
        raise MessageError(f"a message has {len(raw)} bytes, more than {cap}")
    try:
        decoded = msgspec.msgpack.decode(raw, type=kind, strict=True)
        canonical = msgspec.msgpack.encode(decoded)
    except AggregationError as error:
        # A field's own check: from outside it is a malformed message, not a wrong argument.
        raise MessageError(f"a message does not hold together: {error}") from error
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError("a message is malformed") from error
    if canonical != raw:
        raise MessageError("a message is not in its canonical form")
    return decoded
