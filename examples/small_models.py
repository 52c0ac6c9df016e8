"""Small models built from configurations, saved as Hugging Face folders with safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTModel,
)

IMAGE_SIZE = 24
_IMAGE = {"image_size": IMAGE_SIZE, "patch_size": 4}
_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


def small_gpt2(folder: Path) -> GPT2LMHeadModel:
    """A byte-level GPT-2 of 0.1 M parameters, untrained; its tokenizer is written already."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)} | {"<|end|>": len(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    end = len(alphabet)
    torch.manual_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(vocabulary),
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=128,
            bos_token_id=end,
            eos_token_id=end,
        )
    )


def small_vit(folder: Path) -> ViTModel:
    """A vision transformer of 0.1 M parameters, untrained; its processor is written already."""
    _write_processor(folder)
    torch.manual_seed(1)
    return ViTModel(ViTConfig(**_SIZES, **_IMAGE), add_pooling_layer=False)


def small_clip(folder: Path, words: list[str]) -> CLIPModel:
    """Two towers of 0.1 M parameters each, untrained; tokenizer and processor are written."""
    _write_processor(folder)
    special = ["[PAD]", "[UNK]", "[CLS]", "[END]"]
    vocabulary = {word: index for index, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [END]", special_tokens=[("[CLS]", 2), ("[END]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]"
    ).save_pretrained(folder)
    text: dict[str, Any] = {
        **_SIZES,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 16,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    torch.manual_seed(1)
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config={**_SIZES, **_IMAGE}, projection_dim=64)
    )


def _write_processor(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
