"""Tensors in files of safetensors: what adapters and heads are read from and written to.

adapter_config.json, adapter_model.safetensors    LoRA family, LoKr, VeRA, IA3, prompt, prefix: PEFT
                                                  opens them
cores.safetensors                                 LoRA-XS: cores, and the factors beside them
bottleneck.safetensors                            bottleneck adapters
prompt_encoder.safetensors                        P-tuning: tokens, and the network that writes them
weights.safetensors                               parameters of the base model trained in place
head.safetensors                                  what the task adds on top, if anything
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from fmfl_secure.errors import ModelError

WEIGHTS_FILE = "weights.safetensors"
CORES_FILE = "cores.safetensors"
BOTTLENECK_FILE = "bottleneck.safetensors"
PROMPT_ENCODER_FILE = "prompt_encoder.safetensors"
HEAD_FILE = "head.safetensors"
AS_WRITTEN = (
    "Name an adapter's folder as a run or fmfl-secure export wrote it, and put back what it lacks."
)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ModelError: It cannot be read as one.
    """
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"{path.parent} does not hold a finished adapter: {error}", hint=AS_WRITTEN
        ) from error
    return tensors


def set_tensors(own: dict[str, nn.Parameter], tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Set parameters from the tensors of a file, which must be the same ones.

    Raises:
        ModelError: Names the first that is missing, surplus or of another number of values.
    """
    for name in sorted(own.keys() | tensors.keys()):
        # PEFT keeps some vectors as a row or a column.
        if (
            name not in own
            or name not in tensors
            or own[name].squeeze().shape != tensors[name].squeeze().shape
        ):
            raise ModelError(f"{path} does not fit this model: {name}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name].reshape(parameter.shape))


def save_tensors(tensors: dict[str, Any], path: Path) -> None:
    """Write tensors by name, in order of their names."""
    plain = {n: t.detach().contiguous().cpu() for n, t in sorted(tensors.items())}
    safetensors.torch.save_file(plain, path, metadata={"format": "pt"})


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model that are trained."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}
