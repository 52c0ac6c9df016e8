"""A linear head that an architecture's own class of transformers can hold.

With `task.head = "architecture"` a classifier is trained on features that transformers' class for
the task can compute. Then its export opens as what people use, `pipeline` among it, without this
package and with the run's own answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fmfl_secure.models.features import Features

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class LinearHead:
    """A trained head and what it reads.

    Attributes:
        weight: Float32, shape (classes, width).
        bias: Float32, shape (classes,); None where the class has none.
        features: What it reads.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    features: Features


@dataclass(frozen=True, kw_only=True)
class OwnHead(ABC):
    """How one architecture's own class for one kind of task holds a linear head.

    Attributes:
        said: The features in words, as `task.json` says them; a card's lines go by it.
        bias: Whether the class has one.
        classifier: Path of the classifier in the class.
    """

    said: str
    bias: bool = True
    classifier: str = "classifier"

    @abstractmethod
    def features(self, encoder: nn.Module, padding: int | None) -> Features:
        """Returns the features that the head reads of this encoder.

        Args:
            encoder: The base model, before any adapter.
            padding: The token that fills texts up; None without one.
        """

    def configured(self, config: Any, padding: int | None) -> dict[str, Any]:  # noqa: ARG002
        """Returns the entries of the class's `config.json` that differ from the base model's.

        Args:
            config: The base model's, as transformers reads it.
            padding: The token that fills texts up; None without one.
        """
        return {}

    @abstractmethod
    def tensors(self, bare: Tensors, head: LinearHead) -> tuple[Tensors, Tensors]:
        """Returns the tensors that the class holds besides the base model's own weights.

        Args:
            bare: The bare model's weights, with the adapter merged.
            head: The trained head.

        Returns:
            More of the bare model's, by its names, and what is outside it, by the class's.
        """


def linear(name: str, weight: torch.Tensor, bias: torch.Tensor | None) -> Tensors:
    """A linear layer's tensors by name."""
    found = {f"{name}.weight": weight}
    return found if bias is None else {**found, f"{name}.bias": bias}
