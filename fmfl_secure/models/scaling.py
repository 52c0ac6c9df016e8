"""IA3: one learned factor for each activation of keys, values and feed-forward layers.

Liu et al. 2022, arXiv 2205.05638. The factors start at 1. PEFT keeps them where per-record
gradients cannot see them, so they are a layer of their own here; their files are PEFT's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.architectures import Architecture
from fmfl_secure.models.low_rank import LINEAR


class Scale(nn.Module):
    """Multiplies the last axis by a learned factor for each of its elements."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Shape (..., width) to the same."""
        return activations * self.weight


class ScaledLinear(nn.Module):
    """A frozen linear layer whose inputs or outputs are scaled.

    Args:
        linear: The layer.
        inputs: Scale what goes in, rather than what comes out.
    """

    def __init__(self, linear: nn.Module, *, inputs: bool) -> None:
        super().__init__()
        self.linear = linear
        self.inputs = inputs
        self.scale = Scale(_widths(linear)[0 if inputs else 1])

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        if self.inputs:
            scaled: torch.Tensor = self.linear(self.scale(activations))
            return scaled
        output: torch.Tensor = self.scale(self.linear(activations))
        return output

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The linear layer with the factors in its weights."""
        own = dict(self.linear.named_parameters())
        factors, outputs_first = self.scale.weight, isinstance(self.linear, nn.Linear)
        by_row = outputs_first != self.inputs
        own["weight"].mul_(factors.unsqueeze(1) if by_row else factors)
        if not self.inputs and "bias" in own:
            own["bias"].mul_(factors)
        return self.linear


def attach(
    encoder: nn.Module, architecture: Architecture, layers: Sequence[nn.Module]
) -> nn.Module:
    """Scale keys, values and feed-forward activations of these layers.

    Raises:
        ModelError: A layer lacks one of the linear layers that the architecture names.
    """
    places = [(path, False) for path in architecture.scaled_outputs]
    places += [(path, True) for path in architecture.scaled_inputs]
    for layer in layers:
        for path, inputs in places:
            parent, _, name = path.rpartition(".")
            try:
                owner = layer.get_submodule(parent)
                linear = owner.get_submodule(name)
            except AttributeError as error:
                raise ModelError(f"a layer of the base model has no {path}") from error
            if not isinstance(linear, LINEAR):
                raise ModelError(f"{path} is a {type(linear).__name__}, expected a linear layer")
            setattr(owner, name, ScaledLinear(linear, inputs=inputs))
    return encoder


def scaled_layers(model: nn.Module) -> dict[str, ScaledLinear]:
    """The scaled layers by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, ScaledLinear)}


def merge(model: nn.Module) -> None:
    """Put every factor into its layer's weights, and take the layer of factors out."""
    for name, scaled in scaled_layers(model).items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, scaled.merged())


def _widths(linear: nn.Module) -> tuple[int, int]:
    """Inputs and outputs."""
    if isinstance(linear, nn.Linear):
        return linear.in_features, linear.out_features
    inputs, outputs = dict(linear.named_parameters())["weight"].shape
    return inputs, outputs
