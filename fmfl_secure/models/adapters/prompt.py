"""Prompt tuning: learned embeddings of virtual tokens in front of every text.

Lester et al. 2021, arXiv 2104.08691. PEFT looks its prompt up once for a whole batch, where no
gradient of one record can be told from another's; here it is looked up once a record. Files are
PEFT's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from fmfl_secure.models.adapters.base import AdapterSpec, Place, Refusal
from fmfl_secure.models.adapters.files import read_tensors, set_tensors
from fmfl_secure.models.adapters.peft_files import PEFT_WEIGHTS, peft_task, save_as_peft
from fmfl_secure.models.adapters.virtual_tokens import VirtualTokens
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel

_PEFT_TENSOR = "prompt_embeddings"


class SoftPrompt(nn.Module):
    """An encoder that reads learned embeddings before each text, and hides them from the result.

    Args:
        encoder: Takes `inputs_embeds` and `attention_mask`.
        tokens: Number of virtual tokens.
    """

    def __init__(self, encoder: nn.Module, tokens: int) -> None:
        super().__init__()
        self.encoder = encoder
        words: nn.Embedding = encoder.get_input_embeddings()  # type: ignore[operator]
        self.prompt = nn.Embedding(tokens, words.embedding_dim)
        # On the scale of the word embeddings it stands among, as in PEFT's own start.
        nn.init.normal_(self.prompt.weight, std=float(_values(words).std()))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any
    ) -> Any:
        """As the encoder: states or logits, shape (b, tokens, ...), of the text's own tokens."""
        embeddings, mask = self._prompted(input_ids, attention_mask)
        output = self.encoder(inputs_embeds=embeddings, attention_mask=mask, **settings)
        own = input_ids.shape[1]
        for name in ("last_hidden_state", "logits"):
            if getattr(output, name, None) is not None:
                output[name] = output[name][:, -own:]
        return output

    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **settings: Any
    ) -> torch.Tensor:
        """New tokens only, int64, shape (b, new)."""
        embeddings, mask = self._prompted(input_ids, attention_mask)
        new: torch.Tensor = self.encoder.generate(  # type: ignore[operator]
            inputs_embeds=embeddings, attention_mask=mask, **settings
        )
        return torch.cat([input_ids, new], dim=1)

    def get_base_model(self) -> nn.Module:
        """The model that reads the prompt, as PEFT names it."""
        return self.encoder

    def _prompted(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        records, tokens = len(input_ids), self.prompt.num_embeddings
        index = torch.arange(tokens, device=input_ids.device).expand(records, tokens)
        words = self.encoder.get_input_embeddings()(input_ids)  # type: ignore[operator]
        embeddings = torch.cat([self.prompt(index), words], dim=1)
        ones = attention_mask.new_ones(records, tokens)
        return embeddings, torch.cat([ones, attention_mask], dim=1)


def _values(words: nn.Embedding) -> torch.Tensor:
    """The values of an embedding, whose matrix may be kept in blocks of whole numbers."""
    weight = words.weight
    if weight.is_floating_point():
        return weight
    values: torch.Tensor = words(torch.arange(words.num_embeddings, device=weight.device))
    return values


class Prompt(VirtualTokens):
    """Trains embeddings of virtual tokens in front of every text."""

    name = "prompt"
    trains = "embeddings of virtual tokens before every text"

    @override
    def refusal(self, architecture: Architecture, task: TaskNeeds) -> Refusal | None:
        return self.text_refusal(architecture)

    @override
    def attach(self, place: Place, spec: AdapterSpec) -> nn.Module:
        return SoftPrompt(place.encoder, spec.virtual_tokens)

    @override
    def save(self, encoder: Any, base: BaseModel, folder: Path) -> None:
        save_prompt(encoder, encoder.prompt.weight, base, folder)

    @override
    def open(self, place: Place, spec: AdapterSpec, folder: Path) -> nn.Module:
        adapted = SoftPrompt(place.encoder, spec.virtual_tokens)
        path = folder / PEFT_WEIGHTS
        own = dict(adapted.prompt.named_parameters())
        set_tensors({_PEFT_TENSOR: own["weight"]}, read_tensors(path), path)
        return adapted


def save_prompt(encoder: Any, prompt: torch.Tensor, base: BaseModel, folder: Path) -> None:
    """Write a prompt as PEFT's files.

    Args:
        encoder: That reads it, as `SoftPrompt`.
        prompt: Embeddings, shape (tokens, width).
        base: The base model.
        folder: Where.
    """
    import peft

    config = peft.PromptTuningConfig(
        num_virtual_tokens=len(prompt),
        task_type=peft_task(encoder.encoder),
        base_model_name_or_path=base.name,
    )
    save_as_peft(config, {_PEFT_TENSOR: prompt}, folder)
