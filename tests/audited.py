"""Audits of what may be correct, repeated as what they promise demands."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

# A test of a share is failed with this probability if the share is what it should be.
SIGNIFICANCE = 1e-6
# An audit is wrong about a correct mechanism in one of 20 runs at most, so that this many in a row
# are with a probability below SIGNIFICANCE. A fault is seen by each of them.
AUDITS = math.ceil(math.log(SIGNIFICANCE, 0.05))

Found = TypeVar("Found")


def unless_refuted(audit: Callable[[], Found], alarm: Callable[[Found], bool]) -> Found:
    """Audit up to AUDITS times; return the first that raises no alarm, else the last."""
    for _ in range(AUDITS):
        found = audit()
        if not alarm(found):
            break
    return found


def settled(audit: Callable[[], Found]) -> Found:
    """The same, of records of the product's audits."""
    return unless_refuted(audit, lambda found: found.above_claim)
