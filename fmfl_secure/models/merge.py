"""An adapter's update put into the base model's own weights."""

from __future__ import annotations

from typing import Any

import peft
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models import scaling
from fmfl_secure.models.adapters import PROMPT_KINDS, AdapterSpec


def merged_model(encoder: nn.Module, spec: AdapterSpec) -> Any:
    """The model of transformers with the adapter in its weights.

    Args:
        encoder: Adapted, with no frozen layers replaced; changed in place.
        spec: The adapter.

    Raises:
        ModelError: The adapter is no change of weights.
    """
    if spec.kind in PROMPT_KINDS:
        raise ModelError(
            f"a {spec.kind} is read before every text: it cannot be merged into weights",
            hint="Export the adapter alone; PEFT opens it beside the base model.",
        )
    if isinstance(encoder, peft.PeftModel):
        return encoder.merge_and_unload()
    if spec.kind == "ia3":
        scaling.merge(encoder)
    return encoder
