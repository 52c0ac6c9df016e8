"""PEFT's own two files of an adapter, and what has to be known to use PEFT without a hub."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.files import AS_WRITTEN, save_tensors

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"


def peft_task(encoder: nn.Module) -> str:
    """Returns PEFT's task type of a bare encoder, or of one with the head that models language."""
    return "CAUSAL_LM" if hasattr(encoder, "lm_head") else "FEATURE_EXTRACTION"


@contextlib.contextmanager
def peft_warnings_silenced() -> Iterator[None]:
    """Without what PEFT says of itself and of settings that nobody here chose."""
    # PEFT 0.21 reads an attribute that Transformers 5.23 deprecates; nothing a user could mend.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path`")
        yield


def adapt_with_peft(encoder: nn.Module, config: Any, *, base_name: str) -> nn.Module:
    """Let PEFT put an adapter on an encoder."""
    import peft

    with peft_warnings_silenced():
        adapted: nn.Module = peft.get_peft_model(encoder, config)
    config.base_model_name_or_path = base_name  # PEFT writes this machine's path otherwise
    return adapted


def save_peft_model(encoder: Any, folder: Path) -> None:
    """Write the adapter of an encoder that PEFT adapted."""
    # Its empty model card would name this machine's path to the base model.
    encoder.create_or_update_model_card = lambda _: None
    try:
        # Without the embedding layers, which never change here, PEFT has no reason to ask a hub.
        encoder.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    finally:
        del encoder.create_or_update_model_card
    _order_names(folder / PEFT_CONFIG)


def save_as_peft(config: Any, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    """Write an adapter that PEFT can open and did not make."""
    config.inference_mode = True
    config.save_pretrained(folder)
    _order_names(folder / PEFT_CONFIG)
    save_tensors(tensors, folder / PEFT_WEIGHTS)


def _order_names(path: Path) -> None:
    """Put the names of modules in order: PEFT keeps them in a set, and its order is chance."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("target_modules", "feedforward_modules"):
        if isinstance(config.get(key), list):
            config[key] = sorted(config[key])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def open_peft_model(encoder: nn.Module, folder: Path) -> nn.Module:
    """Let PEFT open its files on an encoder.

    Raises:
        ModelError: They are not there as safetensors, or do not fit.
    """
    import peft

    for name in (PEFT_CONFIG, PEFT_WEIGHTS):
        # PEFT would go on to a pickled file of the same stem, and then to a hub.
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no {name}", hint=AS_WRITTEN)
    try:
        with peft_warnings_silenced(), warnings.catch_warnings():
            # A tensor that is missing is a warning to PEFT, and keeps its random start.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted: Any = peft.PeftModel.from_pretrained(encoder, folder)
    except (
        ValueError, RuntimeError, OSError, KeyError, TypeError, UserWarning,
        safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise ModelError(
            f"cannot open the adapter in {folder}: {error}", hint=AS_WRITTEN
        ) from error
    opened: nn.Module = adapted
    return opened
