"""Tables of architectures: how those that are used differ, and which are refused.

Everything else is transformers' business. An architecture in neither table is used only where a
site's policy lets the admission gate decide (`models.unlisted`): nobody has measured it before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from fmfl_secure.errors import ModelError

Modality = Literal["text", "image"]


@dataclass(frozen=True, slots=True)
class Tower:
    """One stack of layers that reads one modality.

    Attributes:
        root: Dotted path of the module that holds all of it; empty for the whole model.
        layers: Dotted path of its `ModuleList` of layers.
    """

    root: str
    layers: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskNeeds:
    """Demands of a kind of task on an architecture and an adapter.

    Attributes:
        name: Its name in settings.
        modalities: What it reads.
        causal: It needs a model that sees no word that follows.
        together: It compares what two towers make of a record, rather than reading each alone.
        head: It has a head of its own, which a probe can train.
    """

    name: str
    modalities: tuple[Modality, ...]
    causal: bool = False
    together: bool = False
    head: bool = True


def _hidden_width(config: Any, modality: Modality) -> int:  # noqa: ARG001, one for all it reads
    return int(config.hidden_size)


def _projected_width(config: Any, modality: Modality) -> int:  # noqa: ARG001, one for both towers
    return int(config.projection_dim)


def _width_of_either(config: Any, modality: Modality) -> int:
    text, image = config.text_config, config.vision_config
    return int(text.projection_size if modality == "text" else image.hidden_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """How one family of models is built, as transformers' `AutoModel` builds it.

    Attributes:
        towers: The stacks by what they read.
        target_modules: Last names of the linear layers that low-rank adapters attach to.
        scaled_outputs: Paths in a layer of the linear layers whose outputs IA3 scales.
        scaled_inputs: Paths in a layer of the linear layers whose inputs IA3 scales.
        causal: A decoder, which can model language.
        biases: Its linear layers have biases, which BitFit trains.
        norms: Its normalisation layers have per-record gradients; Opacus 1.6 has none for a
            LayerNorm without a bias.
        prefixes: Its attention takes keys and values computed elsewhere, as prefix tuning needs.
        transposed: It keeps the weights of linear layers transposed.
        fixed_length: Texts are padded to its whole length, as it reads the last position.
        positions_after_padding: Its positions begin after the padding index.
        width: Width of the features that one tower gives for a record, from its configuration.
        frozen: Parts of the names of parameters that no adapter trains: they are not used here, or
            are shared by all records of a batch in one row, which per-record gradients do not see.
    """

    towers: Mapping[Modality, Tower]
    target_modules: tuple[str, ...]
    scaled_outputs: tuple[str, ...]
    scaled_inputs: tuple[str, ...]
    causal: bool = False
    biases: bool = True
    norms: bool = True
    prefixes: bool = False
    transposed: bool = False
    fixed_length: bool = False
    positions_after_padding: bool = False
    width: Callable[[Any, Modality], int] = _hidden_width
    frozen: tuple[str, ...] = field(default=("position", "pooler"))


def _text(layers: str) -> Mapping[Modality, Tower]:
    return MappingProxyType({"text": Tower("", layers)})


_BERT = Architecture(
    towers=_text("encoder.layer"),
    target_modules=("query", "key", "value", "dense"),
    scaled_outputs=("attention.self.key", "attention.self.value"),
    scaled_inputs=("output.dense",),
    prefixes=True,
)
_ROBERTA = replace(_BERT, positions_after_padding=True)
_LLAMA = Architecture(
    towers=_text("layers"),
    target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    scaled_outputs=("self_attn.k_proj", "self_attn.v_proj"),
    scaled_inputs=("mlp.down_proj",),
    causal=True,
    biases=False,
    prefixes=True,
)
_VIT = Architecture(
    towers=MappingProxyType({"image": Tower("", "layers")}),
    target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
    scaled_outputs=("attention.k_proj", "attention.v_proj"),
    scaled_inputs=("mlp.fc2",),
    frozen=("position", "pooler", "cls_token", "mask_token", "distillation_token"),
)
_DINO = replace(
    _VIT,
    target_modules=(*_VIT.target_modules, "weights_in", "weights_out"),  # those of the giant
    towers=MappingProxyType({"image": Tower("", "encoder.layer")}),
    frozen=(*_VIT.frozen, "register_tokens", "layer_scale"),
)
# Its windows make a cache that takes no keys and values computed elsewhere, and it scales its word
# embeddings by a buffer, for which Opacus has no per-record gradients.
_GEMMA = replace(_LLAMA, prefixes=False, frozen=(*_LLAMA.frozen, "embed_tokens"))
_CLIP = Architecture(
    towers=MappingProxyType(
        {
            "text": Tower("text_model", "text_model.encoder.layers"),
            "image": Tower("vision_model", "vision_model.encoder.layers"),
        }
    ),
    target_modules=("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    scaled_outputs=("self_attn.k_proj", "self_attn.v_proj"),
    scaled_inputs=("mlp.fc2",),
    frozen=("position", "class_embedding", "vision_model.head", "logit_"),
    width=_projected_width,
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "bert": _BERT,
        "electra": _BERT,
        "roberta": _ROBERTA,
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "mpnet": replace(
            _BERT,
            target_modules=("q", "k", "v", "o", "dense"),
            scaled_outputs=("attention.attn.k", "attention.attn.v"),
            prefixes=False,
            positions_after_padding=True,
            frozen=(*_BERT.frozen, "relative_attention_bias"),
        ),
        # Queries' and keys' matrices are applied to positions too, which have no records: only
        # what is applied to records alone is trained.
        "deberta-v2": replace(
            _BERT,
            target_modules=("value_proj", "dense"),
            scaled_outputs=("attention.self.value_proj",),
            prefixes=False,
            frozen=(*_BERT.frozen, "rel_embeddings", "query_proj", "key_proj", "encoder.LayerNorm"),
        ),
        "distilbert": Architecture(
            towers=_text("transformer.layer"),
            target_modules=("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
            scaled_outputs=("attention.k_lin", "attention.v_lin"),
            scaled_inputs=("ffn.lin2",),
        ),
        "modernbert": Architecture(
            towers=_text("layers"),
            target_modules=("Wqkv", "Wo", "Wi"),
            scaled_outputs=("attn.Wqkv",),
            scaled_inputs=("mlp.Wo",),
            biases=False,
            norms=False,
        ),
        "gpt2": Architecture(
            towers=_text("h"),
            target_modules=("c_attn", "c_proj", "c_fc"),
            scaled_outputs=("attn.c_attn",),
            scaled_inputs=("mlp.c_proj",),
            causal=True,
            prefixes=True,
            transposed=True,
            frozen=("wpe",),
        ),
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": replace(_LLAMA, biases=True),  # of queries, keys and values
        "qwen3": _LLAMA,
        "smollm3": _LLAMA,
        "granite": _LLAMA,
        "olmo2": _LLAMA,
        "ministral": replace(_LLAMA, prefixes=False),  # for its windows, as above
        "ministral3": _LLAMA,
        "gemma2": _GEMMA,
        "gemma3_text": _GEMMA,
        "phi3": replace(
            _LLAMA,
            target_modules=("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
            scaled_outputs=("self_attn.qkv_proj",),
        ),
        "vit": _VIT,
        "deit": _VIT,
        "dinov2": _DINO,
        "dinov2_with_registers": _DINO,
        "dinov3_vit": replace(
            _DINO,
            towers=MappingProxyType({"image": Tower("", "layer")}),
            target_modules=(
                "q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            ),
            scaled_inputs=("mlp.down_proj",),
        ),
        "clip": _CLIP,
        "siglip": replace(_CLIP, fixed_length=True, width=_width_of_either),
    }
)

_BATCH_NORM = "batch normalisation mixes the records of a batch, so no bound holds for one of them"
ROUTING = (
    "tokens are regrouped by expert, so that an expert's rows are no records, and routing losses "
    "depend on the whole batch"
)
_WINDOWS = "it folds windows of an image into the batch, so that its rows are no longer records"
_PATCHES = (
    "it cuts every image into patches of a size of its own, which the tasks here do not pass on"
)
_PICTURES = "its language model comes with a tower for images, which the tasks here do not use"
_ENCODER_DECODER = "the tasks here are for encoders and for decoders, not for both in one"
# model_type in transformers: why not, and what to use.
REFUSED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "swin": (_WINDOWS, "vit or deit"),
        "swinv2": (_WINDOWS, "vit or deit"),
        "resnet": (_BATCH_NORM, "vit or deit"),
        "regnet": (_BATCH_NORM, "vit or deit"),
        "efficientnet": (_BATCH_NORM, "vit or deit"),
        "mobilenet_v2": (_BATCH_NORM, "vit or deit"),
        "mobilevit": (_BATCH_NORM, "vit or deit"),
        "levit": (_BATCH_NORM, "vit or deit"),
        "mixtral": (ROUTING, "mistral, llama or qwen2"),
        "qwen2_moe": (ROUTING, "qwen2"),
        "qwen3_moe": (ROUTING, "qwen3"),
        "deepseek_v3": (ROUTING, "llama or qwen3"),
        "gpt_oss": (ROUTING, "llama or qwen3"),
        "siglip2": (_PATCHES, "SigLIP 2 at a fixed resolution, whose model type is siglip"),
        "gemma3": (_PICTURES, "gemma3_text, such as the models of 270 million and 1 billion"),
        "t5": (_ENCODER_DECODER, "gpt2, llama or qwen2"),
        "mt5": (_ENCODER_DECODER, "gpt2, llama or qwen2"),
        "bart": (_ENCODER_DECODER, "gpt2, llama or qwen2"),
    }
)


def architecture_of(model_type: str) -> Architecture:
    """The architecture by its name in transformers.

    Raises:
        ModelError: It is not supported; says why where that is known, and lists those that are.
    """
    if model_type in REFUSED:
        reason, instead = REFUSED[model_type]
        raise ModelError(
            f"architecture {model_type!r} is not supported here: {reason}",
            hint=f"Use {instead}.",
        )
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        raise ModelError(
            f"architecture {model_type!r} is not supported here: its per-record gradients have "
            "not been measured",
            hint=f"Supported: {', '.join(sorted(ARCHITECTURES))}.",
        ) from None


def text_positions(config: Any, architecture: Architecture) -> int | None:
    """Longest text in tokens that a model has positions for; None where nothing bounds it.

    Args:
        config: Its configuration as transformers reads it.
        architecture: How it is built.
    """
    own = config.get_text_config()
    positions = getattr(own, "max_position_embeddings", None)
    if not isinstance(positions, int):
        return None
    return positions - (int(own.pad_token_id) + 1 if architecture.positions_after_padding else 0)


def bare_model(model: nn.Module) -> nn.Module:
    """The stack of layers of a transformers model, without the head that models language."""
    bare: nn.Module = getattr(model, "base_model", model)
    return bare


def find_layers(model: nn.Module, tower: Tower) -> nn.ModuleList:
    """A tower's list of layers.

    Raises:
        ModelError: It is not where the architecture keeps it.
    """
    try:
        layers = bare_model(model).get_submodule(tower.layers)
    except AttributeError as error:
        raise ModelError(f"the base model has no {tower.layers}") from error
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(f"{tower.layers} is not a list of layers")
    return layers
