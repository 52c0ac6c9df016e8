"""A causal language model with an adapter: logits where a response is, and generation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fmfl_secure.models.adapted import AdaptedModel, transformers_model
from fmfl_secure.models.batches import TextBatch


class LanguageModel(AdaptedModel):
    """Decoder with its own output layer; nothing is added on top."""

    def forward(self, batch: TextBatch, *, positions: torch.Tensor) -> torch.Tensor:
        """Logits at some positions alone, shape (b, n, words).

        The output layer, as wide as the vocabulary, costs more than a layer: it runs where a loss
        is and nowhere else.

        Args:
            batch: The texts.
            positions: int64, shape (b, n): of each text, those whose logits are wanted.
        """
        model: Any = transformers_model(self.encoder)
        words: nn.Module = model.get_output_embeddings()

        def chosen(_: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            (hidden,) = inputs
            virtual = hidden.shape[1] - batch.input_ids.shape[1]  # tokens that an adapter prepends
            index = (positions.to(hidden.device) + virtual).unsqueeze(-1)
            return (hidden.gather(1, index.expand(-1, -1, hidden.shape[-1])),)

        hook = words.register_forward_pre_hook(chosen)
        try:
            logits: torch.Tensor = self.read_text(batch).logits
        finally:
            hook.remove()
        return logits

    @torch.no_grad()
    def generate(
        self, prompts: list[torch.Tensor], *, max_new_tokens: int, padding: int, end: int | None
    ) -> list[list[int]]:
        """The most likely continuation of each prompt, word by word.

        Args:
            prompts: Token ids, int64, one tensor a prompt.
            max_new_tokens: Where to stop at the latest.
            padding: Token that fills prompts up, in front.
            end: Token that ends a text; not in the result.

        Returns:
            New token ids of each.
        """
        longest = max(len(prompt) for prompt in prompts)
        input_ids = torch.full((len(prompts), longest), padding, device=prompts[0].device)
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        generating: Any = self.encoder
        output = generating.generate(
            input_ids=input_ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=padding,
            eos_token_id=end,
            use_cache=True,
        )
        rows: list[list[int]] = output[:, longest:].tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]
