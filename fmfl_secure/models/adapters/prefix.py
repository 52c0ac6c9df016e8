"""Prefix tuning: learned keys and values of virtual tokens in every layer, through PEFT.

Li and Liang 2021, arXiv 2101.00190.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn
from typing_extensions import override

from fmfl_secure.models.adapters.base import AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.peft_files import (
    adapt_with_peft,
    open_peft_model,
    peft_task,
    save_peft_model,
)
from fmfl_secure.models.adapters.virtual_tokens import VirtualTokens
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel


class Prefix(VirtualTokens):
    """Trains keys and values of virtual tokens in every layer."""

    name = "prefix"
    trains = "keys and values of virtual tokens in every layer"
    needs_float32 = "PEFT rounds the keys and values it learns to the type of the base model"
    needs_activations = "its keys and values come from outside the layers that are computed again"

    @override
    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:
        found = self.text_refusal(architecture)
        if found is None and not architecture.prefixes:
            return "its attention takes no keys from elsewhere", "prompt"
        return found

    @override
    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        import peft

        config = peft.PrefixTuningConfig(
            num_virtual_tokens=spec.virtual_tokens, task_type=peft_task(place.encoder)
        )
        return adapt_with_peft(place.encoder, config, base_name=place.base.name)

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        save_peft_model(encoder, folder)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        return open_peft_model(place.encoder, folder)
