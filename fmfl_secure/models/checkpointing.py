"""Layers whose activations are computed again for the backward pass instead of being kept.

Reentrant, as the hooks that take a record's gradient need: the first pass through a layer runs
without autograd, where they see nothing, and the second one is the only one that they see. It
gives the clipped sums of a plain pass, to the last bit on the models of the tests. The other way
(`use_reentrant=False`) shows them both passes; the trainer then finds no gradient for a record,
and the admission gate refuses it by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

from fmfl_secure.errors import ModelError


def checkpoint_layers(encoder: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Turn it on, in training, for these layers alone.

    Layers below the first adapter keep nothing for a backward pass as it is, so they are best
    left out.

    Args:
        encoder: The base model of transformers that they are of.
        layers: Of its layers those to compute twice.

    Raises:
        ModelError: A layer is of a kind that transformers cannot do it for.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    for layer in layers:
        if not isinstance(layer, GradientCheckpointingLayer):
            raise ModelError(
                f"training.checkpointing is not possible with layers of kind {type(layer).__name__}"
            )
        layer.gradient_checkpointing = True
        # Where it says `use_reentrant`, the admission gate reads which way was chosen.
        layer._gradient_checkpointing_func = partial(_reentrant, use_reentrant=True)
    config: Any = encoder.config
    config.use_cache = False  # keys and values would be appended a second time


def _reentrant(
    layer: Callable[..., Any], hidden_states: torch.Tensor, *others: Any, use_reentrant: bool
) -> Any:
    if not torch.is_grad_enabled():
        return layer(hidden_states, *others)
    if not hidden_states.requires_grad:
        # Nothing below is trained. A layer all of whose inputs are constants gets no backward pass.
        hidden_states = hidden_states.detach().requires_grad_()
    return torch.utils.checkpoint.checkpoint(
        layer, hidden_states, *others, use_reentrant=use_reentrant, preserve_rng_state=False
    )
