"""Base of all answers, and how a command says that it failed."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

_Form = TypeVar("_Form")


def shown(given: Any, form: type[_Form]) -> _Form:
    """Something of the rooms below as part of an answer, by the names of its attributes."""
    return msgspec.convert(given, form, from_attributes=True)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers of all commands."""


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    """The error that ended a command.

    Attributes:
        code: One word for programs: the error's own, `usage` of a command line that is wrong,
            `file-system` of a path, `interrupted`, or `bug`.
        message: What happened, and what was expected.
        hint: What to do; may be empty.
        nature: What follows: `passing`, try again; `decided`, it stays so until a person decides
            otherwise; `damage`, something kept is not what it was; `bug`, report it.
        exit_code: The process's, as docs/exit-codes.md has them.
    """

    code: str
    message: str
    hint: str
    nature: Literal["passing", "decided", "damage", "bug"]
    exit_code: int


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The document of a command that failed, in place of its answer.

    Attributes:
        error: What ended it.
    """

    error: Wrong


class Written(Answer, frozen=True, kw_only=True):
    """Files that were written.

    Attributes:
        files: Their paths.
    """

    files: tuple[str, ...]
