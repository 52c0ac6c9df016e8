"""Base of kinds that put a layer of their own around each linear layer which carries them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.low_rank import target_names
from fmfl_secure.models.architectures import Architecture, TaskNeeds


class Around(nn.Module):
    """A frozen linear layer with something trained around it.

    Args:
        linear: The layer.
    """

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear


AnyAround = TypeVar("AnyAround", bound=Around)


class Beside(Around):
    """One whose output something linear in the input is added to."""

    @abstractmethod
    def added(self, activations: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""

    @abstractmethod
    def update(self) -> torch.Tensor:
        """The same as a change of the weight, shape (outputs, inputs)."""

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        output: torch.Tensor = self.linear(activations) + self.added(activations)
        return output

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The linear layer with the update in its weight."""
        own = dict(self.linear.named_parameters())["weight"]
        own.add_(self.update() if isinstance(self.linear, nn.Linear) else self.update().T)
        return self.linear


class LinearAdapter(Adapter):
    """Base of the kinds that go around linear layers."""

    @abstractmethod
    def around(self, linears: Mapping[str, nn.Module], spec: AdapterSpec) -> Mapping[str, Around]:
        """Makes the layer that replaces each linear layer, by its name in the encoder.

        Raises:
            ModelError: It does not go around one of them.
        """

    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:  # noqa: ARG002
        """Refuses nothing: it goes with every architecture and task."""
        return None

    @override
    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        names = self.targets(place, spec)
        linears = {name: place.encoder.get_submodule(name) for name in names}
        for name, module in self.around(linears, spec).items():
            _put(place.encoder, name, module)
        return place.encoder

    def targets(self, place: Place, spec: AdapterSpec) -> list[str]:
        """Names in the encoder of the linear layers that carry it.

        Raises:
            ModelError: There are none.
        """
        return target_names(place, spec, self.layers(place, spec))

    def merge(self, encoder: nn.Module) -> Any:
        """Put every update into its layer's weight, and take what was around it away."""
        for name, module in around_of(encoder, Around).items():
            if isinstance(module, Beside):
                _put(encoder, name, module.merged())
        return encoder


def around_of(model: nn.Module, kind: type[AnyAround]) -> dict[str, AnyAround]:
    """The layers with something around them, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


def own_tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Collects the parameters put around linear layers, by name; shared ones once."""
    frozen = {
        id(each)
        for module in around_of(model, Around).values()
        for each in module.linear.parameters()
    }
    return {
        f"{name}.{part}": parameter
        for name, module in around_of(model, Around).items()
        for part, parameter in module.named_parameters()
        if id(parameter) not in frozen
    }


def sizes(linear: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer, however it keeps its weight."""
    if isinstance(linear, nn.Linear):
        return linear.in_features, linear.out_features
    inputs, outputs = dict(linear.named_parameters())["weight"].shape
    return inputs, outputs


@torch.no_grad()
def dense_weight(linear: nn.Module) -> torch.Tensor:
    """A linear layer's matrix in float32, shape (outputs, inputs), however it is kept."""
    weight = dict(linear.named_parameters())["weight"]
    if weight.is_floating_point():
        values: torch.Tensor = weight if isinstance(linear, nn.Linear) else weight.T
        return values.float()
    # In blocks of whole numbers: what the layer makes of unit vectors, less what it makes of none.
    inputs: int = linear.in_features  # type: ignore[assignment]
    rows = torch.eye(inputs, device=weight.device)
    image: torch.Tensor = linear(rows) - linear(torch.zeros(1, inputs, device=weight.device))
    return image.T


def _put(encoder: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(encoder.get_submodule(parent), last, module)
