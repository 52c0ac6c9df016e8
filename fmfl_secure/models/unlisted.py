"""Architectures that no table lists: how one is built, worked out from transformers' own class.

A site uses one only where its policy says `architectures = "gated"`. What is worked out here says
where adapters go and nothing about privacy: whether a step has the sensitivity that a plan
promises, the admission gate measures on the model itself, as of any other. What is known to break
it (mixtures of experts first of all) is refused here, before a weight is loaded.

`models.support` and `planning.model_defaults` call `architecture_for`, and `tasks.task_model`
calls `require_causal` before it trains such a language model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.architectures import (
    ARCHITECTURES,
    REFUSED,
    ROUTING,
    Architecture,
    Modality,
    Tower,
    architecture_of,
    bare_model,
)
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.library_errors import reading

_EXPERTS = re.compile(r"expert|(^|_)moe(_|$)|router")
_KNOWN: dict[str, Architecture] = {}  # by the base model's digest
_READS: dict[str, Modality] = {"input_ids": "text", "pixel_values": "image"}


def architecture_for(base: BaseModel) -> Architecture:
    """How a base model is built: as the table says, or else as its class does.

    Raises:
        ModelError: It is refused by name, or is no single stack of layers that reads texts or
            images.
    """
    if not base.unlisted or base.model_type in REFUSED:
        return architecture_of(base.model_type)
    return _worked_out(base)


def require_causal(encoder: nn.Module) -> None:
    """Measure that no state of a text depends on a token that follows.

    Args:
        encoder: A language model of an architecture that no table lists.

    Raises:
        ModelError: One does: trained to predict the next token, it would read it.
    """
    model: Any = bare_model(encoder)
    words = int(model.config.get_text_config().vocab_size)
    first = torch.arange(12).remainder(words).unsqueeze(0)
    other = first.clone()
    other[0, -1] = (other[0, -1] + words // 2 + 1) % words
    mask = torch.ones_like(first)
    with torch.no_grad():
        one, two = (
            model(input_ids=ids, attention_mask=mask).last_hidden_state for ids in (first, other)
        )
    if torch.equal(one[0, -1], two[0, -1]):
        raise ModelError("the base model's last state does not depend on the last token")
    if not torch.allclose(one[0, :-1], two[0, :-1], atol=1e-5, rtol=1e-4):
        raise ModelError(
            "the base model sees the words that follow",
            hint="Use a decoder, such as gpt2, llama, mistral or qwen2.",
        )


def _worked_out(base: BaseModel) -> Architecture:
    from transformers import AutoModel
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    from transformers.pytorch_utils import Conv1D

    if base.digest in _KNOWN:
        return _KNOWN[base.digest]
    config = base.load_config()
    _refuse_experts(base.model_type, config)
    if getattr(config, "is_encoder_decoder", False):
        raise _not_supported(base, "the tasks here are for encoders and for decoders, not for both")
    if {"text_config", "vision_config", "audio_config"} & {*config.to_dict()}:
        raise _not_supported(base, "it has several towers, and which reads what is not known")
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise _not_supported(base, "its configuration states no hidden_size")
    with reading("the architecture", base.path / "config.json"), torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=False)
    modality = _READS.get(model.main_input_name)
    if modality is None:
        raise _not_supported(base, f"it reads {model.main_input_name}")
    path, layers = _longest_stack(base, model)
    linear = [
        (name, module)
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    if not linear:
        raise _not_supported(base, "its layers have no linear layers of PyTorch's own kind")
    found = _KNOWN[base.digest] = Architecture(
        towers=MappingProxyType({modality: Tower("", path)}),
        target_modules=tuple(sorted({name.rsplit(".", 1)[-1] for name, _ in linear})),
        scaled_outputs=(),
        scaled_inputs=(),
        causal=base.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        biases=any(getattr(module, "bias", None) is not None for _, module in linear),
    )
    return found


def _refuse_experts(model_type: str, config: Any) -> None:
    for key, value in config.to_dict().items():
        several = isinstance(value, int | list | tuple) and value not in (0, 1, False, [], ())
        if _EXPERTS.search(key) and several:
            raise ModelError(
                f"architecture {model_type!r} is not supported here: {ROUTING}",
                hint="Use a dense model of the same family.",
            )


def _longest_stack(base: BaseModel, model: nn.Module) -> tuple[str, nn.ModuleList]:
    stacks = list(_stacks(model))
    if not stacks:
        raise _not_supported(base, "it has no list of layers that are alike")
    largest = max(stacks, key=lambda found: _parameters(found[1]))
    rivals = [path for path, layers in stacks if 2 * _parameters(layers) > _parameters(largest[1])]
    if len(rivals) > 1:
        raise _not_supported(base, f"it has several stacks of layers ({', '.join(rivals)})")
    return largest


def _stacks(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """Outermost lists of modules of one class."""
    for name, module in model.named_children():
        path = f"{prefix}{name}"
        alike = len({type(each) for each in module.children()}) == 1
        if isinstance(module, nn.ModuleList) and alike:
            yield path, module
        else:
            yield from _stacks(module, f"{path}.")


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _not_supported(base: BaseModel, reason: str) -> ModelError:
    return ModelError(
        f"architecture {base.model_type!r} is not supported here: it is in no table, and {reason}",
        hint=f"Supported: {', '.join(sorted(ARCHITECTURES))}.",
    )
