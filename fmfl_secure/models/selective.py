"""Training some, or all, of the base model's own parameters in place.

`bitfit` trains the biases (Ben Zaken et al. 2022, arXiv 2106.10199), `norms` the normalisation
layers, `full` everything but what an architecture lists as never trained: position embeddings
and class tokens are one row that all records of a batch share, and word embeddings tied to the
output layer are used twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.architectures import Architecture, Tower, bare_model


def unfreeze(
    encoder: nn.Module,
    architecture: Architecture,
    towers: Sequence[Tower],
    layers: Sequence[nn.Module],
    kind: str,
    *,
    whole: bool,
) -> None:
    """Make the parameters of this kind trainable.

    Args:
        encoder: The base model; changed in place.
        architecture: How it is built.
        towers: The stacks that the task uses.
        layers: The layers to train in.
        kind: `bitfit`, `norms` or `full`.
        whole: Train what lies outside layers as well, such as embeddings and the last norm.

    Raises:
        ModelError: There are none.
    """
    bare = bare_model(encoder)
    inside = {id(p) for layer in layers for p in layer.parameters()}
    if whole:
        inside |= {id(p) for tower in towers for p in bare.get_submodule(tower.root).parameters()}
    tied = _tied(encoder)
    found = False
    for prefix, module in bare.named_modules():
        for last, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{last}"
            if id(parameter) not in inside or id(parameter) in tied:
                continue
            if any(part in name for part in architecture.frozen):
                continue
            if _is_of_kind(kind, module, last):
                parameter.requires_grad = found = True
    if not found:
        raise ModelError(f"the base model has no parameters that {kind!r} trains")


def _is_of_kind(kind: str, module: nn.Module, name: str) -> bool:
    if kind == "bitfit":
        return name == "bias"
    return kind == "full" or type(module).__name__.endswith("Norm")


def _tied(encoder: nn.Module) -> set[int]:
    """The matrix that is both word embedding and output layer, if it is."""
    output = getattr(encoder, "lm_head", None)
    return set() if output is None else {id(p) for p in output.parameters()}
