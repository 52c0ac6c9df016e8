"""A causal language model with an adapter: logits where a response is, and generation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapted import AdaptedModel, transformers_model
from fmfl_secure.models.batches import TextBatch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the likeliest; above, tokens are drawn, the flatter the higher.
        top_p: Drawn are the likeliest tokens that come to this probability together.
        stop: Texts at whose first an answer ends; they are no part of it.
        seed: Of what is drawn: the same for the same prompts in the same batches.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 100.0:
            raise ModelError(f"temperature is {self.temperature:g}, expected 0 to 100")
        if not 0.0 < self.top_p <= 1.0:
            raise ModelError(f"top_p is {self.top_p:g}, expected above 0 and at most 1")
        if not all(self.stop):
            raise ModelError("a stop text is empty: every answer would end before it begins")
        if not self.temperature and self.top_p < 1.0:
            raise ModelError("top_p is of drawing tokens: set a temperature above 0")

    def before_stop(self, text: str) -> str:
        """An answer up to the first stop text in it."""
        found = [place for each in self.stop if (place := text.find(each)) >= 0]
        return text[: min(found)] if found else text


GREEDY = Sampling()


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
        self,
        prompts: list[torch.Tensor],
        *,
        max_new_tokens: int,
        padding: int,
        end: int | None,
        sampling: Sampling = GREEDY,
        tokenizer: Any = None,
    ) -> list[list[int]]:
        """A continuation of each prompt, token by token; the likeliest unless it is to be drawn.

        Args:
            prompts: Token ids, int64, one tensor a prompt.
            max_new_tokens: Where to stop at the latest.
            padding: Token that fills prompts up, in front.
            end: Token that ends a text; not in the result.
            sampling: How tokens are chosen.
            tokenizer: What its stop texts are looked for with, where it has any.

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
        drawn: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            # Else a base model's own settings would cut off all but the likeliest tokens.
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0}
            drawn["top_p"] = sampling.top_p
        if sampling.stop:
            drawn |= {"stop_strings": list(sampling.stop), "tokenizer": tokenizer}
        device = input_ids.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(sampling.seed)
            output = generating.generate(
                input_ids=input_ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                num_beams=1,
                pad_token_id=padding,
                eos_token_id=end,
                use_cache=True,
                **drawn,
            )
        rows: list[list[int]] = output[:, longest:].tolist()
        return [row[: row.index(end)] if end in row else row for row in rows]
