"""Digests as people read them to each other: groups of four hexadecimal digits."""

from __future__ import annotations

import re


def groups(digest: str) -> str:
    """A digest in groups; a prefix such as `ed25519:` is left out.

    Args:
        digest: Hexadecimal.
    """
    digits = digest.rpartition(":")[2]
    return " ".join(re.findall(".{1,4}", digits))


def typed(text: str) -> str:
    """Digits as somebody typed them, without case, spaces and dashes."""
    return re.sub(r"[\s-]", "", text).lower()
