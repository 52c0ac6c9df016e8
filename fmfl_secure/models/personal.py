"""Parts of an adapter that a site keeps for itself: which they are, and their values as bytes.

A part is named by words of the names that its parameters have, with dots between: `lora_B`,
`encoder`, `layer.5`; or it is `head`, what the task adds on top. FedSA-LoRA (arXiv 2410.01463)
keeps `lora_B`, and its mirror `lora_A`.

A site's parts are trained in the same clipped and noised vector as what it uploads. They differ
from the rest in one thing: no layout of an upload has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import safetensors.torch
import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import AdapterSpec, adapter_of, adapter_tensors
from fmfl_secure.settings.types import HEAD_PART

_HEAD = f"{HEAD_PART}."  # how every task's model names the parameters of its head


def belongs_to(name: str, parts: Sequence[str]) -> bool:
    """Whether a parameter is of one of these parts.

    Args:
        name: As the task's model has it.
        parts: Names of parts.
    """
    return any(
        name.startswith(_HEAD) if part == HEAD_PART else f".{part}." in f".{name}."
        for part in parts
    )


def personal_names(model: nn.Module, parts: Sequence[str]) -> list[str]:
    """Names of the adapter's tensors, heads among them, that stay at a site, in order."""
    return sorted(name for name in adapter_tensors(model) if belongs_to(name, parts))


def require_parts(model: nn.Module, spec: AdapterSpec) -> None:
    """Return if every part that is to stay at the sites is trained in some round.

    Args:
        model: With the adapter; left ready for the first round.
        spec: The adapter.

    Raises:
        ModelError: One is not; says what there is.
    """
    if not spec.personal:
        return
    adapter, trained = adapter_of(spec), set()
    for number in adapter.rounds:
        adapter.begin_round(model, number)
        trained |= {name for name, each in model.named_parameters() if each.requires_grad}
    adapter.begin_round(model, adapter.rounds[0])
    for part in spec.personal:
        if not any(belongs_to(name, (part,)) for name in trained):
            words = sorted({word for name in trained for word in _words(name)})
            raise ModelError(
                f"adapter.personal: {spec.kind!r} trains no part {part!r} here",
                hint=f"Name parts by these words, with dots between: {', '.join(words)}.",
            )
    if all(belongs_to(name, spec.personal) for name in trained):
        raise ModelError(
            f"adapter.personal keeps all that adapter {spec.kind!r} would upload",
            hint="Leave a part out, so that there is something to learn together.",
        )


def personal_bytes(model: nn.Module, parts: Sequence[str]) -> bytes:
    """A model's values of these parts, as the bytes of a safetensors file.

    Raises:
        ModelError: The model has none of them.
    """
    tensors = adapter_tensors(model)
    names = personal_names(model, parts)
    if not names:
        raise ModelError(f"this model has no part {' or '.join(parts)}")
    # Of a head alone, the file that finished adapters have beside them.
    start = len(_HEAD) if all(name.startswith(_HEAD) for name in names) else 0
    kept = {name[start:]: tensors[name].contiguous().cpu() for name in names}
    return bytes(safetensors.torch.save(kept, metadata={"format": "pt"}))


def set_personal(model: nn.Module, names: Iterable[str], data: bytes) -> None:
    """Set parameters from what `personal_bytes` wrote.

    Args:
        model: A model of the same kind.
        names: The parameters that the bytes must hold, and no others.
        data: The bytes.

    Raises:
        ModelError: They are not safetensors, or not these parts of this model.
    """
    tensors = read_personal(model, names, data)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def read_personal(
    model: nn.Module, names: Iterable[str], data: bytes
) -> Mapping[str, torch.Tensor]:
    """Reads what `personal_bytes` wrote, by the names of the model's parameters; see above."""
    try:
        tensors: Mapping[str, torch.Tensor] = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError) as error:
        raise ModelError(f"not a site's own parts in safetensors form: {error}") from error
    own, wanted = dict(model.named_parameters()), set(names)
    if wanted and all(name.startswith(_HEAD) for name in wanted):
        tensors = {_HEAD + name: tensor for name, tensor in tensors.items()}
    for name in sorted(wanted | tensors.keys()):
        if (
            name not in wanted
            or name not in tensors
            or name not in own
            or own[name].shape != tensors[name].shape
        ):
            raise ModelError(f"a site's own parts do not fit this model: {name}")
    return tensors


def _words(name: str) -> list[str]:
    return [word for word in name.split(".") if not word.isdigit() and word not in _OF_ALL]


# In the names of all that is trained, or of nothing that anybody would mean.
_OF_ALL = frozenset({"weight", "bias", "default", "base_model", "model"})
