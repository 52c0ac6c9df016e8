"""Models of ordinary shape to time a training step on, made without a hub.

MiniLM is the built-in model with its published weights, under this project's classification task.
The decoders have random weights: what a step costs depends on shapes. GPT-2's are those of
DistilGPT-2, the Llama type's those of a 160 M model at half its depth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import peft
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from fmfl_secure.models import AdapterSpec, find_base_model
from fmfl_secure.models.batches import TextBatch
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.tasks import TextClassification

_RANK, _ALPHA = 8, 16
_TOKENS = 64
_LAYERS = 6


@dataclass(frozen=True, slots=True)
class Workload:
    """A model, its per-record loss, and records to train on.

    Attributes:
        model: With an adapter in every layer; what is to be trained requires gradients.
        loss: One loss a record, shape (b,).
        collate: Record indices to a batch.
        records: Records of a step.
        tokens: Tokens of a record.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Any], torch.Tensor]
    collate: Callable[[NDArray[np.int64]], Any]
    records: int
    tokens: int = _TOKENS


def minilm(*, freeze_a: bool) -> Workload:
    """Classification in four classes; nothing is replayed, as every layer has an adapter."""
    spec = AdapterSpec(
        kind="ffa-lora" if freeze_a else "lora",
        rank=_RANK,
        alpha=_ALPHA,
        last_layers=0,
        target_modules=("query", "value"),
    )
    base = find_base_model("minilm")
    task = TextClassification(
        base=base,
        adapter=spec,
        settings=TextClassificationSection(
            text_columns=("text",), label_column="label", labels=("a", "b", "c", "d")
        ),
        max_length=_TOKENS,
        cache_bytes=0,
    )
    records = 32
    input_ids = _random_tokens(records, int(base.config["vocab_size"]))
    labels = torch.arange(records) % len(task.settings.labels)

    def collate(chosen: NDArray[np.int64]) -> TextBatch:
        index = torch.from_numpy(chosen)
        return TextBatch(
            input_ids=input_ids[index],
            attention_mask=torch.ones(len(chosen), _TOKENS, dtype=torch.int64),
            labels=labels[index],
            records=chosen.tolist(),
            cache=RecordCache(0),
        )

    return Workload(task.build_model(seed=1), task.per_record_loss, collate, records)


def gpt2(*, freeze_a: bool) -> Workload:
    """Language modelling with the shape of DistilGPT-2: 6 layers of width 768."""
    config = GPT2Config(n_layer=_LAYERS, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel(config)
    return _language_model(model, config.vocab_size, ["c_attn"], freeze_a)


def llama(*, freeze_a: bool) -> Workload:
    """Language modelling with a Llama of 6 layers of width 768."""
    config = LlamaConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=_LAYERS,
        num_attention_heads=12,
        max_position_embeddings=2048,
    )
    model = LlamaForCausalLM(config)
    return _language_model(model, config.vocab_size, ["q_proj", "v_proj"], freeze_a)


def _language_model(
    base: nn.Module, vocabulary: int, targets: list[str], freeze_a: bool
) -> Workload:
    config = peft.LoraConfig(
        r=_RANK, lora_alpha=_ALPHA, target_modules=targets, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")  # GPT-2's Conv1D
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        model: nn.Module = peft.get_peft_model(base, config)
    if freeze_a:
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.requires_grad = False
    records = 8
    tokens = _random_tokens(records, vocabulary)
    return Workload(model, _sequence_loss, lambda chosen: tokens[torch.from_numpy(chosen)], records)


def _sequence_loss(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each sequence's next tokens, shape (b,)."""
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    return losses.mean(dim=1)


def _random_tokens(records: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(vocabulary, (records, _TOKENS))


MODELS: dict[str, Callable[..., Workload]] = {
    "minilm": minilm,
    "gpt2": gpt2,
    "llama": llama,
}
