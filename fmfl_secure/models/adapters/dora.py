"""DoRA: a low-rank update of each weight's direction, and a trained length for each of its rows.

Liu et al. 2024, arXiv 2402.09353. A row of the weight is m (W + s B A) / ||W + s B A||, with A and
B as in LoRA and m, trained as well, starting at ||W||. The length below is taken for a constant
when gradients are (their section 4.3). It comes from adapter and base model alone, so no record is
in it; and m is a layer of its own, whose gradients are seen by record. Files are PEFT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.models.adapters.base import AdapterSpec, Place
from fmfl_secure.models.adapters.beside import (
    Beside,
    LinearAdapter,
    around_of,
    dense_weight,
    sizes,
)
from fmfl_secure.models.adapters.files import read_tensors, set_tensors
from fmfl_secure.models.adapters.ia3 import Scale
from fmfl_secure.models.adapters.peft_files import PEFT_WEIGHTS, peft_task, save_as_peft
from fmfl_secure.models.base import BaseModel


class DoraLinear(Beside):
    """A frozen linear layer of trained directions and lengths.

    Args:
        linear: The layer.
        rank: Of the directions' update.
        scale: What the product is multiplied by.
    """

    squares: torch.Tensor

    def __init__(self, linear: nn.Module, rank: int, scale: float) -> None:
        super().__init__(linear)
        inputs, outputs = sizes(linear)
        self.rank, self.scale = rank, scale
        self.lora_A, self.lora_B = (
            nn.Linear(inputs, rank, bias=False),
            nn.Linear(rank, outputs, bias=False),
        )
        nn.init.kaiming_uniform_(self.lora_A.weight, a=5**0.5)
        nn.init.zeros_(self.lora_B.weight)
        self.register_buffer("squares", dense_weight(linear).square().sum(dim=1), persistent=False)
        self.magnitude = Scale(outputs)
        with torch.no_grad():
            self.magnitude.weight.copy_(self.squares.sqrt())

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        bias = self.linear(activations.new_zeros(1, activations.shape[-1])).detach()
        turned = self.linear(activations) - bias + self._product(activations)
        output: torch.Tensor = self.magnitude(turned / self._lengths()) + bias
        return output

    @override
    def added(self, activations: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self(activations) - self.linear(activations)
        return found

    @override
    def update(self) -> torch.Tensor:
        weight = dense_weight(self.linear)
        turned = weight + self.scale * (self.lora_B.weight @ self.lora_A.weight)
        return (self.magnitude.weight / self._lengths()).unsqueeze(1) * turned - weight

    def _product(self, activations: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.lora_B(self.lora_A(activations))
        return self.scale * found

    @torch.no_grad()
    def _lengths(self) -> torch.Tensor:
        """||W + s B A|| of each row, shape (outputs,), without a matrix of the weight's size."""
        a, b, s = self.lora_A.weight, self.lora_B.weight, self.scale
        across = self.linear(a) - self.linear(torch.zeros_like(a))  # A W', whatever W is kept in
        squares = self.squares + 2 * s * (b.T * across).sum(dim=0)
        found: torch.Tensor = squares + s * s * ((b @ (a @ a.T)) * b).sum(dim=1)
        return found.clamp(min=1e-12).sqrt()


class Dora(LinearAdapter):
    """Trains A, B and the length m of each row."""

    name = "dora"
    trains = "A and B of a low-rank update of directions, and a length for each row of a weight"

    @override
    def around(self, linears: Mapping[str, nn.Module], spec: AdapterSpec) -> dict[str, DoraLinear]:
        scale = spec.alpha / spec.divisor
        return {name: DoraLinear(linear, spec.rank, scale) for name, linear in linears.items()}

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        import peft

        layers = around_of(encoder, DoraLinear)
        first = next(iter(layers.values()))
        config = peft.LoraConfig(
            r=first.rank,
            lora_alpha=first.rank * first.scale,
            use_dora=True,
            target_modules=sorted(layers),
            fan_in_fan_out=any(not isinstance(d.linear, nn.Linear) for d in layers.values()),
            task_type=peft_task(encoder),
            base_model_name_or_path=base.name,
        )
        save_as_peft(config, dict(_peft_tensors(layers)), folder)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted, path = self.attach(place, spec), folder / PEFT_WEIGHTS
        set_tensors(_peft_tensors(around_of(adapted, DoraLinear)), read_tensors(path), path)
        return adapted


def _peft_tensors(layers: Mapping[str, DoraLinear]) -> dict[str, Any]:
    found = {}
    for name, layer in layers.items():
        key = f"base_model.model.{name}.lora_"
        found[f"{key}A.weight"] = layer.lora_A.weight
        found[f"{key}B.weight"] = layer.lora_B.weight
        found[f"{key}magnitude_vector"] = layer.magnitude.weight
    return found
