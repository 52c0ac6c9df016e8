"""Adapters: PEFT modules on a frozen encoder, their initial values, and their files.

Only adapters whose update is a sum can be aggregated under encryption. With `ffa-lora` the A
matrices are frozen at a public random value and only B is trained: half the upload, and the
average of the B's is exactly the average of the products (Sun et al. 2024, arXiv 2403.12313),
which averaging A and B apart is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import peft
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.architectures import architecture_of, find_layers
from fmfl_secure.models.base import BaseModel

AdapterKind = Literal["ffa-lora", "lora", "head"]
_MOMENTS = "server-optimizer."  # no parameter's name has a hyphen


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """Which adapter, where.

    Attributes:
        kind: `ffa-lora` (B trained), `lora` (A and B), or `head` (a probe on the frozen encoder).
        rank: Rank of the update, >= 1.
        alpha: Scaling numerator; the update is alpha / rank x B A.
        last_layers: Adapters in so many of the last layers; 0 means all.
        target_modules: Names of linear layers; empty takes the architecture's.
    """

    kind: AdapterKind
    rank: int
    alpha: float
    last_layers: int
    target_modules: tuple[str, ...]


def frozen_depth(encoder: nn.Module, base: BaseModel, spec: AdapterSpec) -> int:
    """How many of the first layers have no adapter."""
    layers = len(find_layers(encoder, architecture_of(base.model_type)))
    if spec.kind == "head":
        return layers
    return max(0, layers - spec.last_layers) if spec.last_layers else 0


def attach_adapter(encoder: nn.Module, base: BaseModel, spec: AdapterSpec) -> nn.Module:
    """Put the adapter on a frozen encoder; trainable afterwards is what will be uploaded.

    Initial values come from torch's global generator: seed it with the run's public seed.

    Raises:
        ModelError: No linear layer of the names that should carry it.
    """
    if spec.kind == "head":
        return encoder
    architecture = architecture_of(base.model_type)
    wanted = spec.target_modules or architecture.target_modules
    layers = find_layers(encoder, architecture)
    targets = [
        f"{architecture.layers}.{index}.{name}"
        for index in range(frozen_depth(encoder, base, spec), len(layers))
        for name, module in layers[index].named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in wanted
    ]
    if not targets:
        raise ModelError(
            f"no linear layer of {base.model_type!r} is named {', '.join(wanted)}",
            hint="Set adapter.target_modules to names of linear layers of this model.",
        )
    config = peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=targets,
        task_type="FEATURE_EXTRACTION",
    )
    with _peft_warnings_silenced():
        adapted: nn.Module = peft.get_peft_model(encoder, config)
    config.base_model_name_or_path = base.name  # PEFT writes this machine's path otherwise
    if spec.kind == "ffa-lora":
        for name, parameter in adapted.named_parameters():
            if "lora_A" in name:
                parameter.requires_grad = False
    return adapted


@contextlib.contextmanager
def _peft_warnings_silenced() -> Iterator[None]:
    # PEFT 0.21 reads an attribute that Transformers 5.23 deprecates; nothing a user could mend.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path`")
        yield


def adapter_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Everything that is not the base model: trained and frozen adapter tensors, and heads."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or "lora_" in name
    }


def set_adapter_tensors(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set what `adapter_tensors` lists.

    Raises:
        ModelError: Names the first tensor that is missing, surplus or of another shape.
    """
    own = adapter_tensors(model)
    for name in sorted(own.keys() | tensors.keys()):
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            raise ModelError(
                f"adapter tensor {name} does not match this model",
                hint="Base model and adapter settings must be those the adapter was made with.",
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def adapter_bytes(
    model: nn.Module, moments: Mapping[str, NDArray[np.float64]] | None = None
) -> bytes:
    """The adapter as safetensors, equal for equal values.

    Args:
        model: Whose adapter.
        moments: Memory of a server optimizer, kept beside it.
    """
    tensors = {n: t.contiguous().cpu() for n, t in sorted(adapter_tensors(model).items())}
    for name, vector in sorted((moments or {}).items()):
        tensors[_MOMENTS + name] = torch.from_numpy(vector)
    return bytes(safetensors.torch.save(tensors))


def load_adapter_bytes(data: bytes) -> dict[str, torch.Tensor]:
    """Read the adapter that `adapter_bytes` wrote.

    Raises:
        ModelError: It is not safetensors.
    """
    return {n: t for n, t in _load(data).items() if not n.startswith(_MOMENTS)}


def load_moments(data: bytes) -> dict[str, NDArray[np.float64]]:
    """Read the server optimizer's memory that `adapter_bytes` wrote beside an adapter.

    Raises:
        ModelError: It is not safetensors.
    """
    return {
        n.removeprefix(_MOMENTS): t.double().numpy()
        for n, t in _load(data).items()
        if n.startswith(_MOMENTS)
    }


def _load(data: bytes) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"not an adapter in safetensors form: {error}") from error
    return tensors


def adapter_digest(data: bytes) -> str:
    """`sha256:` of an adapter's bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def save_peft_adapter(adapted: nn.Module, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, as PEFT reads them."""
    if isinstance(adapted, peft.PeftModel):
        # Without the embedding layers, which never change here, PEFT has no reason to ask a hub.
        adapted.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        # PEFT's empty model card names this machine's path to the base model.
        (folder / "README.md").unlink(missing_ok=True)


def load_peft_adapter(encoder: nn.Module, folder: Path) -> nn.Module:
    """Open a saved adapter on an encoder, for inference.

    Raises:
        ModelError: The adapter is not there as safetensors, or does not fit the encoder.
    """
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        # PEFT would go on to a pickled file of the same stem, and then to a hub.
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}")
    try:
        with _peft_warnings_silenced(), warnings.catch_warnings():
            # A tensor that is missing is a warning to PEFT, and keeps its random start.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted: Any = peft.PeftModel.from_pretrained(encoder, folder)
    except (
        ValueError, RuntimeError, OSError, KeyError, TypeError, UserWarning,
        safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise ModelError(f"cannot open the adapter in {folder}: {error}") from error
    model: nn.Module = adapted.eval()
    return model
