"""One digest of many things, and proofs that one of them is among those (RFC 9162, section 2.1).

The Merkle tree of Certificate Transparency, SHA-256: leaves and inner nodes are hashed behind
another byte each, so that none stands for the other. Who has the root, how many leaves there are
and which one is meant checks a leaf with one digest a level, whatever the others are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

_LEAF: Final = b"\x00"
_NODE: Final = b"\x01"


def tree(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """The root over some leaves, and each one's proof.

    Args:
        leaves: At least one, each of any length.

    Returns:
        The root, 32 bytes; for each leaf its proof, digests of 32 bytes from the leaf up.
    """
    # A last node without a neighbour goes up a level as it is; it is the split of RFC 9162 at the
    # largest power of two, from below.
    level = [hashlib.sha256(_LEAF + leaf).digest() for leaf in leaves]
    proofs: list[list[bytes]] = [[] for _ in leaves]
    width = 1  # leaves below a node of this level
    while len(level) > 1:
        for index, proof in enumerate(proofs):
            beside = (index // width) ^ 1
            if beside < len(level):
                proof.append(level[beside])
        pairs = range(0, len(level) - 1, 2)
        above = [_above(level[at], level[at + 1]) for at in pairs]
        level = above + level[len(level) - len(level) % 2 :]
        width *= 2
    return level[0], [tuple(proof) for proof in proofs]


def root_from(leaf: bytes, index: int, leaves: int, proof: Sequence[bytes]) -> bytes | None:
    """The root that a leaf at a place gives with its proof; None where the proof has no such form.

    Args:
        leaf: Its content.
        index: Its place, from 0.
        leaves: How many there are.
        proof: As `tree` gives it.
    """
    digest = hashlib.sha256(_LEAF + leaf).digest()
    rest, last = list(proof), leaves - 1
    while last > 0:
        if index % 2 or index < last:
            if not rest:
                return None
            beside = rest.pop(0)
            digest = _above(beside, digest) if index % 2 else _above(digest, beside)
        index, last = index // 2, last // 2
    return None if rest else digest


def _above(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
