"""Conversations: a column of messages, each of one role, as chat models are asked and answer.

Read are lists of `{"role": ..., "content": ...}`, and ShareGPT's `{"from": ..., "value": ...}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import msgspec

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.errors import UnusableConversationError
from fmfl_secure.data.fields import Field, is_blank, parse_text

Role: TypeAlias = Literal["system", "user", "assistant"]
Conversation: TypeAlias = tuple[tuple[Role, str], ...]

# Keys of a message's role and its text, as files have been seen to name them.
MESSAGE_KEYS: Final = (("role", "content"), ("from", "value"))
_ROLES: Final[MappingProxyType[str, Role]] = MappingProxyType(
    {
        "system": "system",
        "user": "user",
        "human": "user",
        "assistant": "assistant",
        "gpt": "assistant",
        "chatgpt": "assistant",
        "model": "assistant",
    }
)
_LIST: Final = msgspec.json.Decoder(list[dict[str, Any]])
_HINT: Final = (
    'write lists such as [{"role": "user", "content": "..."}, {"role": "assistant", "content": '
    '"..."}]: at most one system message, first, then user and assistant in turns'
)


def messages_field(
    argument: str, column: str, *, answered: bool, refuses: Callable[[Sequence[Role]], str]
) -> Field:
    """A conversation, as a list of messages that are not empty.

    Args:
        argument: The setting that names the column.
        column: The column.
        answered: It ends with the assistant's answer, which is learned; else an answer at the end
            is left out, and what is kept ends with the user.
        refuses: Why a sequence of roles cannot be used; empty where it can.
    """

    def parse(value: str | None, column: str) -> Conversation:
        found = read_messages(value, column)
        if not answered and found and found[-1][0] == "assistant":
            found = found[:-1]
        roles = [role for role, _ in found]
        wrong = out_of_turn(roles, answered=answered) or refuses(roles)
        if wrong:
            raise _unusable(column, wrong)
        return found

    return Field(argument, (column,), parse, takes=("messages",))


def optional_text_field(argument: str, column: str) -> Field:
    """A text that may be missing, as the empty text."""

    def parse(value: str | None, column: str) -> str:
        return "" if value is None or not value.strip() else parse_text(value, column)

    return Field(argument, (column,), parse, takes=("text", "bytes", "nothing"))


def read_messages(value: str | None, column: str) -> Conversation:
    """A list of messages, of whatever roles in whatever order.

    Raises:
        UnusableValue: It is none.
    """
    items: list[dict[str, Any]] | None = None
    try:
        items = _LIST.decode(str(value or ""))
    except (msgspec.DecodeError, RecursionError):
        items = None
    if items is None:
        raise _unusable(column, "is no list of messages")
    return tuple(_message(item, column) for item in items)


def _message(item: dict[str, Any], column: str) -> tuple[Role, str]:
    held = {key: value for key, value in item.items() if value is not None}
    keys = next((pair for pair in MESSAGE_KEYS if set(held) == set(pair)), None)
    if keys is None:
        raise _unusable(column, "has a message with other keys than a role and its text")
    role, text = held[keys[0]], held[keys[1]]
    if not isinstance(role, str) or role not in _ROLES:
        raise _unusable(column, "has a role that is none of system, user and assistant")
    if not isinstance(text, str) or is_blank(text):
        raise _unusable(column, "has a message without a text")
    return _ROLES[role], text


def out_of_turn(roles: Sequence[Role], *, answered: bool) -> str:
    """Says why a sequence of roles is not one; empty where they take turns.

    Args:
        roles: Of a conversation.
        answered: It has to end with the assistant, else with the user.
    """
    turns = roles[1:] if roles[:1] == ["system"] else roles
    expected: list[Role] = ["user", "assistant"] * (len(turns) // 2 + 1)
    if list(turns) != expected[: len(turns)]:
        return "does not go from user to assistant in turns"
    if not turns or (turns[-1] == "assistant") != answered:
        return f"does not end with {'the assistant' if answered else 'the user'}"
    return ""


def _unusable(column: str, what: str) -> UnusableValue:
    return UnusableValue(
        UnusableConversationError,
        f"the conversation in column {column!r} {what}",
        _HINT,
        f"conversation that {what}",
    )
