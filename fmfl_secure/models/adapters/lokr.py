"""LoKr: a Kronecker product of two small matrices added to each weight.

Yeh et al. 2023, arXiv 2309.14859; FedPara (arXiv 2108.06098) is its relative with a Hadamard
product. The update of a weight of (l k) x (m n) values is alpha / r x W1 (x) W2, with W1 of l x m
and W2 of k x n, which is itself of rank r where that is fewer values. To an input laid out as a
matrix X of m x n it adds W1 X W2', so each factor is a linear layer of its own, whose gradients are
seen by record. Files are PEFT's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.base import AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.beside import Beside, LinearAdapter, around_of
from fmfl_secure.models.adapters.files import read_tensors, set_tensors
from fmfl_secure.models.adapters.peft_files import PEFT_WEIGHTS, peft_task, save_as_peft
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel

_TRANSPOSED = "PEFT's LoKr opens no weights that are kept transposed"


class KroneckerLinear(Beside):
    """A frozen linear layer with a Kronecker product beside it.

    Args:
        linear: The layer.
        rank: r.
        scale: What the product is multiplied by.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        from peft.tuners.lokr.layer import factorization

        super().__init__(linear)
        self.rank, self.scale = rank, scale
        outer, k = factorization(linear.out_features)
        m, n = self.columns = factorization(linear.in_features)
        self.lokr_w1 = nn.Linear(m, outer, bias=False)
        nn.init.zeros_(self.lokr_w1.weight)
        self.is_whole = rank >= max(k, n) / 2  # as PEFT decides it
        if self.is_whole:
            self.lokr_w2 = nn.Linear(n, k, bias=False)
        else:
            self.lokr_w2_b = nn.Linear(n, rank, bias=False)
            self.lokr_w2_a = nn.Linear(rank, k, bias=False)

    @override
    def added(self, activations: torch.Tensor) -> torch.Tensor:
        laid_out = activations.reshape(*activations.shape[:-1], *self.columns)
        right = (
            self.lokr_w2(laid_out) if self.is_whole else self.lokr_w2_a(self.lokr_w2_b(laid_out))
        )
        both: torch.Tensor = self.lokr_w1(right.transpose(-1, -2)).transpose(-1, -2)
        return self.scale * both.flatten(-2)

    @override
    def update(self) -> torch.Tensor:
        right = (
            self.lokr_w2.weight if self.is_whole else self.lokr_w2_a.weight @ self.lokr_w2_b.weight
        )
        return self.scale * torch.kron(self.lokr_w1.weight, right)


class LoKr(LinearAdapter):
    """Trains both factors of each Kronecker product."""

    name = "lokr"
    trains = "two small matrices for each weight, whose Kronecker product is added to it"

    @override
    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:
        return (_TRANSPOSED, "lora or lora-xs") if architecture.transposed else None

    @override
    def around(
        self, linears: Mapping[str, nn.Module], spec: AdapterSpec
    ) -> dict[str, KroneckerLinear]:
        found = {}
        for name, linear in linears.items():
            if not isinstance(linear, nn.Linear):
                raise ModelError(f"{name}: {_TRANSPOSED}", hint="Use lora or lora-xs.")
            found[name] = KroneckerLinear(linear, spec.rank, spec.alpha / spec.divisor)
        return found

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        import peft

        layers = around_of(encoder, KroneckerLinear)
        first = next(iter(layers.values()))
        config = peft.LoKrConfig(
            r=first.rank,
            alpha=first.rank * first.scale,
            target_modules=sorted(layers),
            task_type=peft_task(encoder),
            base_model_name_or_path=base.name,
        )
        save_as_peft(config, dict(_peft_tensors(layers)), folder)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted, path = self.attach(place, spec), folder / PEFT_WEIGHTS
        set_tensors(_peft_tensors(around_of(adapted, KroneckerLinear)), read_tensors(path), path)
        return adapted


def _peft_tensors(layers: Mapping[str, KroneckerLinear]) -> dict[str, nn.Parameter]:
    return {
        f"base_model.model.{name}.{part.removesuffix('.weight')}": parameter
        for name, layer in layers.items()
        for part, parameter in layer.named_parameters()
        if part.startswith("lokr_")
    }
