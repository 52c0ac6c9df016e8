"""How a command that failed is told, to people and to programs."""

from __future__ import annotations

from typing import Literal

from fmfl_secure.cli.answers.base import Failure, Wrong
from fmfl_secure.cli.exit_codes import ExitCode, exit_code
from fmfl_secure.errors import CHECK_PATH, MAKE_ROOM, is_known, is_of_a_name, is_passing, said

_SHOWN = 200  # characters of a name
_AGAIN = "start it again: it goes on."


def failure_of(error: BaseException) -> Failure:
    """Describes the error that ended a command, as a document.

    Args:
        error: Whatever it raised.
    """
    code = exit_code(error)
    if code == ExitCode.USAGE:
        told = getattr(error, "format_message", lambda: str(error))()
        return _failure("usage", told, "Add --help: it says what there is.", "decided", code)
    if code == ExitCode.SIGNAL:
        return _failure("interrupted", "interrupted", "", "decided", code)
    if isinstance(error, UnicodeEncodeError) and is_of_a_name(error):
        told = f"{str(error.object)[:_SHOWN]!r} is no text in UTF-8, and cannot be written down"
        return _failure("configuration", told, "Rename it in UTF-8.", "decided", code)
    if isinstance(error, OSError) and not is_known(error) and code != ExitCode.BUG:
        return _failure("file-system", _of_system(error), *_of_path(code), code)
    hint = str(getattr(error, "hint", ""))
    if code == ExitCode.INTERRUPTED:
        hint = f"{hint} Then {_AGAIN}" if hint else _AGAIN.capitalize()
    if code == ExitCode.BUG:
        told = f"{type(error).__name__}: {error}"
        return _failure("bug", told, "Report it, with the traceback.", "bug", code)
    return _failure(
        str(getattr(error, "code", "failed")),
        said(error),
        hint,
        "passing" if is_passing(error) else getattr(error, "nature", "decided"),
        code,
    )


def _failure(
    word: str,
    message: str,
    hint: str,
    nature: Literal["passing", "decided", "damage", "bug"],
    code: ExitCode,
) -> Failure:
    return Failure(
        error=Wrong(code=word, message=message, hint=hint, nature=nature, exit_code=int(code))
    )


def _of_system(error: OSError) -> str:
    text = error.strerror or type(error).__name__
    return f"cannot use {error.filename}: {text}" if error.filename else text


def _of_path(code: ExitCode) -> tuple[str, Literal["passing", "decided"]]:
    if code == ExitCode.INTERRUPTED:
        return f"{MAKE_ROOM} Then {_AGAIN}", "passing"
    return CHECK_PATH, "decided"
