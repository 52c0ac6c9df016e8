"""Exchange messages as a colluding site, or whoever carries them, would have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from aggregation import Identity
from aggregation.crypto import digest_tree
from aggregation.protocol import messages
from aggregation.protocol.exchange import Exchange, Handed, Part, Whole


def index_of(message: bytes, identity: Identity) -> Exchange:
    """The index of a whole message."""
    return messages.unseal(whole(message).index, Exchange, identity.public)


def part_of(message: bytes, leaf: int) -> Part:
    """One part of a whole message, where all pairs are neighbours by its reader's position."""
    return msgspec.msgpack.decode(whole(message).parts[leaf], type=Part)


def whole(message: bytes) -> Whole:
    return msgspec.msgpack.decode(message, type=Whole)


def signed_anew(
    identity: Identity,
    message: bytes,
    altered: Mapping[int, Mapping[str, Any]] | None = None,
    **changes: object,
) -> bytes:
    """What its sender signs instead: with other parts, by their leaves, or another index."""
    encoded = list(whole(message).parts)
    for leaf, fields in (altered or {}).items():
        encoded[leaf] = msgspec.msgpack.encode(
            msgspec.structs.replace(part_of(message, leaf), **fields)
        )
    root = digest_tree.tree(encoded)[0]
    body = msgspec.structs.replace(index_of(message, identity), **{"parts": root, **changes})
    return msgspec.msgpack.encode(Whole(messages.seal(identity, body), tuple(encoded)))


def handed_anew(given: bytes, **changes: object) -> bytes:
    """What whoever carries it makes of what a reader is handed."""
    body = msgspec.msgpack.decode(given, type=Handed)
    return msgspec.msgpack.encode(msgspec.structs.replace(body, **changes))
