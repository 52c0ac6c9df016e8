"""Changes to a settings file as text, so that comments and order stay: nothing else is touched.

Whatever is written is read back by whoever asks for it and compared with what was meant.

`asking` writes a question and `declaring` an answer by these; each takes a file's text and returns
the new one. `settings.templates` writes values by `toml_of`, too.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection, Mapping

import msgspec

from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.questions import QuestionSection

_HEAD = re.compile(r"^[ \t]*\[\[?[ \t]*[A-Za-z_][\w.-]*[ \t]*\]", re.MULTILINE)
_KEY = re.compile(r"^[ \t]*([A-Za-z0-9_-]+)[ \t]*=")
_SITES = re.compile(r"^\s*\[\[\s*sites\s*\]\]", re.MULTILINE)
_NAME = re.compile(r"""^\s*name\s*=\s*["']([^"']*)["']""", re.MULTILINE)
_POPULATION = re.compile(r"^([ \t]*population\s*=\s*)([0-9_]+)", re.MULTILINE)
_NOTE = "# as the sites answered"  # begins the line before what was written from an answer
_NOTES = re.compile(rf"^[ \t]*{_NOTE}.*\n(?=[ \t]*(?P<key>\w+)\s*=)", re.MULTILINE)


def with_question(text: str, asked: QuestionSection) -> str:
    """A federation's settings with a `[question]` at their end.

    Raises:
        ConfigError: They have one already.
    """
    if re.search(r"^\s*\[\s*question\s*\]", text, re.MULTILINE):
        raise ConfigError("the settings have a [question] already")
    lines = [
        f"{name} = {toml_of(value)}"
        for name, value in msgspec.structs.asdict(asked).items()
        if value or name == "epsilon"
    ]
    return text.rstrip("\n") + "\n\n[question]\n" + "\n".join(lines) + "\n"


def without_keys(text: str, table: str, keys: Collection[str], *, why: str) -> str:
    """Settings in which some keys of a table are comments.

    Args:
        text: The file.
        table: Its name; one that is not there has no keys.
        keys: Which; those that are not there stay so.
        why: Said before each.
    """
    start, end = _body(text, table) or (len(text), len(text))
    lines, kept = text[start:end].splitlines(keepends=True), []
    while lines:
        size = _assignment(lines, keys)
        if size:
            kept += [f"# {why}: {line}" for line in lines[:size]]
        kept += [] if size else lines[:1]
        lines = lines[max(1, size) :]
    return text[:start] + "".join(kept) + text[end:]


def _body(text: str, table: str) -> tuple[int, int] | None:
    """Where a table's keys stand; None where there is no such table."""
    head = re.search(rf"^[ \t]*\[[ \t]*{re.escape(table)}[ \t]*\].*$\n?", text, re.MULTILINE)
    if head is None:
        return None
    after = _HEAD.search(text, head.end())
    return head.end(), len(text) if after is None else after.start()


def _assignment(lines: list[str], keys: Collection[str]) -> int:
    """How many lines the first key takes, if it is one of these; else 0."""
    name = _KEY.match(lines[0])
    if name is None or name[1] not in keys:
        return 0
    for size in range(1, len(lines) + 1):
        try:
            tomllib.loads("".join(lines[:size]))
        except tomllib.TOMLDecodeError:
            continue
        return size
    return 1


def with_value(text: str, table: str, key: str, value: object, *, answer: str) -> str:
    """Settings with a value that an answer gave, said in the line before it.

    Args:
        text: The file.
        table: Name of the table; one that is not there is made, at the file's end.
        key: In the table.
        value: A number, or a list of numbers.
        answer: Which answer it is from.

    Raises:
        ConfigError: What stands there is no such value.
    """
    if _body(text, table) is None:
        text = text.rstrip("\n") + f"\n\n[{table}]\n"
    start, end = _body(text, table) or (len(text), len(text))
    body = _without_note(text[start:end], key)
    line = f"{_NOTE}, {answer}\n{key} = {toml_of(value)}"
    there = rf"^[ \t]*{re.escape(key)}[ \t]*=[ \t]*"
    body, found = re.subn(rf"{there}(\[[^\]#\"']*\]|[0-9][0-9_.]*)", line, body, flags=re.MULTILINE)
    if not found:
        if re.search(there, body, re.MULTILINE):
            raise ConfigError(f"{table}.{key} is written in a way that is left alone")
        body = f"{line}\n{body}"
    return text[:start] + body + text[end:]


def _without_note(body: str, key: str) -> str:
    return _NOTES.sub(lambda found: "" if found["key"] == key else found[0], body)


def with_populations(text: str, populations: Mapping[str, int], *, answer: str) -> str:
    """A federation's settings with other declared populations.

    Args:
        text: The file.
        populations: By site.
        answer: Which answer they are from, said in the line before each.

    Raises:
        ConfigError: A site's entry, or its population, is not found where it would be written.
    """
    starts = [match.start() for match in _SITES.finditer(text)]
    ends = [*starts[1:], len(text)][: len(starts)]
    parts, done = [text[: starts[0]] if starts else text], set()
    for start, end in zip(starts, ends, strict=True):
        entry = text[start:end]
        name = _NAME.search(entry)
        if name is not None and name[1] in populations:
            written = rf"{_NOTE}, {answer}\n\g<1>{populations[name[1]]}"
            entry, found = _POPULATION.subn(written, _without_note(entry, "population"), count=1)
            done |= {name[1]} if found else set()
        parts.append(entry)
    missing = sorted(set(populations) - done)
    if missing:
        raise ConfigError(
            f"the settings have no [[sites]] entry of {missing[0]} with a population on its own "
            "line, so nothing is written",
            hint="Write the populations by hand.",
        )
    return "".join(parts)


def toml_of(value: object) -> str:
    """A value as TOML; JSON writes these kinds alike, but for blanks and what it has no word for.

    Raises:
        ConfigError: It is a text that no file in UTF-8 can hold.
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_of, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # for whoever reads it to refuse by its name
    try:
        return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    except UnicodeEncodeError:
        raise ConfigError(
            f"{value!r} is no text in UTF-8, as settings are",
            hint="Name what is meant by another name, in UTF-8.",
        ) from None
