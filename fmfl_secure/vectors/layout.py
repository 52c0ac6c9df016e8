"""One canonical order of an adapter's trainable tensors, and the flat vector it gives.

Every party compares the layout: sites derive it from their own model
(`fmfl_secure.models.layout`), a server is given it. A vector summed under two different layouts
would be garbage that decrypts without complaint.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.errors import ModelError


@dataclass(frozen=True, slots=True)
class TensorSlot:
    """One tensor's place in the flat vector.

    Attributes:
        name: Parameter name in the model.
        shape: Its shape.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of the tensor's elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class FlatLayout:
    """The trainable tensors that are uploaded, in order of their names.

    Attributes:
        slots: Their places.
    """

    slots: tuple[TensorSlot, ...]

    @property
    def size(self) -> int:
        """Length of the flat vector."""
        return sum(slot.size for slot in self.slots)

    @property
    def digest(self) -> str:
        """`sha256:` over names and shapes in order."""
        listing = json.dumps([[s.name, *s.shape] for s in self.slots], separators=(",", ":"))
        return "sha256:" + hashlib.sha256(listing.encode()).hexdigest()

    def require(self, others: Iterable[tuple[str, int]]) -> None:
        """Check that another party's tensors are these.

        Args:
            others: Name and size of each of its tensors, in its order.

        Raises:
            ModelError: Names the first tensor that differs.
        """
        theirs = list(others)
        for index in range(max(len(self.slots), len(theirs))):
            ours = (
                (self.slots[index].name, self.slots[index].size)
                if index < len(self.slots)
                else None
            )
            other = theirs[index] if index < len(theirs) else None
            if ours != other:
                raise ModelError(
                    f"adapter layouts differ at tensor {index + 1}: here {_describe(ours)}, "
                    f"there {_describe(other)}",
                    hint="Give both sides the same base model, adapter settings and versions.",
                )

    def split(self, vector: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The tensors of a flat vector of shape (size,), by name; views of it.

        Raises:
            ModelError: Wrong length, or a value that is not finite.
        """
        if vector.shape != (self.size,) or not bool(np.isfinite(vector).all()):
            raise ModelError(
                f"cannot set {self.size} parameters from a vector of shape {vector.shape}, "
                "or it holds values that are not finite"
            )
        parts, start = {}, 0
        for slot in self.slots:
            parts[slot.name] = vector[start : start + slot.size].reshape(slot.shape)
            start += slot.size
        return parts


def _describe(slot: tuple[str, int] | None) -> str:
    return "nothing" if slot is None else f"{slot[0]} with {slot[1]} elements"
