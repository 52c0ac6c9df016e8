"""An adapter's tensors: its values in a model, as bytes, and their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.errors import ModelError

_MOMENTS = "server-optimizer."  # no parameter's name has a hyphen


def adapter_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Everything that is not the base model: trained and frozen adapter tensors, and heads."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or "lora_" in name
    }


def set_adapter_tensors(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set what `adapter_tensors` lists.

    Raises:
        ModelError: Names the first tensor that is missing, surplus or of another shape.
    """
    own = adapter_tensors(model)
    for name in sorted(own.keys() | tensors.keys()):
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            raise ModelError(
                f"adapter tensor {name} does not match this model",
                hint="Base model and adapter settings must be those the adapter was made with.",
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def perturb_adapter(model: nn.Module) -> None:
    """Move every tensor of `adapter_tensors` a little, the same way each time.

    A gate that measures a fresh adapter measures nothing: where B is zero, A has no gradient.
    """
    generator = torch.Generator().manual_seed(20260101)
    with torch.no_grad():
        for tensor in adapter_tensors(model).values():
            noise = torch.randn(tensor.shape, generator=generator) * 0.05
            tensor.add_(noise.to(tensor.device, tensor.dtype))


def adapter_bytes(
    model: nn.Module, moments: Mapping[str, NDArray[np.float64]] | None = None
) -> bytes:
    """The adapter as safetensors, equal for equal values.

    Args:
        model: Whose adapter.
        moments: Memory of a server optimizer, kept beside it.
    """
    tensors = {n: t.contiguous().cpu() for n, t in sorted(adapter_tensors(model).items())}
    for name, vector in sorted((moments or {}).items()):
        tensors[_MOMENTS + name] = torch.from_numpy(vector)
    return bytes(safetensors.torch.save(tensors))


def load_adapter_bytes(data: bytes) -> dict[str, torch.Tensor]:
    """Read the adapter that `adapter_bytes` wrote.

    Raises:
        ModelError: It is not safetensors.
    """
    return {n: t for n, t in _load(data).items() if not n.startswith(_MOMENTS)}


def load_moments(data: bytes) -> dict[str, NDArray[np.float64]]:
    """Read the server optimizer's memory that `adapter_bytes` wrote beside an adapter.

    Raises:
        ModelError: It is not safetensors.
    """
    return {
        n.removeprefix(_MOMENTS): t.double().numpy()
        for n, t in _load(data).items()
        if n.startswith(_MOMENTS)
    }


def _load(data: bytes) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"not an adapter in safetensors form: {error}") from error
    return tensors


def adapter_digest(data: bytes) -> str:
    """`sha256:` of an adapter's bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
