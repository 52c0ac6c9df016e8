"""The layout of what a model trains, and its parameters as one flat vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.personal import belongs_to
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot


@dataclass(frozen=True, slots=True)
class Layout(FlatLayout):
    """The layout of a model's trainable tensors.

    Attributes:
        kept_back: Parts of it that stay at the site (`models.personal`); empty for none.
    """

    kept_back: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: nn.Module, *, kept_back: tuple[str, ...] = ()) -> Layout:
        """The layout of a model's parameters that require gradients.

        Args:
            model: The model.
            kept_back: Parts of them that stay at the site; empty for none.

        Raises:
            ModelError: None does, or none but what stays.
        """
        uploaded = _trainable(model, kept_back)
        slots = tuple(TensorSlot(n, tuple(p.shape)) for n, p in sorted(uploaded.items()))
        if not slots:
            raise ModelError("the model has no trainable parameters to upload")
        return cls(slots, kept_back)

    def flatten(self, model: nn.Module) -> NDArray[np.float64]:
        """The parameters as one float64 vector of shape (size,)."""
        parameters = _trainable(model, self.kept_back)
        self._check(parameters)
        with torch.no_grad():
            parts = [parameters[s.name].double().reshape(-1).cpu() for s in self.slots]
            vector: NDArray[np.float64] = torch.cat(parts).numpy()
        return vector

    def unflatten_into(self, model: nn.Module, vector: NDArray[np.float64]) -> None:
        """Set the parameters from a flat vector of shape (size,).

        Raises:
            ModelError: Wrong length, or a value that is not finite.
        """
        parameters = _trainable(model, self.kept_back)
        self._check(parameters)
        with torch.no_grad():
            for name, part in self.split(vector).items():
                parameters[name].copy_(torch.from_numpy(part))

    def _check(self, parameters: dict[str, nn.Parameter]) -> None:
        self.require((n, p.numel()) for n, p in sorted(parameters.items()))


def _trainable(model: nn.Module, kept_back: Sequence[str]) -> dict[str, nn.Parameter]:
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not belongs_to(name, kept_back)
    }
