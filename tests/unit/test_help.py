"""Help: nothing of it is cut on a terminal of 80 columns, and the page of commands is the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from documented import command_tree
from test_cli import COMMANDS, find, invoke

from fmfl_secure.cli.document import cli_document

DOCS = Path(__file__).parents[2] / "docs"
GROUPS = sorted({command[:1] for command in COMMANDS if len(command) > 1} | {()})
COLUMNS = 80


def spaceless(text: str) -> str:
    """Wherever lines were broken."""
    return re.sub(r"\s+", "", text)


def first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s|\n\n", text.strip())[0].removesuffix(".")


def shown(*words: str) -> str:
    result = invoke(*words, "--help")
    assert result.exit_code == 0
    printed = result.output
    assert max(len(line) for line in printed.splitlines()) <= COLUMNS
    return printed


def test_the_page_is_what_the_commands_say() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert page == cli_document(), "python -m fmfl_secure.cli.document > docs/cli.md"
    for command in COMMANDS:
        assert f"\n    {' '.join(('fmfl-secure', *command))}" in page, "the line to type"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_all_of_a_command_s_help_is_shown(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    printed = spaceless(shown(*command))
    for text in texts(find(command)):
        assert spaceless(text) in printed, text


def texts(command: Any) -> Iterator[str]:
    """All that a command has to say, but for what stands between columns."""
    yield command.help
    for one in command.params:
        if one.param_type_name == "option":
            yield one.help
            yield from one.opts


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: " ".join(group) or "all")
def test_a_group_lists_its_commands_with_a_whole_sentence(
    group: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    printed = spaceless(shown(*group))
    found = command_tree()
    for name in group:
        found = found.commands[name]
    for name, command in found.commands.items():
        assert spaceless(name + first_sentence(command.help)) in printed, name


def test_what_is_cut_would_be_seen() -> None:
    with pytest.raises(AssertionError):
        assert spaceless("a whole sentence, of which the end is cut") in spaceless("a whole...")
