"""An adapter's tensors: its values in a model, and as bytes."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.vectors.adapter import MOMENTS


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
        ModelError: As of `require_adapter`.
    """
    require_adapter(model, tensors)
    with torch.no_grad():
        for name, tensor in adapter_tensors(model).items():
            tensor.copy_(tensors[name])


def require_adapter(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Require that tensors are an adapter of a model, and set nothing.

    Raises:
        ModelError: Names the first tensor that is missing, surplus or of another shape.
    """
    own = adapter_tensors(model)
    for name in sorted(own.keys() | tensors.keys()):
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            raise ModelError(
                f"adapter tensor {name} does not match this model",
                hint="Use the base model and the adapter settings that it was made with.",
            )


def perturb_adapter(model: nn.Module) -> None:
    """Move every tensor of `adapter_tensors` a little, the same way each time.

    A gate that measures a fresh adapter measures nothing: where B is zero, A has no gradient.
    """
    generator = torch.Generator().manual_seed(20260101)
    with torch.no_grad():
        for tensor in adapter_tensors(model).values():
            noise = torch.randn(tensor.shape, generator=generator) * 0.05
            tensor.add_(noise.to(tensor.device, tensor.dtype))


def adapter_bytes(model: nn.Module) -> bytes:
    """A model's adapter as safetensors, equal for equal values."""
    tensors = {n: t.contiguous().cpu() for n, t in sorted(adapter_tensors(model).items())}
    return bytes(safetensors.torch.save(tensors))


def load_adapter_bytes(data: bytes) -> dict[str, torch.Tensor]:
    """Read an adapter's tensors; what the server optimizer keeps beside them is left out.

    Raises:
        ModelError: It is not safetensors.
    """
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"not an adapter in safetensors form: {error}") from error
    return {n: t for n, t in tensors.items() if not n.startswith(MOMENTS)}
