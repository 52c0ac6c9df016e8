"""What a run starts from: all that a coordinator has to know of base model and adapter."""

from __future__ import annotations

from dataclasses import dataclass

from aggregation import Quantization
from fmfl_secure.vectors.adapter_files import AdapterFiles
from fmfl_secure.vectors.layout import FlatLayout


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
        layouts: What the first rounds upload, one of each sort; later rounds repeat them in turn.
        grids: The public grid of each layout's updates.
        adapter: The adapter before the first round, as safetensors.
        files: What a finished adapter's folder holds.
    """

    settings_digest: str
    base_model: str
    base_model_digest: str
    base_model_license: str
    layouts: tuple[FlatLayout, ...]
    grids: tuple[Quantization, ...]
    adapter: bytes
    files: AdapterFiles

    @property
    def size(self) -> int:
        """Values of the round that uploads most."""
        return max(layout.size for layout in self.layouts)

    def layout(self, round_number: int) -> FlatLayout:
        """What a round uploads; rounds count from 1."""
        return self.layouts[(round_number - 1) % len(self.layouts)]

    def grid(self, round_number: int) -> Quantization:
        """The grid of a round's updates; rounds count from 1."""
        return self.grids[(round_number - 1) % len(self.grids)]
