"""One canonical order of an adapter's trainable tensors, and the flat vector it gives.

Every party derives the layout from its own model and compares. A vector summed under two
different layouts would be garbage that decrypts without complaint.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

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
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The trainable tensors that are uploaded, in order of their names.

    Attributes:
        slots: Their places.
        kept_back: Trainable parameters whose names start so stay at the site; empty for none.
    """

    slots: tuple[TensorSlot, ...]
    kept_back: str = ""

    @classmethod
    def of(cls, model: nn.Module, *, kept_back: str = "") -> Layout:
        """The layout of a model's parameters that require gradients.

        Args:
            model: The model.
            kept_back: Beginning of the names of those that stay at the site; empty for none.

        Raises:
            ModelError: None does, or none but what stays, or nothing that could stay.
        """
        uploaded = _trainable(model, kept_back)
        if kept_back and len(uploaded) == len(_trainable(model, "")):
            raise ModelError("the model has no head that a site could keep for itself")
        slots = tuple(TensorSlot(n, tuple(p.shape)) for n, p in sorted(uploaded.items()))
        if not slots:
            raise ModelError("the model has no trainable parameters to upload")
        return cls(slots, kept_back)

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
                    hint="Both sides need the same base model, adapter settings and versions.",
                )

    def flatten(self, model: nn.Module) -> NDArray[np.float64]:
        """The parameters as one float64 vector of shape (size,)."""
        parameters = _trainable(model, self.kept_back)
        self._check(parameters)
        with torch.no_grad():
            parts = [parameters[s.name].double().reshape(-1).cpu() for s in self.slots]
            vector: NDArray[np.float64] = torch.cat(parts).numpy()
        return vector

    def unflatten_into(self, model: nn.Module, vector: NDArray[np.float64]) -> None:
        """Set the parameters from a flat vector of shape (size,).

        Raises:
            ModelError: Wrong length, or a value that is not finite.
        """
        parameters = _trainable(model, self.kept_back)
        self._check(parameters)
        if vector.shape != (self.size,) or not bool(np.isfinite(vector).all()):
            raise ModelError(
                f"cannot set {self.size} parameters from a vector of shape {vector.shape}, "
                "or it holds values that are not finite"
            )
        start = 0
        with torch.no_grad():
            for slot in self.slots:
                part = torch.from_numpy(vector[start : start + slot.size].reshape(slot.shape))
                parameters[slot.name].copy_(part)
                start += slot.size

    def _check(self, parameters: dict[str, nn.Parameter]) -> None:
        self.require((n, p.numel()) for n, p in sorted(parameters.items()))


def _trainable(model: nn.Module, kept_back: str) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not (kept_back and name.startswith(kept_back))
    }


def _describe(slot: tuple[str, int] | None) -> str:
    return "nothing" if slot is None else f"{slot[0]} with {slot[1]} elements"
