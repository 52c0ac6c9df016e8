"""An adapter's bytes, read and written as arrays.

What a round starts from is one safetensors file: the adapter and, beside it, the memory of the
server optimizer. `fmfl_secure.models.adapters` reads and writes the same bytes from a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fmfl_secure.errors import ModelError
from fmfl_secure.vectors.layout import FlatLayout

MOMENTS: Final = "server-optimizer."  # no parameter's name has a hyphen


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's tensors and what the server optimizer remembers.

    Attributes:
        tensors: By parameter name; float32, as adapters are whatever the base model is kept in.
        moments: float64 vectors by name.
    """

    tensors: Mapping[str, NDArray[Any]]
    moments: Mapping[str, NDArray[np.float64]]

    @classmethod
    def read(cls, data: bytes) -> Adapter:
        """Read what `encode` or a model wrote.

        Raises:
            ModelError: It is not safetensors, or of a type that NumPy does not have.
        """
        try:
            tensors = safetensors.numpy.load(data)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise ModelError(f"not an adapter in safetensors form: {error}") from error
        return cls(
            {n: t for n, t in tensors.items() if not n.startswith(MOMENTS)},
            {
                n.removeprefix(MOMENTS): t.astype(np.float64)
                for n, t in tensors.items()
                if n.startswith(MOMENTS)
            },
        )

    def encode(self) -> bytes:
        """As safetensors, equal for equal values."""
        tensors = {n: np.ascontiguousarray(t) for n, t in sorted(self.tensors.items())}
        tensors |= {MOMENTS + n: v for n, v in sorted(self.moments.items())}
        return bytes(safetensors.numpy.save(tensors))

    def require(self, layout: FlatLayout) -> None:
        """Check that the tensors of a layout are there.

        Raises:
            ModelError: Names the first that is missing or of another shape.
        """
        for slot in layout.slots:
            if slot.name not in self.tensors or self.tensors[slot.name].shape != slot.shape:
                raise ModelError(
                    f"adapter tensor {slot.name} does not match this model",
                    hint="Use the base model and the adapter settings that it was made with.",
                )

    def flatten(self, layout: FlatLayout) -> NDArray[np.float64]:
        """The tensors of a layout as one float64 vector of shape (size,).

        Raises:
            ModelError: See `require`.
        """
        self.require(layout)
        parts = [self.tensors[s.name].astype(np.float64).reshape(-1) for s in layout.slots]
        return np.concatenate(parts)

    def replaced(
        self,
        layout: FlatLayout,
        vector: NDArray[np.float64],
        moments: Mapping[str, NDArray[np.float64]],
    ) -> Adapter:
        """The adapter with a layout's tensors from a vector of shape (size,), and new moments.

        Raises:
            ModelError: Wrong length, or a value that is not finite.
        """
        parts = layout.split(vector)
        own = {n: part.astype(self.tensors[n].dtype) for n, part in parts.items()}
        return Adapter({**self.tensors, **own}, moments)


def adapter_digest(data: bytes) -> str:
    """`sha256:` of an adapter's bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
