"""A probe: the task's head alone is trained, on an encoder that stays as it is."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from typing_extensions import override

from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place, Refusal
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel


class Head(Adapter):
    """The adapter; it has no files of its own."""

    name = "head"
    trains = "a probe on the frozen encoder"
    keeps_encoder = True

    @override
    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:
        if not task.head:
            return "a language model has no head of its own to train", "ffa-lora or norms"
        return None

    def frozen_depth(self, layers: int, spec: AdapterSpec) -> int:  # noqa: ARG002
        """Returns `layers`, for all of them are frozen."""
        return layers

    @override
    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        return place.encoder

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        """Saves nothing here: a head's tensors are in the task's own file."""

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        return place.encoder

    @override
    def merge(self, encoder: nn.Module) -> nn.Module:
        return encoder
