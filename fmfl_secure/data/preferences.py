"""Preferences: what was asked, the answer that was chosen, and the one that was rejected.

A cell is a text, or a list of messages. An answer is a text, one message of the assistant, or a
whole conversation that ends with it; the two conversations of a pair differ in that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.conversations import (
    MESSAGE_KEYS,
    Conversation,
    Role,
    out_of_turn,
    read_messages,
)
from fmfl_secure.data.errors import UnusableConversationError
from fmfl_secure.data.fields import Field, parse_text
from fmfl_secure.data.stored import StoredText

_HINT = (
    "write what was asked once, as a text or as messages up to the user's last, and two answers "
    "to it that differ"
)


class Preference(NamedTuple):
    """One pair of answers.

    Attributes:
        asked: Ends with the user.
        chosen: The better answer.
        rejected: The other one.
    """

    asked: Conversation
    chosen: str
    rejected: str


def turns_field(argument: str, column: str, role: Role, *, messages: bool) -> Field:
    """A text of one role, or a list of messages.

    Args:
        argument: The setting that names the column.
        column: The column.
        role: Whose a text is.
        messages: Lists are read; else they are refused, and never taken for texts.
    """

    def parse(value: str | None, column: str) -> Conversation:
        if not _is_list(value):
            return ((role, parse_text(value, column).strip()),)
        if not messages:
            raise UnusableValue(
                UnusableConversationError,
                f"column {column!r} holds a list of messages",
                "set task.chat = true, which reads lists",
                "list of messages in place of a text",
            )
        return tuple((each, text.strip()) for each, text in read_messages(value, column))

    return Field(argument, (column,), parse, takes=("text", "bytes", "messages"))


def preference_of(values: Sequence[Conversation]) -> Preference:
    """The pair that a row's values come to.

    Args:
        values: What was asked, unless answers are whole conversations; chosen; rejected.

    Raises:
        UnusableValue: They are no pair of answers to one question.
    """
    *prompt, chosen, rejected = values
    asked = [_asked(prompt[0] if prompt else (), answer) for answer in (chosen, rejected)]
    if asked[0] != asked[1]:
        raise _unusable("has two answers to different questions")
    if chosen[-1] == rejected[-1]:
        raise _unusable("has the same answer twice")
    return Preference(asked[0], chosen[-1][1], rejected[-1][1])


def _asked(prompt: Conversation, answer: Conversation) -> Conversation:
    """What stands before an answer; a prompt beside a whole conversation has to be its end."""
    if answer[-1:] and answer[-1][0] != "assistant":
        raise _unusable("has an answer that is not the assistant's")
    before = answer[:-1]
    if before and before[len(before) - len(prompt) :] != prompt:
        raise _unusable("has answers to something else than its prompt")
    asked = before or prompt
    if not answer:
        raise _unusable("lacks an answer")
    return asked


def require_asked(asked: Conversation, refuses: Callable[[Sequence[Role]], str] | None) -> None:
    """Refuse what cannot be answered.

    Args:
        asked: Messages before an answer.
        refuses: Why a chat template does not take a sequence of roles; None without a template.

    Raises:
        UnusableValue: It does not end with the user, or the template does not take it.
    """
    roles: list[Role] = [role for role, _ in asked]
    wrong = out_of_turn(roles, answered=False)
    if refuses is not None:
        wrong = wrong or refuses([*roles, "assistant"])
    if wrong:
        raise _unusable(f"asks what {wrong}")


def _is_list(value: str | None) -> bool:
    """Whether a cell is a list of messages, which a text file holds as its JSON."""
    if isinstance(value, StoredText):
        return value.held_as == "structure"
    if value is None or not value.lstrip().startswith("[{"):
        return False
    return any(f'"{role}"' in value and f'"{text}"' in value for role, text in MESSAGE_KEYS)


def _unusable(what: str) -> UnusableValue:
    return UnusableValue(UnusableConversationError, f"the row {what}", _HINT, f"pair that {what}")
