"""Conversations as token ids, by a chat template: what the assistant says is learned, no more.

`causal_lm` calls the writer once a record. It takes the texts around the messages from
`chat_template`, tokenises message by message, and leaves whole exchanges out where they do not fit.
"""

from __future__ import annotations

from typing import Any

from fmfl_secure.data import Conversation, Role
from fmfl_secure.errors import ModelError
from fmfl_secure.tasks.chat_template import ChatTemplate
from fmfl_secure.tasks.plain_text import PlainText
from fmfl_secure.tasks.prompts import Turn, Written, encode, fitted


class ChatWriter:
    """Tokenises conversations, for one tokenizer and its chat template.

    Special tokens of the template are special tokens; in a record they are letters. Blanks around
    a message are no part of it. What does not fit: of a conversation that is learned, the last
    exchanges go first; of one that is to be answered, the earliest; of a single one, the question
    loses its end, and an answer its own, which then has no end token.

    Args:
        tokenizer: As transformers loads it.
        template: Its chat template.
        system: The system message of conversations that have none; empty for none.
        max_length: Tokens of a conversation.

    Raises:
        ModelError: The template and the system message leave no room.
    """

    def __init__(
        self, tokenizer: Any, template: ChatTemplate, system: str, max_length: int
    ) -> None:
        self._tokenizer = tokenizer
        self._plain = PlainText(tokenizer)
        self._template = template
        self._system = system
        self._max_length = max_length
        exchange: list[tuple[Role, str]] = [("user", ""), ("assistant", "")]
        ids = self._context(self._led(tuple(exchange)))
        if len(ids) + 2 > max_length:
            raise ModelError(
                f"the chat template and task.system take {len(ids)} of the {max_length} tokens of "
                "model.max_length, and leave no room for a question and an answer",
                hint="Raise model.max_length, or shorten task.system.",
            )

    @property
    def end(self) -> int | None:
        """The token that ends an answer."""
        # Blanks may stand before it, as part of what is learned.
        return encode(self._tokenizer, self._template.end)[0][-1]

    def __call__(self, record: Conversation) -> Written:
        """Tokenise a conversation that is learned, or is to be answered."""
        return self._answered(record) if record[-1][0] == "assistant" else self._to_answer(record)

    def _answered(self, conversation: Conversation) -> Written:
        """Tokenise a conversation whose answers are learned.

        Args:
            conversation: Ends with the assistant.
        """
        said = self._led(conversation)
        roles = [role for role, _ in said]
        shape = self._template.shape(roles)
        turns: list[Turn] = []
        length, first, lead, cut = 0, 0, "", False
        for place, (role, text) in enumerate(said):
            if role != "assistant":
                continue
            asked, end = shape.asked[place], shape.ends[place]
            literals = [lead, *shape.literals[first + 1 : place], asked]
            if first == 0:
                literals[0] = shape.literals[0]
            before, own = self._between(literals, [text for _, text in said[first:place]])
            rest = shape.literals[place][len(asked) :]
            after, _ = encode(self._tokenizer, rest + text + end)
            length += len(before) + len(after)
            if not turns:
                turn, cut = fitted(before, own, after, self._max_length)
                turns.append(turn)
            elif cut or length > self._max_length:
                cut = True
            else:
                turns.append(Turn(before, after))
            first, lead = place + 1, shape.literals[place + 1][len(end) :]
        return Written(tuple(turns), cut, length)

    def _to_answer(self, conversation: Conversation) -> Written:
        """Tokenise a conversation that is to be answered.

        Args:
            conversation: Ends with the user.
        """
        said = self._led(conversation)
        system = said[:1] if said[0][0] == "system" else ()
        turns, cut = said[len(system) :], False
        while True:
            ids, own = self._asked(system + turns)
            room = self._max_length - 1  # one token of an answer
            if len(ids) <= room:
                return Written((Turn(ids, []),), cut, len(ids))
            cut = True
            if len(turns) == 1:
                turn, _ = fitted(ids, own, [], room)
                return Written((turn,), True, len(ids))
            turns = turns[2:]

    def _asked(self, said: Conversation) -> tuple[list[int], list[int]]:
        """Token ids of a question with all before it, and places of the last message's own."""
        roles = [role for role, _ in said]
        literals = self._template.prompt(roles)
        ids: list[int] = []
        own: list[int] = []
        first, lead = 0, literals[0]
        for place, (role, text) in enumerate(said):
            if role == "assistant":
                # As it was learned: by itself, with what ends it.
                end = self._template.shape(roles[: place + 1]).ends[place]
                before, _ = self._between(
                    [lead, *literals[first + 1 : place + 1]], [t for _, t in said[first:place]]
                )
                after, _ = encode(self._tokenizer, text + end)
                ids += [*before, *after]
                first, lead = place + 1, literals[place + 1].removeprefix(end)
        before, places = self._between(
            [lead, *literals[first + 1 :]], [text for _, text in said[first:]]
        )
        own = [len(ids) + place for place in places]
        return [*ids, *before], own

    def _between(self, literals: list[str], texts: list[str]) -> tuple[list[int], list[int]]:
        """Literals with texts between them as token ids, and the places of the texts' own."""
        whole, spans = literals[0], []
        for text, literal in zip(texts, literals[1:], strict=True):
            spans.append((len(whole), len(whole) + len(text)))
            whole += text + literal
        ids, offsets = encode(self._tokenizer, whole)
        own = [
            place
            for place, (start, stop) in enumerate(offsets)
            if any(a <= start < stop <= b for a, b in spans)
        ]
        return ids, own

    def _context(self, said: Conversation) -> list[int]:
        shape = self._template.shape([role for role, _ in said])
        literals = [*shape.literals[: len(said) - 1], shape.asked[len(said) - 1]]
        return self._between(literals, [text for _, text in said[:-1]])[0]

    def _led(self, conversation: Conversation) -> Conversation:
        """With a system message, and no text that spells a special token."""
        plain: list[tuple[Role, str]] = [(r, self._plain(text.strip())) for r, text in conversation]
        if self._system and plain[0][0] != "system":
            plain.insert(0, ("system", self._system.strip()))
        return tuple(plain)
