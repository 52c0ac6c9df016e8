"""Adapters: what is trained on a frozen base model, where it starts, and its values as bytes.

Only adapters whose update is a sum can be aggregated under encryption: every kind here is a set
of tensors of a public layout, and the mean of the sites' tensors is the next adapter. One file a
family: `low_rank`, `scaling`, `prompts`, `selective`. Kinds whose update is no weighted sum are
refused in words (`fmfl_secure.settings.refused`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import safetensors.torch
import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models import low_rank, prompts, scaling, selective
from fmfl_secure.models.architectures import Architecture, Tower, find_layers
from fmfl_secure.models.base import BaseModel
from fmfl_secure.settings.types import LOW_RANK_KINDS, AdapterKind
from fmfl_secure.vectors.adapter import MOMENTS

ADAPTER_KINDS: tuple[AdapterKind, ...] = get_args(AdapterKind)
PROMPT_KINDS: frozenset[str] = frozenset({"prompt", "prefix"})


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """Which adapter, where.

    Attributes:
        kind: `lora` (A and B), `ffa-lora` (B), `rolora` (B and A in turns), `ia3` (a factor for
            each activation), `prompt` and `prefix` (virtual tokens), `bitfit` (biases), `norms`,
            `head` (a probe on the frozen encoder), `full` (everything).
        rank: Rank of a low-rank update, >= 1.
        alpha: Scaling numerator; the update is alpha / rank x B A.
        last_layers: Adapters in so many of the last layers; 0 means all.
        target_modules: Names of linear layers; empty takes the architecture's.
        rank_stabilised: Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).
        virtual_tokens: How many a prompt or prefix has, >= 1.
        personal_head: The head is trained, and stays at the site.
    """

    kind: AdapterKind
    rank: int
    alpha: float
    last_layers: int
    target_modules: tuple[str, ...]
    rank_stabilised: bool = False
    virtual_tokens: int = 16
    personal_head: bool = False


def frozen_depth(encoder: nn.Module, tower: Tower, spec: AdapterSpec) -> int:
    """How many of a tower's first layers compute the same for a record at every step."""
    layers = len(find_layers(encoder, tower))
    if spec.kind == "head":
        return layers
    if spec.kind in PROMPT_KINDS:
        return 0
    return max(0, layers - spec.last_layers) if spec.last_layers else 0


def attach_adapter(
    encoder: nn.Module,
    base: BaseModel,
    architecture: Architecture,
    towers: Sequence[Tower],
    spec: AdapterSpec,
) -> nn.Module:
    """Put the adapter on a frozen encoder; trainable afterwards is the adapter, the head apart.

    Initial values come from torch's global generator: seed it with the run's public seed.

    Args:
        encoder: As `BaseModel` loads it; changed in place.
        base: Where it is from.
        architecture: How it is built.
        towers: The stacks of layers that the task uses.
        spec: The adapter.

    Raises:
        ModelError: No layer of the names that should carry it.
    """
    adapted_layers = [
        layer
        for tower in towers
        for layer in find_layers(encoder, tower)[frozen_depth(encoder, tower, spec) :]
    ]
    if spec.kind in LOW_RANK_KINDS:
        return low_rank.attach(
            encoder,
            base_name=base.name,
            layers=adapted_layers,
            wanted=spec.target_modules or architecture.target_modules,
            kind=spec.kind,
            rank=spec.rank,
            alpha=spec.alpha,
            rank_stabilised=spec.rank_stabilised,
        )
    if spec.kind == "ia3":
        return scaling.attach(encoder, architecture, adapted_layers)
    if spec.kind == "prompt":
        return prompts.attach_prompt(encoder, spec.virtual_tokens)
    if spec.kind == "prefix":
        return prompts.attach_prefix(encoder, spec.virtual_tokens, base_name=base.name)
    if spec.kind != "head":
        whole = not spec.last_layers
        selective.unfreeze(encoder, architecture, towers, adapted_layers, spec.kind, whole=whole)
    return encoder


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
