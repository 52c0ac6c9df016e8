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
_DISTILBERT = AddedLayer(
    said=_MEAN,
    mean=True,
    layers="transformer.layer",
    count="n_layers",
    value="attention.v_lin",
    output="attention.out_lin",
    rectified="pre_classifier",
)
_LLAMA = {
    "text": ScaledStates(said=_LAST, of="last", bias=False, classifier="score"),
    "tokens": ScaledStates(said="own token over feature_scale", of="every", classifier="score"),
}
_VIT = {"image": ScaledStates(said="first token over feature_scale", of="first", norm="layernorm")}

# model_type in transformers: what a head answers for: how the class for it holds it.
OWN_HEADS: Mapping[str, Mapping[str, OwnHead]] = MappingProxyType(
    {
        "bert": {
            "text": AddedLayer(said=_MEAN, mean=True, squashed=".pooler.dense"),
            "tokens": AddedLayer(said=_EVERY, mean=False),
        },
        "roberta": {
            "text": AddedLayer(
                said=_MEAN, mean=True, squashed="classifier.dense", classifier="classifier.out_proj"
            ),
            "tokens": AddedLayer(said=_EVERY, mean=False),
        },
        "distilbert": {
            "text": _DISTILBERT,
            "tokens": replace(_DISTILBERT, said=_EVERY, mean=False, rectified=""),
        },
        "modernbert": {
            "text": NormedHead(said=_MEAN, mean=True),
            "tokens": NormedHead(said=_EVERY, mean=False),
        },
        "gpt2": {
            "text": replace(_LLAMA["text"], norm="ln_f"),
            "tokens": replace(_LLAMA["tokens"], norm="ln_f", classifier="classifier"),
        },
        "llama": _LLAMA,
        "mistral": _LLAMA,
        "qwen2": _LLAMA,
        "qwen3": _LLAMA,
        "vit": _VIT,
        "deit": _VIT,
    }
)


def own_head(model_type: str, answers_for: str) -> OwnHead:
    """How an architecture's own class holds a head.

    Args:
        model_type: The architecture's name in transformers.
        answers_for: `text`, `tokens` or `image`.

    Raises:
        ModelError: It has no class that could.
    """
    try:
        return OWN_HEADS[model_type][answers_for]
    except KeyError:
        raise ModelError(
            f"task.head = 'architecture' is not possible on {model_type!r}: its class for it reads "
            "no features that an image or a text is well told by, as its embedding is",
            hint="Use task.head = 'unit-norm'; the card of an export says how to open it.",
        ) from None
