"""A tokenizer's chat template: what it writes around messages, and which of it answers.

The template is code that came with the base model, and runs in the sandbox in which transformers
runs it. It never sees a record: it is rendered once for each sequence of roles, with marks in the
place of texts, so that no text can change what stands around it or around another.

`chats` asks it for those texts and `preference` what it refuses; `conversation` puts the template
into an export, and `model_defaults` looks whether there is one that can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmfl_secure.data import Role
from fmfl_secure.errors import ModelError
from fmfl_secure.tasks.plain_text import PlainText

_CLOCKS = ("strftime_now", "now(")
_HINT = "Use task.template, or a chat_template in the base model's folder that does not."


@dataclass(frozen=True, slots=True)
class Shape:
    """The texts that a template writes around those of a conversation.

    Attributes:
        literals: Before the first text, between texts, and behind the last.
        asked: For each message of the assistant, its place and what stands before its answer when
            the model is asked: the end of the literal before it, or less than that.
        ends: For each, what ends the answer: what the model learns to stop with.
    """

    literals: tuple[str, ...]
    asked: dict[int, str]
    ends: dict[int, str]


class ChatTemplate:
    """The chat template of one tokenizer.

    Args:
        tokenizer: As transformers loads it.

    Raises:
        ModelError: It has none, or one that cannot be trained by: it writes the time, changes
            texts, or does not end answers with a special token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._plain = PlainText(tokenizer)
        template = getattr(tokenizer, "chat_template", None)
        if not isinstance(template, str) or not template:
            raise ModelError(
                "the tokenizer has no chat template, or several",
                hint="Use task.template, or put chat_template.jinja into the base model's folder.",
            )
        self.text: str = template
        if any(clock in template for clock in _CLOCKS):
            raise ModelError(
                "the chat template writes today's date: every day would train on another",
                hint=_HINT,
            )
        self._shapes: dict[tuple[Role, ...], Shape] = {}
        self._prompts: dict[tuple[Role, ...], tuple[str, ...]] = {}
        self.end = self.shape(("user", "assistant")).ends[1]

    def shape(self, roles: Sequence[Role]) -> Shape:
        """Finds the texts around an answered conversation of these roles.

        Raises:
            ModelError: The template does not write such a conversation, or not so that its
                answers can be learned.
        """
        key = tuple(roles)
        if key not in self._shapes:
            self._shapes[key] = self._shape(key)
        return self._shapes[key]

    def prompt(self, roles: Sequence[Role]) -> tuple[str, ...]:
        """The literals of a conversation that is to be answered, which ends with the user.

        Raises:
            ModelError: The template does not write such a conversation.
        """
        key = tuple(roles)
        if key not in self._prompts:
            self._prompts[key] = self._render(key, ask=True)
        return self._prompts[key]

    def refuses(self, roles: Sequence[Role]) -> str:
        """Why a conversation of these roles cannot be used; empty where it can."""
        try:
            if roles and roles[-1] == "assistant":
                self.shape(roles)
            else:
                self.prompt(roles)
        except ModelError as error:
            return f"the chat template does not take ({error})"
        return ""

    def _shape(self, roles: tuple[Role, ...]) -> Shape:
        literals = self._render(roles, ask=False)
        asked, ends = {}, {}
        for place, role in enumerate(roles):
            if role != "assistant":
                continue
            asked[place] = self.prompt(roles[:place])[-1]
            if not literals[place].startswith(asked[place].rstrip()):
                raise ModelError(
                    "the chat template asks for an answer otherwise than it writes one down",
                    hint=_HINT,
                )
            # Blanks that stand there once an answer does are part of that answer.
            if not literals[place].startswith(asked[place]):
                asked[place] = asked[place].rstrip()
            ends[place] = self._end(literals[place + 1])
        return Shape(literals, asked, ends)

    def _end(self, behind: str) -> str:
        found = self._plain.first_special(behind)
        if found is None:
            raise ModelError(
                "the chat template does not end an answer with a special token, so that nothing "
                "would tell the model to stop",
                hint=_HINT,
            )
        return behind[:found]

    def _render(self, roles: tuple[Role, ...], *, ask: bool) -> tuple[str, ...]:
        # Of letters that no normaliser changes and no template looks for.
        marks = [f"fmflsecuretext{number}x" for number in range(len(roles))]
        messages = [{"role": r, "content": m} for r, m in zip(roles, marks, strict=True)]
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=ask
            )
        # A template raises what it likes, and jinja more besides.
        except Exception as error:
            raise ModelError(
                f"the chat template does not write {', '.join(roles) or 'nothing'}: {error}",
                hint=_HINT,
            ) from error
        literals = []
        for mark in marks:
            before, found, text = str(text).partition(mark)
            if not found or mark in text:
                raise ModelError(
                    "the chat template leaves a message out, writes one twice or changes it",
                    hint=_HINT,
                )
            literals.append(before)
        return *literals, str(text)
