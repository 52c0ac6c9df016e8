"""Settings that a base model decides, which `init --model` writes in place of a template's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmfl_secure.errors import ModelError
from fmfl_secure.models.architectures import Architecture, text_positions
from fmfl_secure.models.base import BaseModel, find_base_model
from fmfl_secure.models.block_weights import block_kinds
from fmfl_secure.models.own_heads import OWN_HEADS
from fmfl_secure.models.support import require_supported
from fmfl_secure.models.unlisted import architecture_for
from fmfl_secure.settings.task_templates import task_template
from fmfl_secure.settings.tasks import CausalLMSection
from fmfl_secure.tasks import TASKS
from fmfl_secure.tasks.chat_template import ChatTemplate

_ADAPTER = "ffa-lora"  # the template's
_ANSWERS_FOR = {
    "text-classification": "text",
    "multi-label-classification": "text",
    "token-classification": "tokens",
    "image-classification": "image",
}
_DEEP = 12  # layers; from here on the last few have room enough, and the rest is kept in memory


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """Settings that go with a base model.

    Attributes:
        task: Kind of task.
        values: By section and key, such as `adapter.target_modules`.
        said: What was chosen and why, in sentences.
    """

    task: str
    values: Mapping[str, Any]
    said: tuple[str, ...]


def model_defaults(model: str, *, task: str | None, folder: Path) -> ModelDefaults:
    """Settings for a base model.

    Args:
        model: `minilm`, or the path of a Hugging Face folder from here.
        task: Kind of task; None takes the one that the model was made for.
        folder: Where the settings will be, which a path in them starts from.

    Raises:
        ModelError: The folder is no base model, or none for this task.
        UnknownKind: There is no template for the task.
    """
    base = find_base_model(model)
    architecture = architecture_for(base)
    kind = task or _made_for(architecture)
    task_template(kind)  # refuse an unknown one
    require_supported(base, _ADAPTER, TASKS.get(kind).needs)
    place = model if model == "minilm" else Path(os.path.relpath(base.path, folder)).as_posix()
    values: dict[str, Any] = {
        "model.base": place,
        "model.digest": base.digest,
        "adapter.target_modules": list(architecture.target_modules),
    }
    said = [f"base model {base.name}, {base.model_type}: {kind}"]
    config = base.load_config()
    layers = getattr(config, "num_hidden_layers", 0) or 0
    if layers >= _DEEP:
        values["adapter.last_layers"] = 4
        said.append(f"the last 4 of {layers} layers are adapted; 0 adapts all")
    if str(base.config.get("dtype", base.config.get("torch_dtype", ""))) == "bfloat16":
        values["model.dtype"] = "bfloat16"
        said.append("frozen weights stay in bfloat16, as the folder has them")
    if block_kinds(base.path):
        values["model.dtype"] = "blocks"
        said.append("frozen matrices stay in their blocks of 8 or 4 bits")
    positions = text_positions(config, architecture) if "text" in architecture.towers else None
    if positions is not None and positions < 128:
        values["model.max_length"] = positions
    if kind in _ANSWERS_FOR and _ANSWERS_FOR[kind] not in OWN_HEADS.get(base.model_type, {}):
        values["task.head"] = "unit-norm"
        said.append("no class of transformers holds a head here: task.head is 'unit-norm'")
    if issubclass(TASKS.get(kind).section, CausalLMSection):
        values["training.physical_batch_size"] = 16
        said.append(_asked(base, values))
    if base.unlisted:
        said.append(
            f"no table lists {base.unlisted}: sites take it whose [policy] says architectures = "
            "'gated'"
        )
    return ModelDefaults(kind, values, tuple(said))


def _made_for(architecture: Architecture) -> str:
    if len(architecture.towers) > 1:
        return "image-text"
    if "image" in architecture.towers:
        return "image-classification"
    return "causal-lm" if architecture.causal else "text-classification"


def _asked(base: BaseModel, values: dict[str, Any]) -> str:
    try:
        ChatTemplate(base.load_tokenizer())
    except ModelError as error:
        return f"prompts are written by task.template: {error}"
    values["task.chat"] = True
    return "prompts are written by the tokenizer's own chat template"
