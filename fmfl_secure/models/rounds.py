"""Which parameters a round trains, and which of them a site uploads.

For most adapters both are the same ones in every round. RoLoRA trains, and uploads, B in odd
rounds and A in even ones. Every party derives a round's layout from this one function.
"""

from __future__ import annotations

from torch import nn

from fmfl_secure.models.adapters import AdapterSpec, adapter_of
from fmfl_secure.models.layout import Layout


def begin_round(model: nn.Module, spec: AdapterSpec, round_number: int) -> Layout:
    """Make trainable what a round trains, and nothing else.

    Args:
        model: With the adapter; changed in place.
        spec: The adapter.
        round_number: From 1.

    Returns:
        The layout of what a site uploads in that round.

    Raises:
        ModelError: Nothing would be trained.
    """
    adapter_of(spec).begin_round(model, round_number)
    return Layout.of(model, kept_back=spec.personal)


def distinct_rounds(spec: AdapterSpec) -> tuple[int, ...]:
    """One round of each sort: what has to be checked before the first."""
    return adapter_of(spec).rounds
