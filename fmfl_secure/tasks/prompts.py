"""A prompt in its template and a response as token ids, where neither pushes out the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fmfl_secure.errors import ModelError
from fmfl_secure.tasks.plain_text import PlainText

_HOLE = "{prompt}"


@dataclass(frozen=True, slots=True)
class Written:
    """One record, tokenised.

    Attributes:
        before: The template with the prompt in it.
        after: The response, and the token that ends a text unless the response was cut.
        cut: Whether prompt or response lost its end.
    """

    before: list[int]
    after: list[int]
    cut: bool


class PromptWriter:
    """Fills a template and tokenises it, for one tokenizer.

    Special tokens in the template are special tokens; in a record they are letters.

    Args:
        tokenizer: As transformers loads it.
        template: Holds `{prompt}` once.
        max_length: Tokens of template, prompt and response together.

    Raises:
        ModelError: The template leaves no room, or the tokenizer does not say which characters a
            token is of.
    """

    def __init__(self, tokenizer: Any, template: str, max_length: int) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                "the tokenizer does not say which characters of a text a token is of",
                hint="Save a tokenizer.json beside the model, with save_pretrained of a fast one.",
            )
        self._tokenizer = tokenizer
        self._plain = PlainText(tokenizer)
        self._head, self._tail = template.split(_HOLE)
        self._head = beginning(tokenizer, template) + self._head
        self._max_length = max_length
        alone = len(self._encode(self._head + self._tail)[0])
        if alone + 2 > max_length:  # a token of the prompt's and one of the response's
            raise ModelError(
                f"task.template takes {alone} of the {max_length} tokens of model.max_length, and "
                "leaves no room for a prompt and a response",
                hint="Raise model.max_length, or shorten the template.",
            )

    def __call__(self, prompt: str, response: str | None) -> Written:
        """Tokenise one record.

        Args:
            prompt: As it stands in the data.
            response: The same; None for a prompt that is to be answered.
        """
        prompt = self._plain(prompt)
        ids, spans = self._encode(self._head + prompt + self._tail)
        start, stop = len(self._head), len(self._head) + len(prompt)
        own = [n for n, (a, b) in enumerate(spans) if start <= a < b <= stop]
        after = [] if response is None else self._response(response)
        # Tokens that straddle the template's edge belong to it.
        room = max(self._max_length - (len(ids) - len(own)), 0)
        kept_after = after[: max(room - len(own), room // 2, 1)]
        too_many = max(len(own) + len(kept_after) - room, 0)
        dropped = set(own[len(own) - too_many :]) if too_many else set()
        before = [token for n, token in enumerate(ids) if n not in dropped]
        return Written(before, kept_after, cut=bool(dropped) or len(kept_after) < len(after))

    def _response(self, response: str) -> list[int]:
        ids, _ = self._encode(self._plain(response))
        end = self._tokenizer.eos_token_id
        return ids if end is None else [*ids, end]

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["input_ids"], encoded["offset_mapping"]


def beginning(tokenizer: Any, template: str) -> str:
    """What stands before a template: the token that the tokenizer itself begins a text with.

    Empty where it begins texts with none, or where the template begins with it already.
    """
    token = tokenizer.bos_token
    if not token or template.startswith(token):
        return ""
    return token if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else ""
