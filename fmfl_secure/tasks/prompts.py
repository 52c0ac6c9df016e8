"""A prompt in its template and a response as token ids, where neither pushes out the other.

`causal_lm` calls `PromptWriter` once a record: it fills the template, tokenises, and then cuts by
`fitted`, as `chats` does. `conversation` writes the same template into an export, so that others
read the tokens that were learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from fmfl_secure.data import Conversation
from fmfl_secure.errors import ModelError
from fmfl_secure.tasks.plain_text import PlainText

_HOLE = "{prompt}"
# What stands before a response where it begins with a space, so that a tokenizer that puts a space
# of its own before a text adds none to it.
_BEFORE = "a"


@dataclass(frozen=True, slots=True)
class Turn:
    """Tokens read before a response, and those learned to follow.

    Attributes:
        before: Token ids that are read.
        after: Token ids of a response, with those that end it unless it was cut.
    """

    before: list[int]
    after: list[int]

    def __len__(self) -> int:
        return len(self.before) + len(self.after)


@dataclass(frozen=True, slots=True)
class Written:
    """One record, tokenised.

    Attributes:
        turns: In order; at least one.
        cut: Whether something of it was left out.
        length: Tokens that it has, also of what was left out.
    """

    turns: tuple[Turn, ...]
    cut: bool
    length: int

    @property
    def ids(self) -> list[int]:
        """All token ids, in order."""
        return [token for turn in self.turns for token in (*turn.before, *turn.after)]

    @property
    def learned(self) -> list[bool]:
        """For each token, whether it is of a response."""
        return [
            of_response
            for turn in self.turns
            for of_response in [False] * len(turn.before) + [True] * len(turn.after)
        ]


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a text as it stands, and the characters that each is of."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return encoded["input_ids"], encoded["offset_mapping"]


def fitted(ids: list[int], own: list[int], after: list[int], room: int) -> tuple[Turn, bool]:
    """Make room for a prompt and a response: each is sure of half of what others leave.

    Args:
        ids: Of the prompt in its template.
        own: Places among them that are the prompt's own, which alone may go, from the last on.
        after: Of the response, which may lose its end.
        room: Tokens for all.

    Returns:
        What is kept, and whether anything was left out.
    """
    left = max(room - (len(ids) - len(own)), 0)
    kept = after[: max(left - len(own), left // 2, 1)]
    too_many = max(len(own) + len(kept) - left, 0)
    dropped = set(own[len(own) - too_many :]) if too_many else set()
    before = [token for place, token in enumerate(ids) if place not in dropped]
    return Turn(before, kept), bool(dropped) or len(kept) < len(after)


class Writer(Protocol):
    """Tokenises records: prompts with their responses, or conversations."""

    @property
    def end(self) -> int | None:
        """The token that ends a response."""
        ...

    def __call__(self, record: Conversation) -> Written:
        """Tokenise one record, which ends with a response or is to be answered."""
        ...


def exchange(prompt: str, response: str | None = None) -> Conversation:
    """One prompt, and its response where there is one."""
    asked: Conversation = (("user", prompt),)
    return asked if response is None else (*asked, ("assistant", response))


class PromptWriter:
    """Fills a template and tokenises it, for one tokenizer.

    Special tokens in the template are special tokens; in a record they are letters.

    Args:
        tokenizer: As transformers loads it.
        template: Holds `{prompt}` once.
        max_length: Tokens of template, prompt and response together.
        before_response: Spaces that a response begins with, whose tokens are those it has within
            a text.

    Raises:
        ModelError: The template leaves no room, or the tokenizer does not say which characters a
            token is of.
    """

    def __init__(
        self, tokenizer: Any, template: str, max_length: int, *, before_response: str = ""
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                "the tokenizer does not say which characters of a text a token is of",
                hint="Save a tokenizer.json beside the model, with save_pretrained of a fast one.",
            )
        self._tokenizer = tokenizer
        self._plain = PlainText(tokenizer)
        self._head, self._tail = template.split(_HOLE)
        self._head = beginning(tokenizer, template) + self._head
        self._space = before_response
        self._max_length = max_length
        alone = len(encode(tokenizer, self._head + self._tail)[0])
        if alone + 2 > max_length:  # a token of the prompt's and one of the response's
            raise ModelError(
                f"task.template takes {alone} of the {max_length} tokens of model.max_length, and "
                "leaves no room for a prompt and a response",
                hint="Raise model.max_length, or shorten the template.",
            )

    @property
    def end(self) -> int | None:
        """The token that ends a response."""
        found = self._tokenizer.eos_token_id
        return None if found is None else int(found)

    def __call__(self, record: Conversation) -> Written:
        """Tokenise one record.

        Args:
            record: A prompt, and its response unless it is to be answered.
        """
        prompt = self._plain(record[0][1])
        response = record[1][1] if len(record) > 1 else None
        ids, spans = encode(self._tokenizer, self._head + prompt + self._tail)
        start, stop = len(self._head), len(self._head) + len(prompt)
        # Tokens that straddle the template's edge belong to it.
        own = [n for n, (a, b) in enumerate(spans) if start <= a < b <= stop]
        after = [] if response is None else self._response(response)
        turn, cut = fitted(ids, own, after, self._max_length)
        return Written((turn,), cut, len(ids) + len(after))

    def _response(self, response: str) -> list[int]:
        text = self._plain(response)
        if self._space:
            ids, spans = encode(self._tokenizer, _BEFORE + self._space + text)
            ids = [one for one, (_, stop) in zip(ids, spans, strict=True) if stop > len(_BEFORE)]
        else:
            ids, _ = encode(self._tokenizer, text)
        return ids if self.end is None else [*ids, self.end]


def beginning(tokenizer: Any, template: str) -> str:
    """Returns the token text that a tokenizer begins texts with, to stand before a template.

    Empty where it begins texts with none, or where the template begins with it already.
    """
    token = tokenizer.bos_token
    if not token or template.startswith(token):
        return ""
    return token if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else ""
