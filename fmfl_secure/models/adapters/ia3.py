"""IA3: one learned factor for each activation of keys, values and feed-forward layers.

Liu et al. 2022, arXiv 2205.05638. The factors start at 1. PEFT keeps them where per-record
gradients cannot see them, so they are a layer of their own here; their files are PEFT's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.beside import sizes
from fmfl_secure.models.adapters.files import read_tensors, set_tensors
from fmfl_secure.models.adapters.low_rank import linear_kinds
from fmfl_secure.models.adapters.peft_files import PEFT_WEIGHTS, peft_task, save_as_peft
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel


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
        self.scale = Scale(sizes(linear)[0 if inputs else 1])

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


class Ia3(Adapter):
    """Trains the factors alone, which start at 1."""

    name = "ia3"
    trains = "a factor for each activation of keys, values and feed-forward layers"

    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:  # noqa: ARG002
        """It goes with every architecture whose keys, values and feed-forward layers are known."""
        if not architecture.scaled_outputs:
            return "which of its layers give keys and values is in no table", "lora or ffa-lora"
        return None

    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        """Scale keys, values and feed-forward activations.

        Raises:
            ModelError: A layer lacks one of the linear layers that the architecture names.
        """
        places = [(path, False) for path in place.architecture.scaled_outputs]
        places += [(path, True) for path in place.architecture.scaled_inputs]
        for layer in self.layers(place, spec):
            for path, inputs in places:
                parent, _, name = path.rpartition(".")
                try:
                    owner = layer.get_submodule(parent)
                    linear = owner.get_submodule(name)
                except AttributeError as error:
                    raise ModelError(f"a layer of the base model has no {path}") from error
                if not isinstance(linear, linear_kinds()):
                    raise ModelError(
                        f"{path} is a {type(linear).__name__}, expected a linear layer"
                    )
                setattr(owner, name, ScaledLinear(linear, inputs=inputs))
        return place.encoder

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        import peft

        layers = _scaled_layers(encoder)
        config = peft.IA3Config(
            target_modules=sorted(layers),
            feedforward_modules=sorted(name for name, layer in layers.items() if layer.inputs),
            fan_in_fan_out=any(
                not isinstance(layer.linear, nn.Linear) for layer in layers.values()
            ),
            task_type=peft_task(encoder),
            base_model_name_or_path=base.name,
        )
        tensors = {
            # PEFT multiplies inputs by a row and outputs by a column.
            _peft_key(name): layer.scale.weight.reshape((1, -1) if layer.inputs else (-1, 1))
            for name, layer in layers.items()
        }
        save_as_peft(config, tensors, folder)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted = self.attach(place, spec)
        own = {_peft_key(n): layer.scale.weight for n, layer in _scaled_layers(adapted).items()}
        set_tensors(own, read_tensors(folder / PEFT_WEIGHTS), folder / PEFT_WEIGHTS)
        return adapted

    def merge(self, encoder: nn.Module) -> Any:
        """Put every factor into its layer's weights, and take the layer of factors out."""
        for name, scaled in _scaled_layers(encoder).items():
            parent, _, last = name.rpartition(".")
            setattr(encoder.get_submodule(parent), last, scaled.merged())
        return encoder


def _scaled_layers(model: nn.Module) -> dict[str, ScaledLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, ScaledLinear)}


def _peft_key(name: str) -> str:
    return f"base_model.model.{name}.ia3_l"
