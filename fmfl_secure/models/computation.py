"""How a model is computed: memory and speed, and never what is trained or what is private."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from fmfl_secure.errors import ModelError
from fmfl_secure.settings.types import Device, WeightType

_CPU = torch.device("cpu")
# Adapters that cannot be trained on weights in bfloat16, and why.
NEEDS_FLOAT32: Mapping[str, str] = MappingProxyType(
    {
        "full": "it trains the weights themselves, where small steps would be lost in rounding",
        "bitfit": "the biases it trains are in one layer with weights of another type",
        "prefix": "PEFT rounds the keys and values it learns to the type of the base model",
    }
)


@dataclass(frozen=True, slots=True)
class Computation:
    """The choices, which parties of a run share but for the device.

    Attributes:
        dtype: What the base model's frozen weights are kept in. Adapters, heads, activations and
            gradients are float32 either way.
        checkpointing: Compute the activations of adapted layers twice instead of keeping them.
        device: Where model and batches are; see `find_device`.
    """

    dtype: WeightType = "float32"
    checkpointing: bool = False
    device: torch.device = _CPU

    def require_possible(self, adapter: str) -> None:
        """Return if an adapter of this kind can be trained so.

        Raises:
            ModelError: It cannot; says why.
        """
        if self.dtype != "float32" and adapter in NEEDS_FLOAT32:
            raise ModelError(
                f"adapter {adapter!r} does not go with model.dtype = {self.dtype!r}: "
                f"{NEEDS_FLOAT32[adapter]}",
                hint="Use model.dtype = 'float32', or lora, ffa-lora, rolora, ia3 or norms.",
            )
        if self.checkpointing and adapter == "prefix":
            raise ModelError(
                "adapter 'prefix' does not go with training.checkpointing: its keys and values "
                "come from outside the layers that are computed again",
                hint="Set training.checkpointing = false, or use prompt.",
            )


EXACT = Computation()
"""Everything in float32 on the processor, nothing traded for memory."""


def find_device(wanted: Device) -> torch.device:
    """The device that a setting means on this machine.

    Args:
        wanted: `auto` takes a CUDA device where there is one.

    Raises:
        ModelError: `cuda` where there is none.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise ModelError(
            "training.device is 'cuda', and PyTorch finds no CUDA device here",
            hint="Set training.device = 'auto', or install a PyTorch that sees the device.",
        )
    return torch.device("cuda" if there and wanted != "cpu" else "cpu")
