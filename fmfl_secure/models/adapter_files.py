"""An adapter's files: PEFT's own two where PEFT knows the kind, plain safetensors elsewhere.

adapter_config.json, adapter_model.safetensors    LoRA family, IA3, prompt, prefix: PEFT opens them
weights.safetensors                               parameters of the base model trained in place
head.safetensors                                  what the task adds on top, if anything
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import safetensors.torch
import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models import low_rank, prompts, scaling
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapters import AdapterSpec, attach_adapter
from fmfl_secure.models.architectures import Architecture, Tower
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.heads import head_parameters
from fmfl_secure.models.provenance import hub_id
from fmfl_secure.settings.types import LOW_RANK_KINDS

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
WEIGHTS_FILE = "weights.safetensors"
HEAD_FILE = "head.safetensors"

_PROMPT_TENSOR = "prompt_embeddings"


def save_files(model: AdaptedModel, spec: AdapterSpec, base: BaseModel, folder: Path) -> None:
    """Write the adapter and the head.

    Args:
        model: With the adapter's present values.
        spec: The adapter.
        base: The base model it is for.
        folder: Where; must exist.
    """
    encoder = model.encoder
    if isinstance(encoder, peft.PeftModel):
        # Without the embedding layers, which never change here, PEFT has no reason to ask a hub.
        encoder.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        # PEFT's empty model card names this machine's path to the base model.
        (folder / "README.md").unlink(missing_ok=True)
    elif isinstance(encoder, prompts.SoftPrompt):
        tokens = encoder.prompt.num_embeddings
        config = prompts.prompt_config(tokens, encoder.encoder, base_name=base.name)
        _save_peft(config, {_PROMPT_TENSOR: encoder.prompt.weight}, folder)
    elif spec.kind == "ia3":
        _save_ia3(encoder, base, folder)
    else:
        trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
        if trained:
            _save(trained, folder / WEIGHTS_FILE)
    if hub_id(base) and (folder / PEFT_CONFIG).is_file():
        _name_base(folder / PEFT_CONFIG, hub_id(base))
    head = head_parameters(model)
    if head and not spec.personal_head:
        _save(head, folder / HEAD_FILE)


def load_encoder_adapter(
    encoder: nn.Module,
    base: BaseModel,
    architecture: Architecture,
    towers: Sequence[Tower],
    spec: AdapterSpec,
    folder: Path,
) -> nn.Module:
    """Open a saved adapter on an encoder, for inference.

    Raises:
        ModelError: The adapter is not there as safetensors, or does not fit the encoder.
    """
    if spec.kind in LOW_RANK_KINDS or spec.kind == "prefix":
        return _load_peft(encoder, folder)
    adapted = attach_adapter(encoder, base, architecture, towers, spec)
    if spec.kind == "head":
        return adapted
    own = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    if spec.kind == "prompt":
        own = {_PROMPT_TENSOR: own["prompt.weight"]}
    elif spec.kind == "ia3":
        own = {_ia3_key(n): m.scale.weight for n, m in scaling.scaled_layers(adapted).items()}
    name = PEFT_WEIGHTS if spec.kind in {"prompt", "ia3"} else WEIGHTS_FILE
    set_tensors(own, read_tensors(folder / name), folder / name)
    return adapted


def load_head(model: AdaptedModel, path: Path) -> None:
    """Set a model's head, if it has one, from a file such as the one beside the adapter.

    Raises:
        ModelError: It is not there, or does not fit.
    """
    head = head_parameters(model)
    if head:
        set_tensors(head, read_tensors(path), path)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ModelError: It cannot be read as one.
    """
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load_file(path)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path.parent} does not hold a finished adapter: {error}") from error
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


def _name_base(path: Path, name: str) -> None:
    """Name a published base model so that PEFT finds it, where it has such a name."""
    config = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps(config | {"base_model_name_or_path": name}, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


def _save(tensors: dict[str, Any], path: Path) -> None:
    plain = {n: t.detach().contiguous().cpu() for n, t in sorted(tensors.items())}
    safetensors.torch.save_file(plain, path, metadata={"format": "pt"})


def _save_peft(config: Any, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    config.inference_mode = True
    config.save_pretrained(folder)
    _save(tensors, folder / PEFT_WEIGHTS)


def _save_ia3(encoder: nn.Module, base: BaseModel, folder: Path) -> None:
    layers = scaling.scaled_layers(encoder)
    config = peft.IA3Config(
        target_modules=sorted(layers),
        feedforward_modules=sorted(name for name, layer in layers.items() if layer.inputs),
        fan_in_fan_out=any(not isinstance(layer.linear, nn.Linear) for layer in layers.values()),
        task_type=low_rank.peft_task(encoder),
        base_model_name_or_path=base.name,
    )
    tensors = {
        # PEFT multiplies inputs by a row and outputs by a column.
        _ia3_key(name): layer.scale.weight.reshape((1, -1) if layer.inputs else (-1, 1))
        for name, layer in layers.items()
    }
    _save_peft(config, tensors, folder)


def _ia3_key(name: str) -> str:
    return f"base_model.model.{name}.ia3_l"


def _load_peft(encoder: nn.Module, folder: Path) -> nn.Module:
    for name in (PEFT_CONFIG, PEFT_WEIGHTS):
        # PEFT would go on to a pickled file of the same stem, and then to a hub.
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}")
    try:
        with low_rank.peft_warnings_silenced(), warnings.catch_warnings():
            # A tensor that is missing is a warning to PEFT, and keeps its random start.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted: Any = peft.PeftModel.from_pretrained(encoder, folder)
    except (
        ValueError, RuntimeError, OSError, KeyError, TypeError, UserWarning,
        safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise ModelError(f"cannot open the adapter in {folder}: {error}") from error
    model: nn.Module = adapted
    return model
