"""An adapter's update put into the base model's own weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from fmfl_secure.models.adapters import AdapterSpec, adapter_of


def merged_model(encoder: nn.Module, spec: AdapterSpec) -> Any:
    """The model of transformers with the adapter in its weights.

    Args:
        encoder: Adapted, with no frozen layers replaced; changed in place.
        spec: The adapter.

    Raises:
        ModelError: The adapter is no change of weights.
    """
    return adapter_of(spec).merge(encoder)
