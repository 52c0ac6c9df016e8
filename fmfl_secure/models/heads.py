"""A model's head as safetensors: what is saved beside an adapter, or kept by a site for itself."""

from __future__ import annotations

import safetensors.torch
import torch
from torch import nn

from fmfl_secure.errors import ModelError


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model's head by name; empty where it has none."""
    head = getattr(model, "head", None)
    return dict(head.named_parameters()) if isinstance(head, nn.Module) else {}


def head_bytes(model: nn.Module) -> bytes:
    """The head as the bytes of a safetensors file, as finished adapters have one.

    Raises:
        ModelError: The model has no head.
    """
    tensors = {
        name: parameter.detach().contiguous().cpu()
        for name, parameter in sorted(head_parameters(model).items())
    }
    if not tensors:
        raise ModelError("this model has no head")
    return bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))


def set_head(model: nn.Module, data: bytes) -> None:
    """Set a model's head from what `head_bytes` wrote.

    Raises:
        ModelError: It is not safetensors, or not a head of this model.
    """
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"not a head in safetensors form: {error}") from error
    own = head_parameters(model)
    for name in sorted(own.keys() | tensors.keys()):
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            raise ModelError(f"the head does not fit this model: {name}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
