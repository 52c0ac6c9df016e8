"""Gradients by record, with Opacus's hooks (`docs/decisions/0018-batch-gradients-left-out.md`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from privacy.errors import TrainingError
from privacy.mechanism.opacus_parts import GradSampleHooks, prepare_layer


class RecordGradients(GradSampleHooks):  # type: ignore[misc]
    """Opacus's per-record gradients, without what only batch gradients are good for.

    Opacus hooks the gradient at a module's output; in passing, autograd computes the gradient of
    each weight over the whole batch, which nobody reads. Here every hooked output also depends,
    as far as autograd knows, on one scalar. Asked for the gradient of that scalar alone, autograd
    comes by every hook and leaves out the weights.
    """

    def add_hooks(self, **_: Any) -> None:
        """Put a pair of forward hooks on each module that holds trainable parameters."""
        self._anchor = torch.zeros((), requires_grad=True)
        # Reentrant checkpointing runs backward passes of its own, and refuses to leave out any.
        self._whole = any(
            getattr(m, "gradient_checkpointing", False) for m in self._module.modules()
        )
        self.autograd_grad_sample_hooks = self._module.autograd_grad_sample_hooks = []
        for module in self.iterate_submodules(self._module):
            if type(module) not in self.GRAD_SAMPLERS:
                prepare_layer(module, batch_first=True)
            for hook in (self.capture_activations_hook, self._capture_output):
                self.autograd_grad_sample_hooks.append(module.register_forward_hook(hook))
        self.enable_hooks()

    def backward(self, loss: torch.Tensor) -> None:
        """Leave each trainable parameter's gradients by record in its `grad_sample`."""
        torch.autograd.backward(loss, inputs=None if self._whole else [self._anchor])

    def _capture_output(self, module: nn.Module, _: Any, output: Any) -> Any:
        if not (self.hooks_enabled and module.training and torch.is_grad_enabled()):
            return output
        if not isinstance(output, torch.Tensor):
            raise TrainingError(f"{type(module).__name__} returns no tensor, and holds parameters")

        def capture(gradient: torch.Tensor) -> None:
            self.capture_backprops_hook(module, None, (gradient,), "sum", batch_first=True)

        return _Capture.apply(output, self._anchor, capture)  # type: ignore[no-untyped-call]


class _Capture(torch.autograd.Function):
    """Identity that shows the gradient going by; the anchor asks for one and never gets it."""

    @staticmethod
    def forward(
        ctx: Any, output: torch.Tensor, _: torch.Tensor, capture: Callable[[torch.Tensor], None]
    ) -> torch.Tensor:
        ctx.capture = capture
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        ctx.capture(gradient)
        return gradient, None, None
