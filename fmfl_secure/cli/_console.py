"""How commands speak: lines and tables for people, or one JSON document for programs.

What is meant for people goes to standard output. With `--json` standard output has the document
alone, and people's lines go to standard error; with `--quiet` they go nowhere.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

LogLevel = Literal["debug", "info", "warning", "error"]

# What moves a cursor, hides what follows or turns its order round, but for the end of a line.
_COMMANDS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class _Console(Console):
    """A console on which words are words: whoever wrote a report or a name rules no terminal."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _COMMANDS.sub("?", text), style, control)


console = _Console()
progress = _Console(stderr=True)  # how far something is; never the answer
errors = _Console(stderr=True)


def say(text: str) -> None:
    """One line as it is: paths and digests keep whole, and brackets are no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def facts(title: str, facts: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    console.print(table)


def print_document(document: Any) -> None:
    """One JSON document, on standard output; a figure that is not finite is null.

    What is no text in UTF-8, as the name of a file may be, stands there with escapes.

    Args:
        document: What msgspec can write.
    """
    import msgspec

    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:  # of a path that is named in another encoding
        encoded = msgspec.json.encode(_shown(msgspec.to_builtins(document)))
    data = msgspec.json.format(encoded, indent=2)
    sys.stdout.write(data.decode() + "\n")
    sys.stdout.flush()


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_shown(key): _shown(each) for key, each in value.items()}
    return [_shown(each) for each in value] if isinstance(value, list | tuple) else value


@contextmanager
def spoken(*, as_json: bool, quiet: bool, verbose: int, level: LogLevel | None) -> Iterator[None]:
    """Speak so while a command runs.

    Args:
        as_json: Keep standard output for the document.
        quiet: Say nothing but what goes wrong.
        verbose: 1 shows what the program logs, from `info` on; 2 from `debug` on.
        level: The same by name; it decides where both are given.
    """
    before = console.stderr, console.quiet, progress.quiet
    console.stderr, console.quiet, progress.quiet = as_json, quiet, quiet
    chosen = level or ("error" if quiet else ("", "info", "debug")[min(verbose, 2)])
    _Log.level = getattr(logging, chosen.upper()) if chosen else None
    root, warnings = logging.getLogger(), logging.StreamHandler()
    if _Log.level is not None:
        logging.basicConfig(level=_Log.level, format="%(levelname)s %(name)s: %(message)s")
        root.setLevel(_Log.level)
    else:
        warnings.setLevel(logging.WARNING)
        warnings.setFormatter(logging.Formatter("warning: %(message)s"))
        warnings.addFilter(_is_not_said)
        root.addHandler(warnings)
    try:
        yield
    finally:
        root.removeHandler(warnings)
        console.stderr, console.quiet, progress.quiet = before


def _is_not_said(record: logging.LogRecord) -> bool:
    """Whether a command leaves it to the log: what ends something it says itself, in its words."""
    own = record.name.partition(".")[0] in {"fmfl_secure", "privacy", "aggregation"}
    return not own or record.levelno < logging.ERROR or record.exc_info is not None


class _Log:
    level: int | None = None


def log_level(otherwise: int) -> int:
    """The least level that the person asked to see; `otherwise` where nothing was said."""
    return otherwise if _Log.level is None else _Log.level
