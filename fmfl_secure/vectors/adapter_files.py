"""A finished adapter's files, written from arrays alone.

PEFT decides what these files are, where the base model is; here it is only known which tensor of
which file is which of the adapter's, and what stands in the files that hold none.
"""

from __future__ import annotations

import math
from typing import Annotated

import msgspec
import numpy as np
import safetensors.numpy

from fmfl_secure.errors import ModelError
from fmfl_secure.vectors.adapter import Adapter

Length = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]  # of a tensor's axis, as a file may say


class TensorSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a tensor of a file comes from.

    Attributes:
        name: Of the adapter's tensor.
        shape: In the file; the adapter's own may have other axes, and has the same values in order.
    """

    name: str
    shape: tuple[Length, ...]


class TensorFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A safetensors file.

    Attributes:
        tensors: By the name in the file.
        metadata: Of its header.
    """

    tensors: dict[str, TensorSource]
    metadata: dict[str, str]


class AdapterFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files of a finished adapter's folder.

    Attributes:
        texts: Files that are the same whatever was learned, by name.
        tensors: Safetensors files by name.
    """

    texts: dict[str, str]
    tensors: dict[str, TensorFile]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files, texts first."""
        return (*self.texts, *self.tensors)

    def require(self, adapter: Adapter) -> None:
        """Check that they are of an adapter of this form.

        Raises:
            ModelError: Names a tensor that the adapter lacks or has of another size.
        """
        for path, file in self.tensors.items():
            for name, source in file.tensors.items():
                own = adapter.tensors.get(source.name)
                if (
                    own is None
                    or min(source.shape, default=0) < 0
                    or own.size != math.prod(source.shape)
                ):
                    raise ModelError(f"{path} is not of this adapter: {name} is no {source.name}")

    def render(self, adapter: Adapter) -> dict[str, bytes]:
        """The files with an adapter's values, by name.

        Raises:
            ModelError: See `require`.
        """
        self.require(adapter)
        contents = {name: text.encode() for name, text in self.texts.items()}
        for name, file in self.tensors.items():
            parts = {
                each: np.ascontiguousarray(adapter.tensors[source.name].reshape(source.shape))
                for each, source in file.tensors.items()
            }
            contents[name] = safetensors.numpy.save(parts, metadata=file.metadata or None)
        return contents
