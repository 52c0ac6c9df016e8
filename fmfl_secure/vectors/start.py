"""A run's start: all that a coordinator has to know of base model and adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from aggregation import Quantization
from fmfl_secure.errors import StartError
from fmfl_secure.settings.questions import Turn
from fmfl_secure.vectors.adapter_files import AdapterFiles
from fmfl_secure.vectors.layout import FlatLayout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunStart:
    """Taken from the base model once, where it is; a server computes with it and without that.

    It is public, and a site believes none of it: it compares digests of base model, layout and
    adapter, the grid and the encryption parameters with its own before every attempt
    (`parties.agreed_plan`).

    Attributes:
        settings_digest: Of the settings it was made for.
        base_model: Name of the base model.
        base_model_digest: Its digest.
        base_model_license: Its licence, as far as its folder tells; empty where it does not.
        layouts: What the first rounds of training upload, one of each sort; later ones repeat
            them in turn. None where nothing is trained.
        grids: The public grid of each layout's updates.
        adapter: The adapter before the first round, as safetensors.
        files: What a finished adapter's folder holds.
        answer_layout: What a round that asks uploads; None where nothing is asked.
        answer_grid: Its grid.
    """

    settings_digest: str
    base_model: str
    base_model_digest: str
    base_model_license: str
    layouts: tuple[FlatLayout, ...]
    grids: tuple[Quantization, ...]
    adapter: bytes
    files: AdapterFiles
    answer_layout: FlatLayout | None = None
    answer_grid: Quantization | None = None

    @property
    def size(self) -> int:
        """Values of the round of training that uploads most."""
        return max(layout.size for layout in self.layouts)

    def layout(self, turn: Turn) -> FlatLayout:
        """Returns the layout of a round's upload.

        Raises:
            StartError: It is of another sort than this is a start of.
        """
        return self._of(turn, self.layouts, self.answer_layout)

    def grid(self, turn: Turn) -> Quantization:
        """The grid of what a round uploads.

        Raises:
            StartError: It is of another sort than this is a start of.
        """
        return self._of(turn, self.grids, self.answer_grid)

    @staticmethod
    def _of(turn: Turn, training: Sequence[T], answer: T | None) -> T:
        found = answer
        if turn.asked is None:
            found = training[(turn.training - 1) % len(training)] if training else None
        if found is None:
            raise StartError("what a run starts from does not say what this round uploads")
        return found
