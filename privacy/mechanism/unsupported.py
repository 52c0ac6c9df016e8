"""Modules that are refused by name, each with what to use instead.

The admission gate measures, and would refuse most of these by what it measures. By name the
refusal says what is wrong and what to do about it. None of the libraries that define the modules
is imported here: they are recognised by torch's own types, by class names and by attributes.

| refused | because | instead |
| --- | --- | --- |
| batch norm | it mixes the records of a batch | layer norm, group norm |
| instance norm | it may keep statistics of records | group norm |
| dropout above 0 | its masks come from a seed that is public | 0; the noise regularises |
| DoRA | its magnitudes have no gradient of one record | LoRA |
| LoRA on embeddings | it has no gradient of one record | LoRA on linear layers |
| trainable position embeddings | all records of a batch share one row | freeze them |
| Swin's attention | its windows are rows that are no records | a ViT |
| non-reentrant checkpointing | hooks see activations twice or not at all | reentrant |
| mixture of experts | routing and its losses depend on the batch | a dense model |
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from privacy.errors import AdmissionError

_EXPERTS = re.compile(r"(Router|Experts|Gating|SparseMLP|Mo[eE]|Mo[eE]Block)$")
_POSITIONS = re.compile(r"(^|[._])(pos|position|positions|wpe)([._]|$)")
_DROP = re.compile(r"drop_?(out|path|prob|rate)|layerdrop")
_LINEAR_ONLY = "Put LoRA on linear layers (adapter.target_modules) and leave the rest frozen."


def refuse_unsupported(model: nn.Module) -> None:
    """Return if no module is of a kind known to break the sensitivity that a plan promises.

    Args:
        model: As it will be trained: what requires gradients is what will be trained.

    Raises:
        AdmissionError: Names the first such module or parameter; the hint says what to use.
    """
    for name, module in model.named_modules():
        for what, instead in _faults(name, module):
            raise AdmissionError(f"module {name or 'of the model'} {what}", hint=instead)


def _faults(name: str, module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yields each fault of one module, and what to do instead."""
    kind = type(module).__name__
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        yield (
            f"is a {kind}: it mixes records",
            "Use a model with layer norm or group norm instead.",
        )
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        yield f"is a {kind}: it keeps statistics of records", "Use group norm instead."
    share = _dropout(module)
    if share > 0:
        yield (
            f"has dropout {share:g}: its masks would come from a public seed",
            "Set dropout to 0; the noise of private training regularises already.",
        )
    if len(getattr(module, "lora_magnitude_vector", None) or ()):
        yield (
            f"is a {kind} with DoRA: its magnitudes have no gradient of one record",
            "Use LoRA without DoRA (use_dora = False).",
        )
    if any(p.requires_grad for p in _parameters(module, "lora_embedding_A", "lora_embedding_B")):
        yield (
            f"is a {kind} with LoRA on an embedding: it has no gradient of one record",
            _LINEAR_ONLY,
        )
    if isinstance(module, nn.Embedding) and _POSITIONS.search(name) and _trains(module):
        yield (
            "is a trainable position embedding: a batch has one row of it for all of its records",
            f"Freeze it. {_LINEAR_ONLY}",
        )
    if "Swin" in kind and "Attention" in kind and _trains(module):
        yield (
            f"is a {kind}: its windows are rows of a batch that are no records",
            "Use a ViT, or train a head on the frozen model.",
        )
    if getattr(module, "gradient_checkpointing", False) and not _reentrant(module):
        yield (
            f"is a {kind} with non-reentrant checkpointing: per-record hooks do not see it through",
            "Turn it off, or use use_reentrant=True together with enable_input_require_grads().",
        )
    if _EXPERTS.search(kind):
        yield (
            f"is a {kind}, of a mixture of experts: its routing losses depend on the whole batch",
            "Use a dense model of the same family.",
        )


def _dropout(module: nn.Module) -> float:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return float(module.p)
    # Functional dropout, as in fused attention, has its share in an attribute.
    shares = [v for name, v in vars(module).items() if _DROP.search(name) and type(v) is float]
    return max(shares, default=0.0)


def _parameters(module: nn.Module, *names: str) -> Iterator[nn.Parameter]:
    for name in names:
        held = getattr(module, name, None)
        if isinstance(held, nn.ParameterDict):
            yield from held.values()


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _reentrant(module: nn.Module) -> bool:
    function = getattr(module, "_gradient_checkpointing_func", None)
    return bool(getattr(function, "keywords", {}).get("use_reentrant", False))
