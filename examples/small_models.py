"""Small models built from configurations, saved as Hugging Face folders with safetensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTModel,
)

IMAGE_SIZE = 24
_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}


def small_gpt2(folder: Path, corpus: Sequence[str] = ()) -> GPT2LMHeadModel:
    """A GPT-2 of 0.1 M parameters, untrained; its tokenizer is written already.

    The tokenizer's tokens are bytes, and with a public `corpus` up to 512 pieces of its words.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    pieces = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 1 + (512 if corpus else 0),
        initial_alphabet=alphabet,
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, pieces)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    end = tokenizer.token_to_id("<|end|>")
    torch.manual_seed(1)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=tokenizer.get_vocab_size(),
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=128,
            bos_token_id=end,
            eos_token_id=end,
        )
    )


def train_decoder(model: GPT2LMHeadModel, folder: Path, forms: Sequence[tuple[str, str]]) -> None:
    """Train a decoder on public texts, each with a word below it, and save it beside its tokenizer.

    Args:
        model: Of `small_gpt2`.
        folder: Where that wrote its tokenizer.
        forms: Texts and words.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    end = tokenizer.eos_token_id
    rows = [torch.tensor([*tokenizer(f"{text}\n{word}")["input_ids"], end]) for text, word in forms]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(6):
        for chosen in torch.randperm(len(ids)).split(32):
            batch = ids[chosen]
            labels = batch.masked_fill(batch == end, -100)
            labels[torch.arange(len(batch)), (batch != end).sum(dim=1)] = end
            optimizer.zero_grad()
            model(input_ids=batch, labels=labels).loss.backward()
            optimizer.step()
    model.save_pretrained(folder, safe_serialization=True)


def small_vit(folder: Path, *, image_size: int = IMAGE_SIZE) -> ViTModel:
    """A vision transformer of 0.1 M parameters, untrained; its processor is written already.

    An image is 6 x 6 patches, whatever its size.
    """
    _write_processor(folder, image_size)
    torch.manual_seed(1)
    return ViTModel(ViTConfig(**_SIZES, **_pixels(image_size)), add_pooling_layer=False)


def train_encoder(
    model: nn.Module,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int,
    places: torch.Tensor | None = None,
) -> None:
    """Train an encoder of images on public ones, with a head that is thrown away.

    Args:
        model: Of `small_vit`.
        pixels: uint8, shape (n, side, side, 3).
        labels: int64, shape (n,).
        epochs: Passes over them.
        places: Where in an image its label shows, float32, shape (n, patches), from 0 to 1; None
            if that is not known. A small finding is learned much sooner with it.
    """
    scaled = (pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    head = nn.Linear(_SIZES["hidden_size"], int(labels.max()) + 1)
    where = nn.Linear(_SIZES["hidden_size"], 1)
    heads = [*head.parameters(), *where.parameters()]
    optimizer = torch.optim.Adam([*model.parameters(), *heads], lr=2e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(32):
            states = model(pixel_values=scaled[chosen]).last_hidden_state
            loss = nn.functional.cross_entropy(head(states[:, 0]), labels[chosen])
            if places is not None:
                shown = where(states[:, 1:]).squeeze(-1)
                loss = loss + 4 * nn.functional.binary_cross_entropy_with_logits(
                    shown, places[chosen]
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def small_clip(folder: Path, words: list[str]) -> CLIPModel:
    """Two towers of 0.1 M parameters each, untrained; tokenizer and processor are written."""
    _write_processor(folder, IMAGE_SIZE)
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
        CLIPConfig(
            text_config=text,
            vision_config={**_SIZES, **_pixels(IMAGE_SIZE)},
            projection_dim=64,
        )
    )


def _pixels(image_size: int) -> dict[str, int]:
    return {"image_size": image_size, "patch_size": image_size // 6}


def _write_processor(folder: Path, image_size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": image_size, "width": image_size},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
