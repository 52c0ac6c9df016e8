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
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.files import (
    CORES_FILE,
    read_tensors,
    save_tensors,
    set_tensors,
)
from fmfl_secure.models.adapters.low_rank import target_names
from fmfl_secure.models.adapters.peft_files import peft_task, save_as_peft
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel


class CoredLinear(nn.Module):
    """A frozen linear layer with a trained core between two fixed factors beside it.

    Args:
        linear: The layer.
        rank: r.
        scale: What the product is multiplied by.
    """

    def __init__(self, linear: nn.Module, rank: int, scale: float) -> None:
        super().__init__()
        weight = _weight(linear)
        outputs, inputs = weight.shape
        if rank > min(outputs, inputs):
            raise ModelError(
                f"adapter.rank is {rank}, and a linear layer of the base model has {inputs} "
                f"inputs and {outputs} outputs",
                hint=f"Set adapter.rank to at most {min(outputs, inputs)}.",
            )
        self.linear = linear
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
        weight = _weight(self.linear).double()
        basis = _basis(weight, self.core.in_features)
        self.lora_A.weight.copy_(_coarse(basis.T))
        self.lora_B.weight.copy_(_coarse(weight @ basis))

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        added = self.lora_B(self.core(self.lora_A(activations)))
        output: torch.Tensor = self.linear(activations) + self.scale * added
        return output

    @torch.no_grad()
    def product(self) -> torch.Tensor:
        """B R, shape (outputs, rank): with A, a LoRA of the same update."""
        return self.lora_B.weight @ self.core.weight

    @torch.no_grad()
    def merged(self) -> nn.Module:
        """The linear layer with the update in its weight."""
        update = self.scale * (self.product() @ self.lora_A.weight)
        own = dict(self.linear.named_parameters())["weight"]
        own.add_(update if isinstance(self.linear, nn.Linear) else update.T)
        return self.linear


class LoraXs(Adapter):
    """The adapter."""

    name = "lora-xs"
    trains = "rank x rank values between fixed factors of each weight: exact averages, least upload"

    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:  # noqa: ARG002
        """It goes with everything."""
        return None

    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        """See `Adapter`."""
        for cored in self._attached(place, spec):
            cored.factorise()
        return place.encoder

    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:  # noqa: ARG002
        """See `Adapter`."""
        save_tensors(dict(_tensors(encoder)), folder / CORES_FILE)

    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        """See `Adapter`."""
        self._attached(place, spec)
        path = folder / CORES_FILE
        set_tensors(_tensors(place.encoder), read_tensors(path), path)
        return place.encoder

    def add_for_peft(
        self, encoder: nn.Module, spec: AdapterSpec, base: BaseModel, folder: Path
    ) -> None:
        """See `Adapter`: a LoRA whose B is B R."""
        layers = _cored_layers(encoder)
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

    def merge(self, encoder: nn.Module) -> Any:
        """Put every update into its layer's weight, and take the factors out."""
        for name, cored in _cored_layers(encoder).items():
            parent, _, last = name.rpartition(".")
            setattr(encoder.get_submodule(parent), last, cored.merged())
        return encoder

    def _attached(self, place: Place, spec: AdapterSpec) -> list[CoredLinear]:
        found = []
        for name in target_names(place, spec, self.layers(place, spec)):
            parent, _, last = name.rpartition(".")
            owner = place.encoder.get_submodule(parent)
            found.append(
                CoredLinear(owner.get_submodule(last), spec.rank, spec.alpha / spec.divisor)
            )
            setattr(owner, last, found[-1])
        return found


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


@torch.no_grad()
def _weight(linear: nn.Module) -> torch.Tensor:
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


def _cored_layers(model: nn.Module) -> dict[str, CoredLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, CoredLinear)}


def _tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """Factors and cores by name."""
    return {
        f"{name}.{part}": parameter
        for name, cored in _cored_layers(model).items()
        for part, parameter in cored.named_parameters()
        if not part.startswith("linear.")
    }
