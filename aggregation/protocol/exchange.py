"""Key material from site to site (step 4): a signed index, and one part for each reader.

A site has something for every other: an ML-KEM ciphertext, heads that it keeps of the other's
journals, a share in a box. All of it goes to the server once. A reader is given the index, which is
signed and the same for everybody, and its own part alone, with the proof that the index covers it
(`digest_tree`): what a site is given grows with the sites that there are and not with their square.

What all must see alike is in the index itself. A part that is not the one that was signed for its
reader is refused, as if the signature were wrong: whoever handed it on may have altered it. What
was signed and does not hold is the sender's fault, and shown by index, part and proof together.

A site composes its message (`roles.site`); the server reads it whole and hands out each part
(`runtime.attempt_state`); every other site and custodian reads its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Final

import msgspec

from aggregation.ckks.parameters import MAX_SITES
from aggregation.crypto import digest_tree, graph
from aggregation.crypto.identity import Identity
from aggregation.crypto.sealed_box import KEM_CIPHERTEXT_SIZE
from aggregation.errors import CohortError
from aggregation.protocol import messages
from aggregation.protocol.messages import (
    DEALT_BOX_SIZE,
    DIGEST_SIZE,
    HEAD_SIZE,
    MAX_CUSTODIANS,
    MAX_HEADS,
    Body,
    Bytes32,
)
from aggregation.protocol.round import FixedCohort

_PART_CAP: Final = KEM_CIPHERTEXT_SIZE + MAX_HEADS * HEAD_SIZE + DEALT_BOX_SIZE + DIGEST_SIZE + 256
# Above `ALL_PAIRS_UP_TO` sites each names fewer than so many.
_MOST_READERS: Final = graph.ALL_PAIRS_UP_TO + MAX_CUSTODIANS


class Exchange(Body, frozen=True, forbid_unknown_fields=True):
    """The index: what every reader is given.

    Attributes:
        transcript: Of the attempt.
        parts: Root of the tree over the parts, in the cohort's order, custodians last.
        chosen: In a cohort above `graph.ALL_PAIRS_UP_TO`, the neighbours that the sender chose:
            their positions, in order, two bytes each, big endian.
        head: The head that the sender's journal has; empty from who tells none.
        key: From the first site, where sites may vanish, the commitment to the MAC key; from the
            others there zeros.
    """

    KIND: ClassVar[str] = "exchange"
    CAP: ClassVar[int] = 1024 + HEAD_SIZE + 2 * MAX_SITES

    transcript: Bytes32
    parts: Bytes32
    chosen: bytes | msgspec.UnsetType = msgspec.UNSET
    head: bytes = b""
    key: Bytes32 | msgspec.UnsetType = msgspec.UNSET


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One reader's part of an exchange message.

    Attributes:
        ciphertext: In a hybrid plan, for a neighbour that the sender initiates to and for a
            custodian: ML-KEM.
        heads: Those that the sender keeps of the reader's journals (`witness`).
        box: Where sites may vanish, for each other site, `DEALT_BOX_SIZE` bytes: a salt, its share
            of the sender's self-mask, and from the first site the MAC key, from others zeros.
        commitment: There, to the share of this reader, `shamir.commitment`; the sender has one too.
    """

    ciphertext: bytes = b""
    heads: bytes = b""
    box: bytes = b""
    commitment: bytes = b""


class Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An exchange message as a site sends it to the server: the signed index, and every part."""

    CAP: ClassVar[int] = Exchange.CAP + _MOST_READERS * (_PART_CAP + 8) + 1024

    index: bytes
    parts: tuple[bytes, ...]


class Handed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An exchange message as one reader gets it: signed index, its part, proof from the leaf up."""

    CAP: ClassVar[int] = Exchange.CAP + _PART_CAP + 1024

    index: bytes
    part: bytes
    proof: tuple[Bytes32, ...]


EXCHANGE_CAP: Final = Whole.CAP  # bytes of what a site sends the server


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A verified exchange message, or of it what one reader was handed.

    Attributes:
        sender: Its sender's position.
        initiates: Positions of the neighbours that it has key material for.
        head: The sender's journal's.
        key: Where sites may vanish, the commitment to the MAC key, or zeros.
        parts: By reader's place: the cohort's positions, then the custodians.
    """

    sender: int
    initiates: tuple[int, ...]
    head: bytes
    key: bytes
    parts: Mapping[int, Part]


def compose(
    identity: Identity,
    cohort: FixedCohort,
    parts: Mapping[int, Part],
    *,
    chosen: tuple[int, ...] = (),
    head: bytes = b"",
    key: bytes | msgspec.UnsetType = msgspec.UNSET,
) -> bytes:
    """Sign an exchange message.

    Args:
        identity: The sender's.
        cohort: The verified cohort.
        parts: By reader's place; of whom there is none, an empty one is made.
        chosen: Where sites choose, the sender's neighbours, in order.
        head: Of the sender's journal.
        key: Where sites may vanish, the commitment to the MAC key, or zeros.
    """
    encoded = [
        msgspec.msgpack.encode(parts.get(place, Part())) for place in _readers(cohort, chosen)
    ]
    index = Exchange(
        cohort.transcript,
        digest_tree.tree(encoded)[0],
        struct.pack(f">{len(chosen)}H", *chosen) if chosen else msgspec.UNSET,
        head,
        key,
    )
    return msgspec.msgpack.encode(Whole(messages.seal(identity, index), tuple(encoded)))


def _readers(cohort: FixedCohort, chosen: tuple[int, ...]) -> tuple[int, ...]:
    """Places that a message has a part for, in order: sites, then custodians behind them all."""
    sites = len(cohort.members)
    custodians = range(sites, sites + len(cohort.custodians))
    return (*(chosen if cohort.chooses else range(sites)), *custodians)


def read_exchange(cohort: FixedCohort, message: bytes) -> Exchanged:
    """Verify a whole exchange message (step 4): what the server does.

    Raises:
        RefusedError: Malformed, unsigned, of another cohort, or with parts that it does not cover.
    """
    whole = messages.decode(message, Whole, Whole.CAP)
    own, index, chosen = _read_index(cohort, whole.index)
    places = _readers(cohort, chosen)
    if len(whole.parts) != len(places) or digest_tree.tree(whole.parts)[0] != index.parts:
        raise CohortError(f"the exchange message of {cohort.names[own]} has parts it did not sign")
    return _exchanged(cohort, own, index, chosen, dict(zip(places, whole.parts, strict=True)))


def read_handed(cohort: FixedCohort, place: int, message: bytes) -> Exchanged:
    """Verify what one reader is handed of an exchange message (step 4).

    Args:
        cohort: The verified cohort.
        place: The reader's: its position, or of a custodian its own behind all sites.
        message: What it was handed.

    Raises:
        RefusedError: Malformed, unsigned, of another cohort, or not the part for this reader.
    """
    handed = messages.decode(message, Handed, Handed.CAP)
    own, index, chosen = _read_index(cohort, handed.index)
    places, name = _readers(cohort, chosen), cohort.names[own]
    if place not in places:
        raise CohortError(f"the exchange message of {name} has no part for this party")
    leaf = places.index(place)
    if digest_tree.root_from(handed.part, leaf, len(places), handed.proof) != index.parts:
        raise CohortError(f"what is handed on of {name} is not what it signed for this party")
    return _exchanged(cohort, own, index, chosen, {place: handed.part})


def handed_by(message: bytes) -> str:
    """The name that what a reader was handed claims to come from; nothing is verified yet.

    Raises:
        MessageError: It has another form.
    """
    handed = messages.decode(message, Handed, Handed.CAP)
    return messages.sender(handed.index, Exchange.CAP)


def hand_out(
    cohort: FixedCohort, exchanges: Mapping[bytes, Sequence[int]]
) -> dict[str, list[bytes]]:
    """By name, what each site and custodian is handed of the others' exchange messages.

    Args:
        cohort: The verified cohort.
        exchanges: Whole messages that were verified, each with the places that it has parts for, as
            `Exchanged.parts` has them.
    """
    parties = (*cohort.names, *(identity.name for identity in cohort.round.plan.custodians))
    handed: dict[str, list[bytes]] = {name: [] for name in parties}
    for message, places in exchanges.items():
        whole = messages.decode(message, Whole, Whole.CAP)
        own = messages.sender(whole.index, Exchange.CAP)
        _, proofs = digest_tree.tree(whole.parts)
        for place, part, proof in zip(places, whole.parts, proofs, strict=True):
            if parties[place] != own:
                given = msgspec.msgpack.encode(Handed(whole.index, part, proof))
                handed[parties[place]].append(given)
    return handed


def verify_and_hand_out(cohort: FixedCohort, exchanges: Iterable[bytes]) -> dict[str, list[bytes]]:
    """The same of messages that were not verified yet.

    Raises:
        RefusedError: One does not hold.
    """
    return hand_out(cohort, {each: tuple(read_exchange(cohort, each).parts) for each in exchanges})


def _read_index(cohort: FixedCohort, message: bytes) -> tuple[int, Exchange, tuple[int, ...]]:
    own = cohort.position(messages.sender(message, Exchange.CAP))
    signer = cohort.members[own].identity
    index = messages.unseal(message, Exchange, signer)
    if index.transcript != cohort.transcript:
        raise CohortError(f"the exchange message of {signer.name} is of another cohort")
    if len(index.head) not in {0, HEAD_SIZE}:
        raise CohortError(f"the exchange message of {signer.name} tells heads in another form")
    if (index.key is not msgspec.UNSET) != cohort.shares:
        raise CohortError(
            f"the exchange message of {signer.name} has shares where none belong, or none"
        )
    return own, index, _read_chosen(cohort, own, index)


def _read_chosen(cohort: FixedCohort, own: int, index: Exchange) -> tuple[int, ...]:
    name, sites = cohort.names[own], len(cohort.members)
    if not cohort.chooses:
        if index.chosen is not msgspec.UNSET:
            raise CohortError(f"{name} chooses neighbours where all sites are")
        return cohort.initiates(own)
    if index.chosen is msgspec.UNSET or len(index.chosen) != 2 * graph.choices(sites):
        raise CohortError(f"{name} chooses another number of neighbours than it must")
    chosen = struct.unpack(f">{len(index.chosen) // 2}H", index.chosen)
    if chosen[-1] >= sites or own in chosen or any(a >= b for a, b in pairwise(chosen)):
        raise CohortError(f"{name} chooses neighbours that are none")
    return chosen


def _exchanged(
    cohort: FixedCohort,
    own: int,
    index: Exchange,
    initiates: tuple[int, ...],
    encoded: Mapping[int, bytes],
) -> Exchanged:
    sites, neighbours = len(cohort.members), set(initiates)
    parts = {
        place: _read_part(cohort, own, place, part, keyed=place >= sites or place in neighbours)
        for place, part in encoded.items()
    }
    key = b"" if index.key is msgspec.UNSET else index.key
    return Exchanged(own, initiates, index.head, key, parts)


def _read_part(cohort: FixedCohort, own: int, place: int, encoded: bytes, *, keyed: bool) -> Part:
    part, name = messages.decode(encoded, Part, _PART_CAP), cohort.names[own]
    is_site, shares = place < len(cohort.members), cohort.shares
    if len(part.ciphertext) != (KEM_CIPHERTEXT_SIZE if cohort.round.hybrid and keyed else 0):
        raise CohortError(f"the exchange message of {name} has another length")
    most = MAX_HEADS * HEAD_SIZE if is_site and place != own else 0
    if len(part.heads) % HEAD_SIZE or len(part.heads) > most:
        raise CohortError(f"the exchange message of {name} tells heads in another form")
    box = DEALT_BOX_SIZE if shares and is_site and place != own else 0
    commitment = DIGEST_SIZE if shares and is_site else 0
    if (len(part.box), len(part.commitment)) != (box, commitment):
        raise CohortError(f"the exchange message of {name} has shares where none belong, or none")
    return part
