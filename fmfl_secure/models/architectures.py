"""What differs between architectures: where the layers are and what adapters target.

Everything else is transformers' business. An architecture that is not listed is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fmfl_secure.errors import ModelError


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one family of models is built.

    Attributes:
        layers: Dotted path of the `ModuleList` of layers inside the encoder.
        target_modules: Names of the linear layers that adapters attach to by default.
    """

    layers: str
    target_modules: tuple[str, ...]


_ARCHITECTURES = {
    "bert": Architecture("encoder.layer", ("query", "key", "value", "dense")),
    "roberta": Architecture("encoder.layer", ("query", "key", "value", "dense")),
    "distilbert": Architecture(
        "transformer.layer", ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2")
    ),
}


def architecture_of(model_type: str) -> Architecture:
    """The architecture by its name in transformers.

    Raises:
        ModelError: It is not supported; lists those that are.
    """
    try:
        return _ARCHITECTURES[model_type]
    except KeyError:
        raise ModelError(
            f"architecture {model_type!r} is not supported here",
            hint=f"Supported for this task: {', '.join(sorted(_ARCHITECTURES))}.",
        ) from None


def find_layers(encoder: nn.Module, architecture: Architecture) -> nn.ModuleList:
    """The encoder's list of layers.

    Raises:
        ModelError: It is not where the architecture keeps it.
    """
    try:
        layers = encoder.get_submodule(architecture.layers)
    except AttributeError as error:
        raise ModelError(f"the base model has no {architecture.layers}") from error
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(f"{architecture.layers} is not a list of layers")
    return layers
