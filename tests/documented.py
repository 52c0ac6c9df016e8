"""The command lines of a document: what its code blocks tell a reader to type."""

from __future__ import annotations

import functools
import os
import re
import shlex
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from fmfl_secure import cli

ROOT = Path(__file__).parents[1]
QUICK_START = ROOT / "docs/quick-start.md"
DOCUMENTS = [ROOT / "README.md", QUICK_START, *sorted((ROOT / "examples").glob("*/README.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"\d+\. ")
_BLOCK = "    "
_NOT_TYPED = {"python", "toml", "mermaid", "json", "text"}  # languages of blocks with no commands
_REFUSES = re.compile(r"# refuses: (.+)")


@functools.cache
def command_tree() -> Any:
    """The command line's own parser."""
    return typer.main.get_command(cli.app)


@dataclass(frozen=True)
class Command:
    """One line to type.

    Attributes:
        document: Where it stands.
        section: The heading above it; empty before the first.
        line: As written, continuation lines joined, with its comment.
    """

    document: Path
    section: str
    line: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {self.line}"

    @property
    def words(self) -> list[str]:
        """As a shell takes it apart, without its comment."""
        return shlex.split(self.line, comments=True)

    @property
    def refusal(self) -> str:
        """The code that the document says it is refused with; empty if it is to succeed."""
        found = _REFUSES.search(self.line)
        return found[1] if found else ""


def read_commands(document: Path) -> list[Command]:
    """Every command line of a document's code blocks, indented or fenced, in order."""
    text = _FENCE.sub(_indented, document.read_text(encoding="utf-8")).replace("\\\n", " ")
    commands, section, before, block = [], "", "", _BLOCK
    for line in text.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        if line[:1].strip():  # in an item of a list, its own text is indented already
            block = 2 * _BLOCK if _ITEM.match(line) else _BLOCK
        # In Markdown an indented line after one that is not blank goes on with that paragraph.
        in_block = line.startswith(block) and (not before.strip() or before.startswith(block))
        if in_block and line.strip():
            commands.append(Command(document, section, re.sub(r"\s+", " ", line.strip())))
        before = line if in_block or not line.startswith(block) else before
    return commands


def read_blocks(document: Path, language: str) -> list[str]:
    """Every fenced block of a language."""
    text = document.read_text(encoding="utf-8")
    return [body for name, body in _FENCE.findall(text) if name == language]


def _indented(block: re.Match[str]) -> str:
    if block[1] in _NOT_TYPED:
        return ""
    return "\n" + re.sub(r"^(?=.)", "    ", block[2], flags=re.MULTILINE)


class Terminal:
    """Types command lines as they are written, in a folder, with this checkout's programs."""

    def __init__(self, folder: Path, programs: Path) -> None:
        """The folder is where commands are typed; `programs` is one to make, for the path."""
        self.folder = folder
        programs.mkdir(parents=True)
        main = "import sys; from fmfl_secure.cli import main; main()"
        for name, arguments in (
            ("python", ["-W", "ignore"]),
            ("fmfl-secure", ["-W", "ignore", "-c", main]),
        ):
            script = programs / name
            script.write_text(
                f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n',
                encoding="utf-8",
            )
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
        self.environment = os.environ | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

    def start(self, command: Command, log: Path) -> subprocess.Popen[bytes]:
        """Start one that runs until it is stopped."""
        with log.open("wb") as file:
            return subprocess.Popen(
                ["bash", "-c", f"exec {shlex.join(command.words)}"],
                cwd=self.folder,
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def type(self, command: Command) -> str:
        """Run one to its end, which has to be the one that the document promises."""
        done = subprocess.run(
            ["bash", "-c", command.line],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said = f"$ {command.line}\n{done.stdout}\n{done.stderr}"
        if command.refusal:
            assert done.returncode == 1, said
            assert command.refusal in done.stderr, said
        else:
            assert done.returncode == 0, said
        return done.stdout
