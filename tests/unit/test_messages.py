"""What errors say, judged by rules: every place in the source that raises one is looked at.

A hint is something to do, never a code; whoever names an option or a command names one that there
is; no text has the path of a library's own (`$.adapter.kind`) or the name of a Python type.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from documented import command_tree
from test_error_natures import CLASS, ROOT, _import_all

from fmfl_secure.data.formats import FORMATS
from fmfl_secure.errors import KNOWN_ERRORS, UnknownKind
from fmfl_secure.models.adapters import ADAPTERS
from fmfl_secure.settings.noise import NOISE

PACKAGES = ("fmfl_secure", "privacy", "aggregation")
OURS = tuple(f"{name}." for name in PACKAGES)
# A hint asks for one of these, or names what to type, or lists what there is to choose from.
VERBS = frozenset(
    """
    add agree allow ask audit bring change charge check choose close compare complete convert
    copy create declare delete edit export fetch fix free give grant import install keep leave
    let look lower make mend move name open plan provision put quote raise read rename remove
    renew repeat replace report reserve resize restore run save say send separate set show sign
    sort spell start stop take tell train try turn type unpack update upgrade use wait write
    """.split()  # noqa: SIM905
)
TYPED = re.compile(r"fmfl-secure [a-z]|(?<![\w-])--[a-z]|chmod |pip install|sqlite:|postgresql:")
CHOICES = re.compile(r"(It is|It has|One of|Known|Supported|What is)\b.*\{")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMAND = re.compile(r"fmfl-secure ([a-z][a-z-]*)")
FOREIGN_OPTIONS = {"--no-deps", "--force-reinstall"}  # pip's
FOREIGN = re.compile(r"\$\.[a-z]|NoneType|<class |object at 0x|errno|Traceback")


@dataclass(frozen=True)
class Raised:
    """A place that makes an error.

    Attributes:
        place: File and line.
        kind: Of the error, as it is called there.
        texts: What it says: placeholders stand as `{}` with their expressions.
        hint: What to do; empty where it says nothing, or not here.
    """

    place: str
    kind: str
    texts: tuple[str, ...]
    hint: str


def text_of(node: ast.expr) -> str:
    """A text as the source has it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = (
            part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part)}}}"
            for part in node.values
        )
        return "".join(str(part) for part in parts)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return f"{{{ast.unparse(node)}}}"


@functools.cache
def classes() -> frozenset[str]:
    """Names of all classes of error."""
    names = {base.__name__ for base in KNOWN_ERRORS}
    found = [pair for text in sources().values() for pair in CLASS.findall(text)]
    while more := {name for name, base in found if base in names} - names:
        names |= more
    return frozenset(names)


@functools.cache
def sources() -> dict[Path, str]:
    paths = (path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    return {path: path.read_text(encoding="utf-8") for path in paths}


def raised_in(path: Path, text: str) -> Iterator[Raised]:
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        hints = [text_of(each.value) for each in node.keywords if each.arg == "hint"]
        if name in classes() or hints:
            yield Raised(
                f"{path.relative_to(ROOT)}:{node.lineno}",
                name,
                tuple(text_of(each) for each in node.args),
                "".join(hints),
            )


@functools.cache
def all_raised() -> tuple[Raised, ...]:
    return tuple(each for path, text in sources().items() for each in raised_in(path, text))


def objection_to_hint(hint: str) -> str:
    """What is wrong with a hint; empty where nothing is."""
    if not hint or re.fullmatch(r"\{[^{}]*\}", hint):
        return ""  # said elsewhere, where it is made
    if re.fullmatch(r"[a-z_.-]+", hint) or re.match(r"\{[^{}]*\}: \{[^{}]*\}$", hint):
        return "is a code"
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", hint)}
    if words & VERBS or TYPED.search(hint) or CHOICES.search(hint):
        return ""
    return "asks nothing of anybody"


@functools.cache
def options() -> frozenset[str]:
    found: set[str] = set()

    def walk(command: Any) -> None:
        found.update(name for one in command.params for name in [*one.opts, *one.secondary_opts])
        for each in getattr(command, "commands", {}).values():
            walk(each)

    walk(command_tree())
    return frozenset(found)


def test_every_class_of_error_is_raised_or_stands_for_others() -> None:
    _import_all()
    made = {each.kind for each in all_raised()} | {
        name
        for text in sources().values()
        for name in re.findall(r"\b([A-Z]\w+)\b", text)
        if text.count(name) > 1
    }
    assert len(all_raised()) > 1000
    assert classes() <= made


def test_every_hint_is_something_to_do() -> None:
    found = {each.place: each.hint for each in all_raised() if objection_to_hint(each.hint)}
    assert found == {}


@pytest.mark.parametrize(
    "hint",
    ["policy.min_sites", "budget", "{name}: {code}", "It cannot be.", "The path is where it is."],
)
def test_a_hint_that_is_none_would_be_found(hint: str) -> None:
    assert objection_to_hint(hint)


def test_options_and_commands_are_named_as_they_are() -> None:
    commands = set(command_tree().commands)
    for each in all_raised():
        for text in (*each.texts, each.hint):
            assert set(OPTION.findall(text)) <= options() | FOREIGN_OPTIONS, each.place
            assert set(COMMAND.findall(text)) <= commands, each.place


def test_no_text_speaks_of_the_program_s_insides() -> None:
    found = {
        each.place: text
        for each in all_raised()
        for text in (*each.texts, each.hint)
        if FOREIGN.search(re.sub(r"\{.*?\}", "", text))
    }
    assert found == {}


@pytest.mark.parametrize("registry", [ADAPTERS, NOISE, FORMATS], ids=["adapter", "noise", "format"])
def test_a_name_that_is_none_is_told_what_there_is_and_what_is_near(registry: Any) -> None:
    for known in registry.names:
        with pytest.raises(UnknownKind) as refused:
            registry.get(f"{known}x")
        told = f"{refused.value} {refused.value.hint}"
        assert all(name in told for name in registry.names)
        assert f'Did you mean "{known}"?' in told
