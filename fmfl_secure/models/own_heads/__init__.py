"""Which architecture's own classes hold a linear head, and how: one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from fmfl_secure.errors import ModelError
from fmfl_secure.models.own_heads.added_layer import AddedLayer
from fmfl_secure.models.own_heads.base import LinearHead, OwnHead
from fmfl_secure.models.own_heads.normed_head import NormedHead
from fmfl_secure.models.own_heads.scaled_states import ScaledStates

__all__ = ["ANSWERS_FOR", "OWN_HEADS", "LinearHead", "OwnHead", "own_head"]

# What a head answers for.
ANSWERS_FOR = ("text", "tokens", "image")

_MEAN = "mean over own tokens, centred, unit L2 norm"
_EVERY = "own token, centred, unit L2 norm"
_LAST = "last token over feature_scale"
_BERT = {
    "text": AddedLayer(said=_MEAN, mean=True, square=".pooler.dense"),
    "tokens": AddedLayer(said=_EVERY, mean=False),
}
_ROBERTA = {
    "text": AddedLayer(
        said=_MEAN, mean=True, square="classifier.dense", classifier="classifier.out_proj"
    ),
    "tokens": _BERT["tokens"],
}
_DEBERTA = AddedLayer(
    said=_MEAN,
    mean=True,
    value="attention.self.value_proj",
    square="pooler.dense",
    activation="linear",
    said_of_class={"pooler_hidden_act": "linear"},
)
_DISTILBERT = AddedLayer(
    said=_MEAN,
    mean=True,
    layers="transformer.layer",
    count="n_layers",
    value="attention.v_lin",
    output="attention.out_lin",
    square="pre_classifier",
    activation="relu",
)
_LAST_STATE = ScaledStates(said=_LAST, of="last", bias=False, classifier="score")
_STATES = ScaledStates(said="own token over feature_scale", of="every", classifier="score")
_LLAMA = {"text": _LAST_STATE, "tokens": _STATES}
_FIRST = ScaledStates(said="first token over feature_scale", of="first", norm="layernorm")

# model_type in transformers: what a head answers for: how the class for it holds it.
OWN_HEADS: Mapping[str, Mapping[str, OwnHead]] = MappingProxyType(
    {
        "bert": _BERT,
        "electra": {
            "text": replace(_ROBERTA["text"], activation="gelu"),
            "tokens": _BERT["tokens"],
        },
        "roberta": _ROBERTA,
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "mpnet": {"tokens": _BERT["tokens"]},
        "deberta-v2": {
            "text": _DEBERTA,
            "tokens": replace(_DEBERTA, said=_EVERY, mean=False, square="", said_of_class={}),
        },
        "distilbert": {
            "text": _DISTILBERT,
            "tokens": replace(_DISTILBERT, said=_EVERY, mean=False, square=""),
        },
        "modernbert": {
            "text": NormedHead(said=_MEAN, mean=True),
            "tokens": NormedHead(said=_EVERY, mean=False),
        },
        "gpt2": {
            "text": replace(_LAST_STATE, norm="ln_f"),
            "tokens": replace(_STATES, norm="ln_f", classifier="classifier"),
        },
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _LLAMA,
        "smollm3": _LLAMA,
        "olmo2": {"text": _LAST_STATE},
        "ministral": _LLAMA,
        "ministral3": _LLAMA,
        "gemma2": {
            "text": replace(_LAST_STATE, above_one=True),
            "tokens": replace(_STATES, above_one=True),
        },
        "gemma3_text": {"text": replace(_LAST_STATE, above_one=True)},
        "phi3": _LLAMA,
        "vit": {"image": _FIRST},
        "deit": {"image": _FIRST},
        "dinov2": {"image": replace(_FIRST, beside=True)},
        "dinov2_with_registers": {"image": replace(_FIRST, beside=True)},
    }
)

_PATCHES = "its class reads the mean of its patches, which it was not trained to tell images by"
# Why not, where transformers has a class.
_HOLDS_NONE: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("clip", "image"): _PATCHES,
        ("siglip", "image"): _PATCHES,
        ("mpnet", "text"): "every layer's attention goes by positions, so that none takes a mean",
    }
)


def own_head(model_type: str, answers_for: str) -> OwnHead:
    """How an architecture's own class holds a head.

    Args:
        model_type: The architecture's name in transformers.
        answers_for: `text`, `tokens` or `image`.

    Raises:
        ModelError: It has no class that could; says why.
    """
    try:
        return OWN_HEADS[model_type][answers_for]
    except KeyError:
        reason = _HOLDS_NONE.get((model_type, answers_for), "transformers has no class of it")
        raise ModelError(
            f"task.head = 'architecture' is not possible on {model_type!r}: {reason}",
            hint="Use task.head = 'unit-norm'; the card of an export says how to open it.",
        ) from None
