"""Virtual tokens in front of every text: prompt tuning and prefix tuning.

`prompt` learns embeddings (Lester et al. 2021, arXiv 2104.08691), `prefix` keys and values for
every layer (Li and Liang 2021, arXiv 2101.00190). PEFT looks its prompt up once for a whole
batch, where no gradient of one record can be told from another's; here it is looked up once a
record. Files are PEFT's in both cases.
"""

from __future__ import annotations

from typing import Any

import peft
import torch
from torch import nn

from fmfl_secure.models.low_rank import peft_task, peft_warnings_silenced


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
        self.prompt = nn.Embedding(tokens, words.weight.shape[1])
        # On the scale of the word embeddings it stands among, as in PEFT's own start.
        nn.init.normal_(self.prompt.weight, std=float(words.weight.std()))

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

    def _prompted(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        records, tokens = len(input_ids), self.prompt.num_embeddings
        index = torch.arange(tokens, device=input_ids.device).expand(records, tokens)
        words = self.encoder.get_input_embeddings()(input_ids)  # type: ignore[operator]
        embeddings = torch.cat([self.prompt(index), words], dim=1)
        ones = attention_mask.new_ones(records, tokens)
        return embeddings, torch.cat([ones, attention_mask], dim=1)


def attach_prompt(encoder: nn.Module, tokens: int) -> nn.Module:
    """Prompt tuning."""
    return SoftPrompt(encoder, tokens)


def attach_prefix(encoder: nn.Module, tokens: int, *, base_name: str) -> nn.Module:
    """Prefix tuning, by PEFT."""
    config = peft.PrefixTuningConfig(num_virtual_tokens=tokens, task_type=peft_task(encoder))
    with peft_warnings_silenced():
        adapted: nn.Module = peft.get_peft_model(encoder, config)
    config.base_model_name_or_path = base_name
    return adapted


def prompt_config(tokens: int, encoder: nn.Module, *, base_name: str) -> Any:
    """PEFT's description of a prompt of this length."""
    return peft.PromptTuningConfig(
        num_virtual_tokens=tokens, task_type=peft_task(encoder), base_model_name_or_path=base_name
    )
