"""What a run starts from: all that a coordinator has to know of base model and adapter."""

from __future__ import annotations

from dataclasses import dataclass

from fmfl_secure.vectors.layout import FlatLayout


@dataclass(frozen=True, slots=True)
class RunStart:
    """Taken from the base model once, where it is; a server computes with it and without that.

    It is public, and a site believes none of it: it compares digests of base model, layout and
    adapter with those of its own model before every attempt (`parties.agreed_plan`).

    Attributes:
        settings_digest: Of the settings it was made for.
        base_model: Name of the base model.
        base_model_digest: Its digest.
        layouts: What the first rounds upload, one of each sort; later rounds repeat them in turn.
        adapter: The adapter before the first round, as safetensors.
    """

    settings_digest: str
    base_model: str
    base_model_digest: str
    layouts: tuple[FlatLayout, ...]
    adapter: bytes

    @property
    def size(self) -> int:
        """Values of the round that uploads most."""
        return max(layout.size for layout in self.layouts)

    def layout(self, round_number: int) -> FlatLayout:
        """What a round uploads; rounds count from 1."""
        return self.layouts[(round_number - 1) % len(self.layouts)]
