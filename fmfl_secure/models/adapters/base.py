"""The interface of a kind of adapter, and where an adapter goes.

A new kind is a new file beside this one: a subclass of `Adapter`, listed in `registry`. Only
adapters whose update is a sum can be aggregated under encryption: every kind is a set of tensors
of a public layout, and the mean of the sites' tensors is the next adapter. Kinds whose update is
no weighted sum are refused in words (`fmfl_secure.settings.techniques`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.architectures import Architecture, TaskNeeds, Tower, find_layers
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.computation import Computation

Refusal = tuple[str, str]
"""Why something cannot be, and what to use instead."""


@dataclass(frozen=True, slots=True)
class AdapterSpec:
    """Which adapter, where.

    Attributes:
        kind: Name of the kind of adapter; docs/models.md lists them.
        rank: Rank of a low-rank update, >= 1.
        alpha: Scaling numerator; the update is alpha / rank x B A.
        last_layers: Adapters in so many of the last layers; 0 means all.
        target_modules: Names of linear layers; empty takes the architecture's.
        rank_stabilised: Scale by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).
        virtual_tokens: How many a prompt or prefix has, >= 1.
        personal: Parts of it that are trained, and stay at the site (`models.personal`).
        layer_groups: Into how many groups its layers fall, one of which a round trains
            (`models.rounds`); 1 trains all in every round.
    """

    kind: str
    rank: int
    alpha: float
    last_layers: int
    target_modules: tuple[str, ...]
    rank_stabilised: bool = False
    virtual_tokens: int = 16
    personal: tuple[str, ...] = ()
    layer_groups: int = 1

    @property
    def divisor(self) -> float:
        """The number that alpha is divided by: the rank, or its root where stabilised."""
        return math.sqrt(self.rank) if self.rank_stabilised else float(self.rank)


@dataclass(frozen=True, slots=True)
class Place:
    """The frozen encoder that an adapter goes on.

    Attributes:
        encoder: As `BaseModel` loads it; attaching changes it in place.
        base: Where it is from.
        architecture: How it is built.
        towers: The stacks of layers that the task uses.
    """

    encoder: nn.Module
    base: BaseModel
    architecture: Architecture
    towers: Sequence[Tower]


class Adapter(ABC):
    """Everything that one kind of adapter decides.

    Attributes:
        name: Its name in settings.
        trains: What is trained and uploaded, as docs/models.md says it.
        needs_float32: Why it cannot be trained on weights in bfloat16; empty where it can.
        needs_activations: Why activations have to be kept for it; empty where they need not.
        keeps_encoder: The encoder stays as it is, and the head alone is trained.
        rounds: One round of each sort that differs in what it trains.
    """

    name: ClassVar[str]
    trains: ClassVar[str]
    needs_float32: ClassVar[str] = ""
    needs_activations: ClassVar[str] = ""
    keeps_encoder: ClassVar[bool] = False
    rounds: ClassVar[tuple[int, ...]] = (1,)

    @abstractmethod
    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:
        """Why it does not go with an architecture and a task; None where it does."""

    @abstractmethod
    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        """Put the adapter on a frozen encoder; trainable afterwards is the adapter, no head.

        Initial values come from torch's global generator: seed it with the run's public seed.

        Raises:
            ModelError: No layer of the names that should carry it.
        """

    @abstractmethod
    def save(self, encoder: nn.Module, base: BaseModel, folder: Path) -> None:
        """Write the adapter's files, PEFT's own where PEFT knows the kind.

        Safetensors files hold the adapter's tensors as they are, in any shape, and the others are
        the same whatever was learned: a server writes them without the model
        (`planning.adapter_template`, which refuses other files).
        """

    def add_for_peft(  # noqa: B027, most are PEFT's already, or nothing that PEFT has
        self, encoder: nn.Module, spec: AdapterSpec, base: BaseModel, folder: Path
    ) -> None:
        """Add PEFT's files to what `save` wrote, where `save` could not write them itself.

        For somebody who takes an adapter away: these may hold products of the adapter's tensors.
        """

    @abstractmethod
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        """Put what `save` wrote on an encoder, for inference.

        Raises:
            ModelError: It is not there as safetensors, or does not fit the encoder.
        """

    @abstractmethod
    def merge(self, encoder: nn.Module) -> Any:
        """The model of transformers with the adapter in its weights; changes the encoder.

        Raises:
            ModelError: The adapter is no change of weights.
        """

    def frozen_depth(self, layers: int, spec: AdapterSpec) -> int:
        """How many first layers of so many compute the same for a record at every step."""
        return max(0, layers - spec.last_layers) if spec.last_layers else 0

    def virtual_tokens(self, spec: AdapterSpec) -> int:  # noqa: ARG002, few kinds have any
        """How many tokens it puts in front of every text."""
        return 0

    def begin_round(self, model: nn.Module, round_number: int) -> None:  # noqa: B027, few differ
        """Make trainable what a round trains, where rounds differ: by default they do not."""

    def layers(self, place: Place, spec: AdapterSpec) -> list[nn.Module]:
        """The layers that it adapts."""
        found = []
        for tower in place.towers:
            layers = find_layers(place.encoder, tower)
            found += list(layers[self.frozen_depth(len(layers), spec) :])
        return found

    def require_possible(self, computation: Computation) -> None:
        """Return if it can be trained on a model that is computed so.

        Raises:
            ModelError: It cannot; says why.
        """
        if computation.dtype != "float32" and self.needs_float32:
            raise ModelError(
                f"adapter {self.name!r} does not go with model.dtype = {computation.dtype!r}: "
                f"{self.needs_float32}",
                hint="Use model.dtype = 'float32', or a kind of lora, ia3 or norms.",
            )
        if computation.checkpointing and self.needs_activations:
            raise ModelError(
                f"adapter {self.name!r} does not go with training.checkpointing: "
                f"{self.needs_activations}",
                hint="Set training.checkpointing = false, or use prompt.",
            )
