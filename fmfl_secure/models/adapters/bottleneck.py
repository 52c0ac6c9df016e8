"""Bottleneck adapters: two small layers, with a bend between them, after each feed-forward block.

Houlsby et al. 2019, arXiv 1902.00751, in the one place a layer that Pfeiffer et al. keep (arXiv
2005.00247). What a feed-forward block gives, y, becomes y + U gelu(D y + d) + u, with D of rank x
width; U and u start at zero. It is no change of a weight, and neither PEFT nor transformers has a
form for it: `docs/models.md` has the lines that open its file with plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.base import AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.beside import Around, LinearAdapter, own_tensors, sizes
from fmfl_secure.models.adapters.files import (
    BOTTLENECK_FILE,
    read_tensors,
    save_tensors,
    set_tensors,
)
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel


class Bottleneck(Around):
    """A frozen linear layer, what it gives, and what two small layers make of that.

    Args:
        linear: The layer.
        width: Of the bottleneck.
    """

    def __init__(self, linear: nn.Module, width: int) -> None:
        super().__init__(linear)
        _, outputs = sizes(linear)
        self.down, self.up = nn.Linear(outputs, width), nn.Linear(width, outputs)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        given = self.linear(activations)
        output: torch.Tensor = given + self.up(nn.functional.gelu(self.down(given)))
        return output


class Bottlenecks(LinearAdapter):
    """Trains the two small layers after each block, D and U with their biases."""

    name = "bottleneck"
    trains = "two small layers after each feed-forward block"

    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:  # noqa: ARG002
        """It goes with every architecture whose feed-forward layers are known."""
        if not architecture.scaled_inputs:
            return "which of its layers end a feed-forward block is in no table", "lora or ffa-lora"
        return None

    @override
    def targets(self, place: Place, spec: AdapterSpec) -> list[str]:
        """The last of each feed-forward block, where none are named."""
        if spec.target_modules:
            return super().targets(place, spec)
        wanted = {
            id(layer.get_submodule(path))
            for layer in self.layers(place, spec)
            for path in place.architecture.scaled_inputs
        }
        return [name for name, each in place.encoder.named_modules() if id(each) in wanted]

    @override
    def around(self, linears: Mapping[str, nn.Module], spec: AdapterSpec) -> dict[str, Bottleneck]:
        return {name: Bottleneck(linear, spec.rank) for name, linear in linears.items()}

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        save_tensors(dict(own_tensors(encoder)), folder / BOTTLENECK_FILE)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted, path = self.attach(place, spec), folder / BOTTLENECK_FILE
        set_tensors(own_tensors(adapted), read_tensors(path), path)
        return adapted

    def merge(self, encoder: nn.Module) -> NoReturn:  # noqa: ARG002
        """Refuses: no weight of the base model does what a bend does.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            "a bottleneck adapter bends what a layer gives: it cannot be merged into weights",
            hint="Export the adapter alone; docs/models.md has the lines that open it.",
        )
