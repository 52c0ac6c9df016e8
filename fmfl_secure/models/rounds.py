"""Which parameters a round trains, and which of them a site uploads.

For most adapters both are the same ones in every round. RoLoRA trains, and uploads, B in odd
rounds and A in even ones. With `layer_groups` a round trains every so many-th of the adapted
layers, and the next one their neighbours: layer dropout, as in DropPEFT (arXiv 2503.10217), by a
schedule that everybody knows beforehand and no data have a part in. Every party derives a round's
layout from this one function.
"""

from __future__ import annotations

import re
from typing import Final

from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import AdapterSpec, adapter_of
from fmfl_secure.models.layout import Layout

_LAYER: Final = re.compile(r"(.*?\.\d+)\..*\blora_")  # a tower's stack, and the number of a layer


def begin_round(model: nn.Module, spec: AdapterSpec, round_number: int) -> Layout:
    """Make trainable what a round trains, and nothing else.

    Args:
        model: With the adapter; changed in place.
        spec: The adapter.
        round_number: From 1.

    Returns:
        The layout of what a site uploads in that round.

    Raises:
        ModelError: Nothing would be trained, or there are fewer layers than groups of them.
    """
    adapter = adapter_of(spec)
    sort, turn = (round_number - 1) % len(adapter.rounds), (round_number - 1) // len(adapter.rounds)
    adapter.begin_round(model, adapter.rounds[sort])
    if spec.layer_groups > 1:
        _leave_out(model, spec.layer_groups, turn % spec.layer_groups)
    return Layout.of(model, kept_back=spec.personal)


def distinct_rounds(spec: AdapterSpec) -> tuple[int, ...]:
    """One round of each sort: what has to be checked before the first."""
    return tuple(range(1, len(adapter_of(spec).rounds) * spec.layer_groups + 1))


def _leave_out(model: nn.Module, groups: int, turn: int) -> None:
    """Make all adapted layers but those of a turn untrained."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        found = _LAYER.match(name)
        if found is not None:
            parts.setdefault(found[1], []).append(parameter)
    if len(parts) < groups:
        raise ModelError(
            f"adapter.layer_groups is {groups}, and the adapter is in {len(parts)} layers",
            hint=f"Set adapter.layer_groups to at most {max(1, len(parts))}.",
        )
    for number, layer in enumerate(parts.values()):
        if number % groups != turn:
            for parameter in layer:
                parameter.requires_grad = False
