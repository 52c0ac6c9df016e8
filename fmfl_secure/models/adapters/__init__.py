"""Adapters: what is trained on a frozen base model, where it starts, and its values as bytes."""

from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Place
from fmfl_secure.models.adapters.registry import ADAPTERS, adapter_of, attach_adapter, frozen_depth
from fmfl_secure.models.adapters.tensors import (
    adapter_bytes,
    adapter_tensors,
    load_adapter_bytes,
    perturb_adapter,
    require_adapter,
    set_adapter_tensors,
)

__all__ = [
    "ADAPTERS",
    "Adapter",
    "AdapterSpec",
    "Place",
    "adapter_bytes",
    "adapter_of",
    "adapter_tensors",
    "attach_adapter",
    "frozen_depth",
    "load_adapter_bytes",
    "perturb_adapter",
    "require_adapter",
    "set_adapter_tensors",
]
