"""The LoRA family: B A added to linear layers (arXiv 2106.09685), through PEFT.

`lora` trains and sends A and B. `ffa-lora` freezes A at a public random value and trains B: half
the upload, and the average of the B's is exactly the average of the products (Sun et al. 2024,
arXiv 2403.12313), which averaging A and B apart is not. `rolora` trains B in odd rounds and A in
even ones, so that every round averages exactly and both are learned (arXiv 2502.01755).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import override

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.peft_files import (
    adapt_with_peft,
    open_peft_model,
    peft_task,
    save_peft_model,
)
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel


def linear_kinds() -> tuple[type[nn.Module], ...]:
    """Kinds of linear layer that carry an adapter."""
    from transformers.pytorch_utils import Conv1D

    return nn.Linear, Conv1D  # GPT-2's linear layers are Conv1D, of transposed weights


def target_names(place: Place, spec: AdapterSpec, layers: Sequence[nn.Module]) -> list[str]:
    """Names in the encoder of the linear layers that carry an adapter.

    Args:
        place: The encoder.
        spec: Which of them, by the last word of their names.
        layers: Where to look.

    Raises:
        ModelError: There are none.
    """
    kinds = linear_kinds()
    encoder, wanted = place.encoder, spec.target_modules or place.architecture.target_modules
    chosen = {
        id(module)
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, kinds) and name.rsplit(".", 1)[-1] in wanted
    }
    targets = [name for name, module in encoder.named_modules() if id(module) in chosen]
    if not targets:
        raise ModelError(
            f"no linear layer of {type(encoder).__name__} is named {', '.join(wanted)}",
            hint="Set adapter.target_modules to names of linear layers of this model.",
        )
    return targets


class LowRank(Adapter):
    """Base of LoRA's kinds: which of A and B are trained, and how they are kept."""

    @abstractmethod
    def is_trained(self, name: str, round_number: int) -> bool:
        """Whether a round trains, and sends, the A or B of this name."""

    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:  # noqa: ARG002
        """Refuses nothing: it goes with every architecture and task."""
        return None

    @override
    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        import peft
        from transformers.pytorch_utils import Conv1D

        encoder = place.encoder
        config = peft.LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,
            lora_dropout=0.0,
            bias="none",
            target_modules=target_names(place, spec, self.layers(place, spec)),
            use_rslora=spec.rank_stabilised,
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in encoder.modules()),
            task_type=peft_task(encoder),
        )
        adapted = adapt_with_peft(encoder, config, base_name=place.base.name)
        self.begin_round(adapted, 1)
        return adapted

    @override
    def begin_round(self, model: nn.Module, round_number: int) -> None:
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.requires_grad = self.is_trained(name, round_number)

    @override
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        save_peft_model(encoder, folder)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        return open_peft_model(place.encoder, folder)

    @override
    def merge(self, encoder: Any) -> Any:
        return encoder.merge_and_unload()


class FfaLora(LowRank):
    """Trains B alone; A stays as it was drawn."""

    name = "ffa-lora"
    trains = "B; A stays at a public random value: exact averages, half the upload"

    @override
    def is_trained(self, name: str, round_number: int) -> bool:
        return "lora_B" in name


class Lora(LowRank):
    """Trains both A and B."""

    name = "lora"
    trains = "A and B of a low-rank update of linear layers"

    @override
    def is_trained(self, name: str, round_number: int) -> bool:
        return True


class RoLora(LowRank):
    """B and A in turns."""

    name = "rolora"
    trains = "B in odd rounds, A in even ones: exact averages, half the upload, both learned"
    rounds = (1, 2)

    @override
    def is_trained(self, name: str, round_number: int) -> bool:
        return ("lora_B" in name) == (round_number % 2 == 1)
