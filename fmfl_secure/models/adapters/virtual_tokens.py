"""Base of prompt and prefix tuning: tokens that are read before every text."""

from __future__ import annotations

from typing import NoReturn

from torch import nn
from typing_extensions import override

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters.base import Adapter, AdapterSpec, Refusal
from fmfl_secure.models.architectures import Architecture


class VirtualTokens(Adapter):
    """Base of prompt and prefix tuning."""

    def text_refusal(self, architecture: Architecture) -> Refusal | None:
        """Why an architecture has no text to put tokens before; None where it has."""
        if len(architecture.towers) > 1 or "text" not in architecture.towers:
            return "virtual tokens are put in front of the text of a text model", "lora or ia3"
        return None

    def frozen_depth(self, layers: int, spec: AdapterSpec) -> int:  # noqa: ARG002
        """None: what is learned is read by the first layer."""
        return 0

    @override
    def virtual_tokens(self, spec: AdapterSpec) -> int:
        return spec.virtual_tokens

    def merge(self, encoder: nn.Module) -> NoReturn:  # noqa: ARG002
        """Refuses: virtual tokens are in no weight of the base model.

        Raises:
            ModelError: Always.
        """
        raise ModelError(
            f"a {self.name} is read before every text: it cannot be merged into weights",
            hint="Export the adapter alone; PEFT opens it beside the base model.",
        )
