"""The parameters that a task adds on top of a base model."""

from __future__ import annotations

from torch import nn


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model's head by name; empty where it has none."""
    head = getattr(model, "head", None)
    return dict(head.named_parameters()) if isinstance(head, nn.Module) else {}
