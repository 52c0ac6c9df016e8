"""Frames that travel through Flower: signed orders to parties, and their signed answers.

An order is what the HTTPS server would answer a party that asks for work, with the documents it
would fetch; an answer is all that the party would send because of it. Over HTTPS certificates say
who speaks. Here whoever runs the SuperLink could say anything, so an order carries the
coordinator's signature, an answer the party's, and an answer is to one order only.

A frame is MessagePack: the head, its Ed25519 signature, and the bytes that the head names by
SHA-256.

`transports.flower.server` seals orders and opens answers, and `transports.flower.party` does the
reverse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from aggregation import AggregationError, Identity, PublicIdentity
from aggregation.protocol import prepared
from fmfl_secure.errors import FrameRefused
from fmfl_secure.runtime.anchor_registry import AnchorsForSite
from fmfl_secure.runtime.transport import DocumentRef, Place, RunId, Sequence, Size
from fmfl_secure.settings.service import PartBytes

HELLO: Final = (
    "hello"  # the step by which a node is asked who it is; all others are `task_board.Step`
)
_DOMAIN: Final = b"fmfl-secure/engines/flower/v1/"

Code = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z_.-]{0,47}$")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of everything here: immutable, no unknown fields."""


class Order(_Strict, frozen=True, forbid_unknown_fields=True):
    """An order to one party; fields as `runtime.transport.Work` but for these.

    Attributes:
        package: What the coordinator runs; see `package.fingerprint`.
        party: Whom it is for; empty for a greeting.
        sequence: Higher than in any earlier order to this party.
        documents: What the party needs, by name; the bytes are in the frame.
        heads: What the server keeps of ledgers' heads; None where the step needs none.
        lists: Membership lists from the second on, base64.
    """

    package: str
    party: str
    sequence: Sequence
    step: str
    run: RunId = ""
    round: Place = 0
    attempt: Place = 0
    documents: dict[str, DocumentRef] = {}
    sizes: list[Size] = []
    membership: Place = 0
    part_bytes: PartBytes = 1 << 20
    heads: AnchorsForSite | None = None
    lists: list[str] = []


class Present(_Strict, frozen=True, forbid_unknown_fields=True, tag="present"):
    """The answer to a greeting: what this party runs."""

    package: str


class Sent(_Strict, frozen=True, forbid_unknown_fields=True, tag="sent"):
    """One of the protocol's messages; its bytes are in the frame."""

    kind: str
    document: DocumentRef


class Joined(_Strict, frozen=True, forbid_unknown_fields=True, tag="joined"):
    """Says that the site takes part."""

    visibility: Literal["private", "public"]


class Refused(_Strict, frozen=True, forbid_unknown_fields=True, tag="refused"):
    """The site takes no part."""

    code: Code


class Failed(_Strict, frozen=True, forbid_unknown_fields=True, tag="failed"):
    """The party cannot go on with the attempt."""

    code: Code


class Stating(_Strict, frozen=True, forbid_unknown_fields=True, tag="stated"):
    """The site's statement of its ledger."""

    statement: Any
    signature: str
    final: bool


class HeadGiven(_Strict, frozen=True, forbid_unknown_fields=True, tag="head"):
    """The head of the site's ledger."""

    head: str


class StopGiven(_Strict, frozen=True, forbid_unknown_fields=True, tag="stop"):
    """A signed stop of the run, of the party's own or of another's."""

    statement: bytes


class HeadsBrought(_Strict, frozen=True, forbid_unknown_fields=True, tag="heads"):
    """Heads of others' ledgers that the site kept."""

    heads: dict[str, list[str]]


Word = Present | Sent | Joined | Refused | Failed | Stating | HeadGiven | HeadsBrought | StopGiven


class Answer(_Strict, frozen=True, forbid_unknown_fields=True):
    """A party's answer to one order.

    Attributes:
        party: Who.
        order: SHA-256 of the order's head.
        words: In the order they were said.
    """

    party: str
    order: Sha256
    words: list[Word]


class _Frame(_Strict, frozen=True, forbid_unknown_fields=True):
    head: bytes
    signature: Signature
    documents: dict[str, bytes]


_H = TypeVar("_H", Order, Answer)


def seal(identity: Identity, head: Order | Answer, documents: Iterable[bytes] = ()) -> bytes:
    """Sign a head and put its documents beside it.

    Args:
        identity: Who says it.
        head: An order or an answer.
        documents: Every document that it names.
    """
    raw = msgspec.msgpack.encode(head)
    signature = identity.sign(_signed(type(head), raw))
    beside = {hashlib.sha256(data).hexdigest(): data for data in documents}
    return msgspec.msgpack.encode(_Frame(raw, signature, beside))


class Opened:
    """A frame whose signature holds.

    Attributes:
        digest: SHA-256 of its head, hexadecimal.
    """

    def __init__(self, head: bytes, documents: Mapping[str, bytes]) -> None:
        self.digest = hashlib.sha256(head).hexdigest()
        self._documents = documents

    def fetch(self, document: DocumentRef) -> bytes:
        """A document, its digest checked.

        Raises:
            FrameRefused: It is not in the frame, or is another one.
        """
        data = self._documents.get(document.sha256, b"")
        if len(data) != document.size or hashlib.sha256(data).hexdigest() != document.sha256:
            raise FrameRefused("a document is not the one that was named")
        return data


def open_frame(frame: bytes, kind: type[_H], signer: PublicIdentity) -> tuple[_H, Opened]:
    """Verify a frame and read its head.

    Raises:
        FrameRefused: It is malformed, of another kind, or not signed by `signer`.
    """
    try:
        outer = msgspec.msgpack.decode(frame, type=prepared(_Frame))
        signer.verify(outer.signature, _signed(kind, outer.head))
        head = msgspec.msgpack.decode(outer.head, type=prepared(kind))
    except (msgspec.MsgspecError, ValueError, RecursionError, AggregationError) as error:
        raise FrameRefused(f"this is no {kind.__name__.lower()} by {signer.name}") from error
    return head, Opened(outer.head, outer.documents)


def claimed_party(frame: bytes) -> str:
    """Who an answer says it is from; nothing about it is verified yet.

    Raises:
        FrameRefused: It is malformed.
    """
    try:
        outer = msgspec.msgpack.decode(frame, type=prepared(_Frame))
        return msgspec.msgpack.decode(outer.head, type=prepared(Answer)).party
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameRefused("this is no answer") from error


def reference(data: bytes) -> DocumentRef:
    """How a head names a document."""
    return DocumentRef(hashlib.sha256(data).hexdigest(), len(data))


def _signed(kind: type[Any], raw: bytes) -> bytes:
    return _DOMAIN + kind.__name__.lower().encode() + b"\0" + hashlib.sha256(raw).digest()
