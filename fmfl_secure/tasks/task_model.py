"""A base model with an adapter and what a task puts on top: its needs, and how it is built.

`adapter_task` is built on it. A fresh model is the base model, frozen; the adapter in it; ones that
run once a record in place of the frozen layers below; and what the kind of task puts on top.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapters import AdapterSpec, Place, adapter_of, attach_adapter, frozen_depth
from fmfl_secure.models.architectures import (
    Architecture,
    Modality,
    TaskNeeds,
    Tower,
    find_layers,
    text_positions,
)
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.checkpointing import checkpoint_layers
from fmfl_secure.models.computation import EXACT, Computation
from fmfl_secure.models.features import Features
from fmfl_secure.models.half_weights import round_to_half
from fmfl_secure.models.own_heads import OwnHead, own_head
from fmfl_secure.models.personal import require_parts
from fmfl_secure.models.prefix import FrozenPrefix
from fmfl_secure.models.support import require_supported
from fmfl_secure.models.unlisted import require_causal
from fmfl_secure.settings.own_classes import OWN_CLASSES
from fmfl_secure.settings.tasks import TaskSection

Settings = TypeVar("Settings", bound=TaskSection)


@dataclass(frozen=True)
class TaskModel(ABC, Generic[Settings]):
    """Builds a task's model from base model, adapter and settings.

    Attributes:
        needs: What this kind of task asks of base model and adapter.
        answers_for: What its head answers for, as `own_heads` lists classes by it; empty for what
            no class of transformers does.
        problem_type: What transformers calls its way of answering; empty where it has no word.
        base: The base model.
        adapter: Which adapter, where.
        settings: The task's own settings.
        max_length: Tokens kept of a text, >= 2.
        cache_bytes: Memory a data set may use to keep outputs of frozen layers.
        computation: How the model is computed.
    """

    needs: ClassVar[TaskNeeds]
    answers_for: ClassVar[str] = ""
    problem_type: ClassVar[str] = ""

    base: BaseModel
    adapter: AdapterSpec
    settings: Settings
    max_length: int
    cache_bytes: int
    computation: Computation = EXACT

    @property
    def kind(self) -> str:
        """The name that settings use."""
        return self.settings.kind

    @property
    def answers(self) -> tuple[str, ...]:
        """The labels or tags that a head decides between, in order; empty without a head."""
        return ()

    @property
    def own_head(self) -> OwnHead | None:
        """How the architecture's own class holds the head, where settings ask for one that it can.

        Raises:
            ModelError: They do, and it has no such class.
        """
        if not self.settings.fits_own_class:
            return None
        if self.kind not in OWN_CLASSES:
            raise ModelError(
                f"task.head = 'architecture' is not for {self.kind!r}: how it answers is its own",
                hint="Use task.head = 'unit-norm'.",
            )
        return own_head(self.base.model_type, self.answers_for)

    @property
    def _head_has_bias(self) -> bool:
        own = self.own_head
        return own is None or own.bias

    @property
    def padding(self) -> int | None:
        """The token that fills texts up; None without texts or such a token."""
        if "text" not in self.needs.modalities:
            return None
        found = self.base.load_tokenizer().pad_token_id
        return None if found is None else int(found)

    @property
    def architecture(self) -> Architecture:
        """How the base model is built.

        Raises:
            ModelError: It does not go with this task and adapter.
        """
        return require_supported(self.base, self.adapter.kind, self.needs)

    def _fresh(self, seed: int) -> AdaptedModel:
        """A model with a fresh adapter, on the CPU.

        Raises:
            ModelError: Base model, adapter and task do not go together.
        """
        architecture = self.architecture  # refuse one that is not known before loading it
        adapter_of(self.adapter).require_possible(self.computation)
        self._require_positions()
        self._require_assets()
        encoder = self._load_rounded()
        if self.needs.causal and self.base.unlisted:
            require_causal(encoder)
        features = self._features(encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            adapted = attach_adapter(self._place(encoder, architecture), self.adapter)
        if self.computation.checkpointing:
            for tower in self._towers:
                depth = frozen_depth(encoder, tower, self.adapter)
                checkpoint_layers(encoder, find_layers(encoder, tower)[depth:])
        model = self._assemble(adapted, self._prefixes(encoder), features)
        self._start(model)
        require_parts(model, self.adapter)
        return model

    def _start(self, model: AdaptedModel) -> None:
        """Set public initial values beyond the adapter's own; the model is on the CPU.

        Raises:
            ModelError: They do not go with the model.
        """

    @abstractmethod
    def _assemble(
        self,
        adapted: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None,
    ) -> AdaptedModel:
        """The task's model around an adapted encoder."""

    def _feature_width(self, modality: Modality) -> int:
        """Width of the features that one tower gives for a record."""
        return self.architecture.width(self.base.load_config(), modality)

    def _features(self, encoder: nn.Module) -> Features | None:
        """Returns the features that a head reads, known before an adapter changes the encoder."""
        own = self.own_head
        return None if own is None else own.features(encoder, self.padding)

    def _place(self, encoder: nn.Module, architecture: Architecture) -> Place:
        towers = [architecture.towers[modality] for modality in self.needs.modalities]
        return Place(encoder, self.base, architecture, towers)

    def _load_encoder(self) -> nn.Module:
        return self.base.load_encoder(self.computation.dtype)

    def _load_rounded(self) -> nn.Module:
        encoder = self._load_encoder()
        if self.computation.rounded:
            round_to_half(encoder)
        return encoder

    @property
    def _towers(self) -> list[Tower]:
        return [self.architecture.towers[modality] for modality in self.needs.modalities]

    def _prefixes(self, encoder: nn.Module) -> dict[Modality, FrozenPrefix]:
        """Replaces the frozen layers of each tower, where keeping their output is allowed."""
        found: dict[Modality, FrozenPrefix] = {}
        for modality, tower in zip(self.needs.modalities, self._towers, strict=True):
            depth = frozen_depth(encoder, tower, self.adapter)
            # How layers that no table lists are called is not known: none of them is replaced.
            if depth and self.cache_bytes and not self.base.unlisted:
                found[modality] = FrozenPrefix(find_layers(encoder, tower), depth)
        return found

    @property
    def _virtual_tokens(self) -> int:
        return adapter_of(self.adapter).virtual_tokens(self.adapter)

    def _require_assets(self) -> None:
        """Refuses a base model without what libraries would make up, or trip over in training."""
        modalities = self.needs.modalities
        if "text" in modalities:
            self.base.require_tokenizer(padded=self.architecture.fixed_length)
        if "image" in modalities:
            self.base.load_image_processor()

    def _require_positions(self) -> None:
        """A text longer than the model's positions would fail in training, once it was paid for."""
        if "text" not in self.needs.modalities:
            return
        longest, virtual = self.longest_text, self._virtual_tokens
        if longest is not None and self.max_length > longest:
            of_which = f" and {virtual} virtual tokens are added" if virtual else ""
            raise ModelError(
                f"max_length is {self.max_length}{of_which}, the base model has "
                f"{longest + virtual} positions",
                hint=f"Set model.max_length to at most {longest}.",
            )

    @property
    def longest_text(self) -> int | None:
        """The most that `model.max_length` may be; None without an end."""
        positions = text_positions(self.base.load_config(), self.architecture)
        return None if positions is None else positions - self._virtual_tokens
