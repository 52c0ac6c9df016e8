"""How a model is computed: memory and speed, and never what is trained or what is private."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fmfl_secure.errors import ModelError
from fmfl_secure.settings.types import Device, WeightType

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Computation:
    """The choices, which parties of a run share but for the device.

    Attributes:
        dtype: What the base model's frozen weights are kept in. Adapters, heads, activations and
            gradients are float32 either way.
        checkpointing: Compute the activations of adapted layers twice instead of keeping them.
        device: Where model and batches are; see `find_device`.
        rounded: Frozen weights have the values that bfloat16 keeps, in float32: what a model that
            was trained in bfloat16 is merged into.
    """

    dtype: WeightType = "float32"
    checkpointing: bool = False
    device: torch.device = _CPU
    rounded: bool = False


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
