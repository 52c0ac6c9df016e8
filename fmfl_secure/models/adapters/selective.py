"""Training some, or all, of the base model's own parameters in place.

`bitfit` trains the biases (Ben Zaken et al. 2022, arXiv 2106.10199), `norms` the normalisation
layers, `full` everything but what an architecture lists as never trained: position embeddings
and class tokens are one row that all records of a batch share, and word embeddings tied to the
output layer are used twice.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from torch import nn
from typing_extensions import override

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.files import (
    WEIGHTS_FILE,
    read_tensors,
    save_tensors,
    set_tensors,
    trainable,
)
from fmfl_secure.models.architectures import Architecture, TaskNeeds, bare_model
from fmfl_secure.models.base import BaseModel


class Selective(Adapter):
    """Base of kinds that train some of the model's own tensors."""

    @abstractmethod
    def chooses(self, module: nn.Module, name: str) -> bool:
        """Whether a module's own parameter of this name is trained."""

    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        """Make the chosen parameters of the adapted layers trainable.

        Where all layers are, so is what lies outside them, such as embeddings and the last norm.

        Raises:
            ModelError: There are none.
        """
        encoder = place.encoder
        bare = bare_model(encoder)
        inside = {id(p) for layer in self.layers(place, spec) for p in layer.parameters()}
        if not spec.last_layers:
            roots = [bare.get_submodule(tower.root) for tower in place.towers]
            inside |= {id(p) for root in roots for p in root.parameters()}
        tied = _tied(encoder)
        found = False
        for prefix, module in bare.named_modules():
            for last, parameter in module.named_parameters(recurse=False):
                name = f"{prefix}.{last}"
                if id(parameter) not in inside or id(parameter) in tied:
                    continue
                if any(part in name for part in place.architecture.frozen):
                    continue
                if self.chooses(module, last):
                    parameter.requires_grad = found = True
        if not found:
            raise ModelError(f"the base model has no parameters that {self.name!r} trains")
        return encoder

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        save_tensors(dict(trainable(encoder)), folder / WEIGHTS_FILE)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted, path = self.attach(place, spec), folder / WEIGHTS_FILE
        set_tensors(trainable(adapted), read_tensors(path), path)
        return adapted

    def merge(self, encoder: nn.Module) -> nn.Module:
        """It is in the weights already."""
        return encoder


class BitFit(Selective):
    """Trains the model's biases alone."""

    name = "bitfit"
    trains = "biases"
    needs_float32 = "the biases it trains are in one layer with weights of another type"

    @override
    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:
        if not architecture.biases:
            return "it has no biases to train", "ia3 or lora"
        return None

    @override
    def chooses(self, module: nn.Module, name: str) -> bool:
        return name == "bias"


class Norms(Selective):
    """Trains the model's normalisation layers alone."""

    name = "norms"
    trains = "normalisation layers"

    @override
    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:
        return _norms_refusal(architecture)

    @override
    def chooses(self, module: nn.Module, name: str) -> bool:
        return type(module).__name__.endswith("Norm")


class Full(Selective):
    """Everything that records can be told apart in."""

    name = "full"
    trains = "everything but what is listed below"
    needs_float32 = "it trains the weights themselves, where small steps would be lost in rounding"

    @override
    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:
        return _norms_refusal(architecture)

    @override
    def chooses(self, module: nn.Module, name: str) -> bool:
        return True


def _norms_refusal(architecture: Architecture) -> Refusal | None:
    if not architecture.norms:
        return "its normalisation layers have no per-record gradients", "lora or ia3"
    return None


def _tied(encoder: nn.Module) -> set[int]:
    """The matrix that is both word embedding and output layer, if it is."""
    output = getattr(encoder, "lm_head", None)
    return set() if output is None else {id(p) for p in output.parameters()}
