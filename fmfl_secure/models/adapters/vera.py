"""VeRA: two trained vectors for each linear layer, between random matrices that all layers share.

Kopiczko et al. 2023, arXiv 2310.11454. The update of a weight is diag(b) B diag(d) A: A, shape
(rank, inputs), and B, shape (outputs, rank), are random, public and one pair for the whole model,
of which a layer takes as many columns and rows as it has; d starts at 0.1 and b at zero. PEFT keeps
the vectors where per-record gradients cannot see them; here each is a layer of its own, and the
files are PEFT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.models.adapters.base import AdapterSpec, Place
from fmfl_secure.models.adapters.beside import (
    Beside,
    LinearAdapter,
    around_of,
    sizes,
)
from fmfl_secure.models.adapters.files import read_tensors, set_tensors
from fmfl_secure.models.adapters.ia3 import Scale
from fmfl_secure.models.adapters.peft_files import PEFT_WEIGHTS, peft_task, save_as_peft
from fmfl_secure.models.base import BaseModel

_D_START: Final = 0.1  # PEFT's own


class Projections(nn.Module):
    """The two random matrices, as wide as the widest layer."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.lora_A = nn.Parameter(torch.empty(rank, inputs), requires_grad=False)
        self.lora_B = nn.Parameter(torch.empty(outputs, rank), requires_grad=False)
        for matrix in (self.lora_A, self.lora_B):
            nn.init.kaiming_uniform_(matrix, a=5**0.5)


class VeraLinear(Beside):
    """A frozen linear layer with two trained vectors between shared matrices beside it.

    Args:
        linear: The layer.
        shared: The matrices.
    """

    def __init__(self, linear: nn.Module, shared: Projections) -> None:
        super().__init__(linear)
        self.inputs, self.outputs = sizes(linear)
        self.shared = shared
        self.lambda_d, self.lambda_b = Scale(len(shared.lora_A)), Scale(self.outputs)
        nn.init.constant_(self.lambda_d.weight, _D_START)
        nn.init.zeros_(self.lambda_b.weight)

    @override
    def added(self, activations: torch.Tensor) -> torch.Tensor:
        inner = self.lambda_d(nn.functional.linear(activations, self._a))
        outer: torch.Tensor = self.lambda_b(nn.functional.linear(inner, self._b))
        return outer

    @override
    def update(self) -> torch.Tensor:
        d, b = self.lambda_d.weight.unsqueeze(1), self.lambda_b.weight.unsqueeze(1)
        return b * (self._b @ (d * self._a))

    @property
    def _a(self) -> torch.Tensor:
        return self.shared.lora_A[:, : self.inputs]

    @property
    def _b(self) -> torch.Tensor:
        return self.shared.lora_B[: self.outputs]


class Vera(LinearAdapter):
    """Trains d and b; A and B are drawn once, and public."""

    name = "vera"
    trains = "two vectors for each weight, between random matrices that all weights share"

    @override
    def around(self, linears: Mapping[str, nn.Module], spec: AdapterSpec) -> dict[str, VeraLinear]:
        widths = [sizes(linear) for linear in linears.values()]
        inputs, outputs = (max(each) for each in zip(*widths, strict=True))
        shared = Projections(inputs, spec.rank, outputs)
        return {name: VeraLinear(linear, shared) for name, linear in linears.items()}

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        import peft

        layers = around_of(encoder, VeraLinear)
        first = next(iter(layers.values()))
        config = peft.VeraConfig(
            r=len(first.shared.lora_A),
            target_modules=sorted(layers),
            save_projection=True,
            d_initial=_D_START,
            fan_in_fan_out=any(not isinstance(v.linear, nn.Linear) for v in layers.values()),
            task_type=peft_task(encoder),
            base_model_name_or_path=base.name,
        )
        save_as_peft(config, dict(_peft_tensors(layers)), folder)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted, path = self.attach(place, spec), folder / PEFT_WEIGHTS
        set_tensors(_peft_tensors(around_of(adapted, VeraLinear)), read_tensors(path), path)
        return adapted


def _peft_tensors(layers: Mapping[str, VeraLinear]) -> dict[str, nn.Parameter]:
    shared = next(iter(layers.values())).shared
    found = {"base_model.vera_A": shared.lora_A, "base_model.vera_B": shared.lora_B}
    for name, layer in layers.items():
        found[f"base_model.model.{name}.vera_lambda_d"] = layer.lambda_d.weight
        found[f"base_model.model.{name}.vera_lambda_b"] = layer.lambda_b.weight
    return found
