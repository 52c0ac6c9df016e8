"""A probe: the task's head alone is trained, on an encoder that stays as it is."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place, Refusal
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel


class Head(Adapter):
    """The adapter; it has no files of its own."""

    name = "head"
    trains = "a probe on the frozen encoder"
    keeps_encoder = True

    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:  # noqa: ARG002
        """See `Adapter`."""
        if not task.head:
            return "a language model has no head of its own to train", "ffa-lora or norms"
        return None

    def frozen_depth(self, layers: int, spec: AdapterSpec) -> int:  # noqa: ARG002
        """Returns `layers`, for all of them are frozen."""
        return layers

    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:  # noqa: ARG002
        """See `Adapter`."""
        return place.encoder

    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        """See `Adapter`."""

    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:  # noqa: ARG002
        """See `Adapter`."""
        return place.encoder

    def merge(self, encoder: nn.Module) -> nn.Module:
        """See `Adapter`."""
        return encoder
