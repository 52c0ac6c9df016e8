"""A matrix of rank x rank between two fixed factors of the base weight: LoRA-XS, as in Fed-SB.

The update of a linear layer of weight W, shape (outputs, inputs), is alpha / r x B R A. A has the
first r right singular vectors of W as its rows and B = W A^T, which is U Sigma turned like A; both
are public and stay as they are, and R, shape (r, r), starts at zero and is trained (Balazy et al.
2024, arXiv 2405.17604). The update is linear in R, so the mean of the sites' R is the mean of their
updates, exactly (Singhal et al. 2025, arXiv 2502.15436); and noise falls on r x r values a layer.
Fed-SB takes its factors from a first gradient, which reads data: here they read the base alone.

Factors have to be the same for all. Singular vectors are not: their signs, and those of equal
singular values altogether, are a library's choice. So A is a basis of the space that they span,
drawn from the run's public seed, and both factors are rounded to bfloat16, so that the last bits of
another machine's arithmetic are lost. They travel with the adapter, whose digest every site checks.

`models.adapters.registry` holds the one entry, `LoraXs`. It attaches to an encoder by putting a
`CoredLinear` around each target, which factorises the weight once; what is saved opens without
factorising again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.base import AdapterSpec, Place
from fmfl_secure.models.adapters.beside import (
    Beside,
    LinearAdapter,
    around_of,
    dense_weight,
    own_tensors,
)
from fmfl_secure.models.adapters.files import CORES_FILE, read_tensors, save_tensors, set_tensors
from fmfl_secure.models.adapters.peft_files import peft_task, save_as_peft
from fmfl_secure.models.base import BaseModel


class CoredLinear(Beside):
    """A frozen linear layer with a trained core between two fixed factors beside it.

    Args:
        linear: The layer.
        rank: r.
        scale: What the product is multiplied by.
    """

    def __init__(self, linear: nn.Module, rank: int, scale: float) -> None:
        super().__init__(linear)
        weight = dense_weight(linear)
        outputs, inputs = weight.shape
        if rank > min(outputs, inputs):
            raise ModelError(
                f"adapter.rank is {rank}, and a linear layer of the base model has {inputs} "
                f"inputs and {outputs} outputs",
                hint=f"Set adapter.rank to at most {min(outputs, inputs)}.",
            )
        self.scale = scale
        self.lora_A = nn.Linear(inputs, rank, bias=False)
        self.core = nn.Linear(rank, rank, bias=False)
        self.lora_B = nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.core.weight)
        for factor in (self.lora_A, self.lora_B):
            factor.weight.requires_grad = False

    @torch.no_grad()
    def factorise(self) -> None:
        """Set the factors by the layer's weight, and by torch's global generator."""
        weight = dense_weight(self.linear).double()
        basis = _basis(weight, self.core.in_features)
        self.lora_A.weight.copy_(_coarse(basis.T))
        self.lora_B.weight.copy_(_coarse(weight @ basis))

    @override
    def added(self, activations: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.lora_B(self.core(self.lora_A(activations)))
        return self.scale * found

    @torch.no_grad()
    def product(self) -> torch.Tensor:
        """B R, shape (outputs, rank): with A, a LoRA of the same update."""
        return self.lora_B.weight @ self.core.weight

    @override
    def update(self) -> torch.Tensor:
        return self.scale * (self.product() @ self.lora_A.weight)


class LoraXs(LinearAdapter):
    """Trains R alone; A and B follow from the base weight."""

    name = "lora-xs"
    trains = "rank x rank values between fixed factors of each weight: exact averages, least upload"

    @override
    def around(self, linears: Mapping[str, nn.Module], spec: AdapterSpec) -> dict[str, CoredLinear]:
        scale = spec.alpha / spec.divisor
        return {name: CoredLinear(linear, spec.rank, scale) for name, linear in linears.items()}

    @override
    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        adapted = super().attach(place, spec)
        for cored in around_of(adapted, CoredLinear).values():
            cored.factorise()
        return adapted

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        save_tensors(dict(own_tensors(encoder)), folder / CORES_FILE)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted, path = super().attach(place, spec), folder / CORES_FILE
        set_tensors(own_tensors(adapted), read_tensors(path), path)
        return adapted

    @override
    def add_for_peft(
        self, encoder: nn.Module, spec: AdapterSpec, base: BaseModel, folder: Path
    ) -> None:
        """A LoRA whose B is B R."""
        import peft

        layers = around_of(encoder, CoredLinear)
        config = peft.LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,
            use_rslora=spec.rank_stabilised,
            target_modules=sorted(layers),
            fan_in_fan_out=any(not isinstance(c.linear, nn.Linear) for c in layers.values()),
            task_type=peft_task(encoder),
            base_model_name_or_path=base.name,
        )
        tensors = {}
        for name, cored in layers.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = cored.lora_A.weight
            tensors[f"base_model.model.{name}.lora_B.weight"] = cored.product()
        save_as_peft(config, tensors, folder)


def _basis(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """A basis of what the first right singular vectors span, shape (inputs, rank).

    Which basis is decided by torch's generator alone, and not by the routine that finds the space.
    """
    outputs, inputs = weight.shape
    start = torch.randn(inputs, rank).to(weight)
    if inputs <= outputs:
        found = torch.linalg.eigh(weight.T @ weight).eigenvectors[:, -rank:]
    else:
        left = torch.linalg.eigh(weight @ weight.T).eigenvectors[:, -rank:]
        found = torch.linalg.qr(weight.T @ left).Q
    basis, signs = torch.linalg.qr(found @ (found.T @ start))
    signed: torch.Tensor = basis * torch.where(signs.diagonal() < 0, -1.0, 1.0)
    return signed


def _coarse(factor: torch.Tensor) -> torch.Tensor:
    return factor.to(torch.bfloat16).float()
