"""All kinds of adapter: one entry each, and what others ask of the one that settings name."""

from __future__ import annotations

from typing import Final

from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.extensions import ADAPTERS_GROUP, load_extension
from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place
from fmfl_secure.models.adapters.bottleneck import Bottlenecks
from fmfl_secure.models.adapters.dora import Dora
from fmfl_secure.models.adapters.head import Head
from fmfl_secure.models.adapters.ia3 import Ia3
from fmfl_secure.models.adapters.lokr import LoKr
from fmfl_secure.models.adapters.lora_xs import LoraXs
from fmfl_secure.models.adapters.low_rank import FfaLora, Lora, RoLora
from fmfl_secure.models.adapters.p_tuning import PTuning
from fmfl_secure.models.adapters.prefix import Prefix
from fmfl_secure.models.adapters.prompt import Prompt
from fmfl_secure.models.adapters.selective import BitFit, Full, Norms
from fmfl_secure.models.adapters.vera import Vera
from fmfl_secure.models.architectures import Tower, find_layers
from fmfl_secure.registry import Registry

ADAPTERS: Final[Registry[Adapter]] = Registry(
    "kind of adapter",
    (
        FfaLora(), Lora(), RoLora(), LoraXs(), Dora(), Vera(), LoKr(), Ia3(), Bottlenecks(),
        Prompt(), PTuning(), Prefix(), BitFit(), Norms(), Head(), Full(),
    ),
    outside=lambda name: load_extension(ADAPTERS_GROUP, name, Adapter),  # type: ignore[type-abstract]
)  # fmt: skip


def adapter_of(spec: AdapterSpec) -> Adapter:
    """The kind of adapter that is asked for.

    Raises:
        UnknownKind: There is none of this name.
    """
    return ADAPTERS.get(spec.kind)


def attach_adapter(place: Place, spec: AdapterSpec) -> nn.Module:
    """Put the adapter on a frozen encoder; see `Adapter.attach`.

    Raises:
        ModelError: No layer of the names that should carry it, or fewer layers than are asked for.
        UnknownKind: There is no such kind of adapter.
    """
    if spec.last_layers:
        deepest = max(len(find_layers(place.encoder, tower)) for tower in place.towers)
        if spec.last_layers > deepest:
            raise ModelError(
                f"adapter.last_layers is {spec.last_layers}, the base model has {deepest} layers",
                hint=f"Set adapter.last_layers to at most {deepest}, or to 0 for all.",
            )
    return adapter_of(spec).attach(place, spec)


def frozen_depth(encoder: nn.Module, tower: Tower, spec: AdapterSpec) -> int:
    """How many of a tower's first layers compute the same for a record at every step."""
    return adapter_of(spec).frozen_depth(len(find_layers(encoder, tower)), spec)
