"""One untrained model of every architecture: width 32, two layers, made in a moment."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support import WORDS

MODEL_TYPES = (
    "bert", "roberta", "distilbert", "modernbert", "electra", "xlm-roberta", "camembert", "mpnet",
    "deberta-v2",
    "gpt2", "llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2", "ministral",
    "ministral3", "gemma2", "gemma3_text", "phi3",
    "vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "clip", "siglip",
)  # fmt: skip
DECODERS = frozenset(MODEL_TYPES[MODEL_TYPES.index("gpt2") : MODEL_TYPES.index("vit")])
IMAGE_ENCODERS = frozenset({"vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit"})
IMAGE_SIZE = 16
POSITIONS = 64


def write_tiny(folder: Path, model_type: str, *, seed: int = 3) -> Path:
    """Write a model with its tokenizer and image processor, as far as it has any."""
    import torch
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = 0
    causal = model_type in DECODERS
    if model_type not in IMAGE_ENCODERS:
        # MPNet pads with 1, whatever its configuration says.
        word = ["[UNK]", "[PAD]"] if model_type == "mpnet" else ["[PAD]", "[UNK]"]
        vocabulary = write_byte_tokenizer(folder) if causal else write_word_tokenizer(folder, word)
    if model_type in IMAGE_ENCODERS | {"clip", "siglip"}:
        (folder / "preprocessor_config.json").write_text(
            json.dumps(
                {
                    "image_processor_type": "ViTImageProcessor",
                    "do_resize": True,
                    "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
                    "image_mean": [0.5] * 3,
                    "image_std": [0.5] * 3,
                }
            )
        )
    config = tiny_config(model_type, vocabulary)
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind.from_config(config)
    # As trained weights are: those of a fresh model are so small that nothing matters to anything.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "logit" not in name:
                parameter.mul_(5.0)
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def tiny_config(model_type: str, vocabulary: int) -> Any:
    """A configuration of width 32 and two layers."""
    import transformers

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    text = {**sizes, "vocab_size": vocabulary, "max_position_embeddings": POSITIONS}
    image = {**sizes, "image_size": IMAGE_SIZE, "patch_size": 8}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    end = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": 256}
    match model_type:
        case "bert":
            settings = text
        case "electra":
            settings = {**text, "embedding_size": 16}
        case "deberta-v2":  # as version 3 is published
            settings = {
                **text, "relative_attention": True, "pos_att_type": ["p2c", "c2p"],
                "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_buckets": 8,
                "position_biased_input": False, "type_vocab_size": 0,
            }  # fmt: skip
        case "roberta" | "xlm-roberta" | "camembert" | "mpnet":
            settings = {**text, **special, "max_position_embeddings": POSITIONS + 2}
            settings["pad_token_id"] = 1 if model_type == "mpnet" else 0
        case "distilbert":
            settings = {
                "vocab_size": vocabulary, "dim": 32, "n_layers": 2, "n_heads": 2,
                "hidden_dim": 64, "max_position_embeddings": POSITIONS,
            }  # fmt: skip
        case "modernbert":
            settings = {**text, **special, "cls_token_id": 2, "sep_token_id": 3}
        case "gpt2":
            settings = {
                "vocab_size": vocabulary, "n_embd": 32, "n_layer": 2, "n_head": 2,
                "n_positions": POSITIONS, "bos_token_id": 256, "eos_token_id": 256,
            }  # fmt: skip
        case "llama" | "granite" | "olmo2":
            settings = {**text, **end}
        case "mistral" | "qwen2" | "phi3":
            settings = {**text, **end, "num_key_value_heads": 1}
        case "ministral" | "gemma2" | "gemma3_text":
            settings = {
                **text, **end, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 8,
            }  # fmt: skip
        case "ministral3":
            settings = {
                **text, **end, "num_key_value_heads": 1, "head_dim": 16, "rope_parameters": {
                    "rope_type": "default", "rope_theta": 10_000.0, "llama_4_scaling_beta": 0.1,
                    "original_max_position_embeddings": POSITIONS,
                },
            }  # fmt: skip
        case "smollm3" | "qwen3":
            settings = {**text, **end, "num_key_value_heads": 1, "head_dim": 16}
        case "dinov2" | "dinov2_with_registers":
            settings = {**image, "mlp_ratio": 2}
        case "vit" | "deit" | "dinov3_vit":
            settings = image
        case "clip":
            settings = {
                "text_config": {**text, **special, "projection_dim": 24},
                "vision_config": {**image, "projection_dim": 24},
                "projection_dim": 24,
            }
        case "siglip":
            settings = {
                "text_config": {**text, **special, "projection_size": 32},
                "vision_config": image,
            }
        case _:
            raise ValueError(model_type)
    return transformers.AutoConfig.for_model(model_type, **settings)


def write_word_tokenizer(folder: Path, first: Sequence[str] = ("[PAD]", "[UNK]")) -> int:
    """Whole words and single letters; returns the size of the vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = [*first, "[CLS]", "[SEP]"]
    letters = [p + c for p in ("", "##") for c in "abcdefghijklmnopqrstuvwxyz0123456789."]
    vocabulary = {w: i for i, w in enumerate([*special, *WORDS, *letters])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    return len(vocabulary)


def write_byte_tokenizer(folder: Path) -> int:
    """Bytes, an end of text, and no padding token, as GPT-2; returns the vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {c: i for i, c in enumerate(alphabet)} | {"<|end|>": len(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)
    return len(vocabulary) + 8  # room for tokens that an architecture's own tokenizer adds


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_chat(folder: Path, template: str) -> Path:
    """A decoder whose tokenizer has a chat template, and two special tokens for it."""
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    write_tiny(folder, "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    marks = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_tokens([AddedToken(m, special=True, normalized=False) for m in marks])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 256}))
    return folder


def png(*, seed: int, size: int = 12, bright: bool = False) -> bytes:
    """A small image of noise, on a bright or a dark ground."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    values = generator.integers(0, 120, size=(size, size, 3)) + (120 if bright else 0)
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()
