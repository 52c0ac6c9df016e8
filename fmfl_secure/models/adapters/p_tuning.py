"""P-tuning: a prompt that a small network writes.

Liu et al. 2021, arXiv 2103.10385. The embeddings of virtual tokens have what a network of two
layers makes of them added before a text is read after them; both are trained. What is written is
the same for every text: for somebody who takes the adapter away it is a prompt, and PEFT opens it
as one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.models.adapters.base import AdapterSpec, Place
from fmfl_secure.models.adapters.files import (
    PROMPT_ENCODER_FILE,
    read_tensors,
    save_tensors,
    set_tensors,
)
from fmfl_secure.models.adapters.prompt import Prompt, SoftPrompt, save_prompt
from fmfl_secure.models.base import BaseModel


class WrittenPrompt(nn.Module):
    """Embeddings of virtual tokens, and the network that they go through.

    Args:
        start: Their first values, shape (tokens, width).
        hidden: Width of the network.
    """

    def __init__(self, start: torch.Tensor, hidden: int) -> None:
        super().__init__()
        self.num_embeddings, width = start.shape
        self.tokens = nn.Embedding(self.num_embeddings, width, _weight=start)
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """Numbers of tokens, int64, shape (b, tokens), to embeddings."""
        tokens = self.tokens(index)
        written: torch.Tensor = tokens + self.up(nn.functional.relu(self.down(tokens)))
        return written


class PTuning(Prompt):
    """Trains the prompt's embeddings and the network that writes it."""

    name = "p-tuning"
    trains = "embeddings of virtual tokens, and a network of width rank that writes the prompt"

    @override
    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        adapted = SoftPrompt(place.encoder, spec.virtual_tokens)
        start = adapted.prompt.weight.detach().clone()
        adapted.prompt = WrittenPrompt(start, spec.rank)  # type: ignore[assignment]
        return adapted

    @override
    def save(self, encoder: Any, base: BaseModel, folder: Path) -> None:
        save_tensors(dict(encoder.prompt.named_parameters()), folder / PROMPT_ENCODER_FILE)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted: Any = self.attach(place, spec)
        path = folder / PROMPT_ENCODER_FILE
        set_tensors(dict(adapted.prompt.named_parameters()), read_tensors(path), path)
        return adapted  # type: ignore[no-any-return]

    @override
    def add_for_peft(self, encoder: Any, spec: AdapterSpec, base: BaseModel, folder: Path) -> None:
        """The prompt that is written."""
        with torch.no_grad():
            written = encoder.prompt(torch.arange(spec.virtual_tokens).unsqueeze(0))[0]
        save_prompt(encoder, written, base, folder)
