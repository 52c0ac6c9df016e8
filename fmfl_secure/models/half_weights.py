"""Frozen weights kept in bfloat16 and multiplied in float32: half the memory, the same exactness.

Only what is at rest is bfloat16. Were activations bfloat16 as well, a record's gradient would
change by 0.5 % with the records it shares a physical batch with, since sums round differently in
matrices of another shape; over the hundreds of records of a step that adds up to more than the one
clipping bound by which a unit may move the sum. In float32 it is 7e-7 (both measured on MiniLM).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def keep_half(model: nn.Module) -> None:
    """Round every weight to bfloat16, and keep the matrices of linear layers and embeddings so.

    The rest (norms, biases, convolutions) is small, and goes back to float32 with its values
    rounded. Works in place; what is bfloat16 already is not copied.

    Args:
        model: With nothing trainable.
    """
    for module in model.modules():
        half = _halves().get(type(module))
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16)
            if half is None or name != "weight":
                parameter.data = parameter.data.float()
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.dtype is torch.bfloat16:
                setattr(module, name, buffer.float())
        if half is not None:
            # In place, and not another module: output layers may share their matrix, and adapters
            # and layouts go by the names that modules have.
            module.__class__ = half


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Give every weight the value that `keep_half` would, in float32; in place."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()


class _HalfLinear(nn.Linear):
    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        product = _product(activations, self.weight)
        return product if self.bias is None else product + self.bias


class _HalfEmbedding(nn.Embedding):
    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return super().forward(index).float()


@cache
def _halves() -> dict[type[nn.Module], type[nn.Module]]:
    """Exactly these types: what derives from them may read its weight in ways of its own."""
    from transformers.pytorch_utils import Conv1D

    class HalfConv1D(Conv1D):  # type: ignore[misc]
        def forward(self, activations: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = _product(activations, self.weight.T) + self.bias
            return output

    return {nn.Linear: _HalfLinear, Conv1D: HalfConv1D, nn.Embedding: _HalfEmbedding}


class _Product(torch.autograd.Function):
    """Activations times a frozen matrix, whose float32 copy lives no longer than a product.

    Autograd by itself would keep every copy until the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, activations: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return nn.functional.linear(activations, weight.float())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight.float(), None


_product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _Product.apply
