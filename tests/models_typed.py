"""Commands as a person types them, and made-up data of real shape for real models."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tiny_models import png
from typer.testing import CliRunner

from fmfl_secure import cli

_SUBJECTS = ("the food", "the room", "our guide", "the bus", "this book", "the staff")
_SAID = {"good": ("fine", "lovely", "great", "kind"), "bad": ("awful", "late", "rude", "dull")}


class Typed:
    """What is printed for a line that is typed; it has to succeed."""

    def __call__(self, line: str, *, given: str = "") -> str:
        result = CliRunner().invoke(cli.app, shlex.split(line), input=given, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output


def edit(path: Path, changes: Mapping[str, str]) -> None:
    """Change settings in a file, each of which has to be there."""
    text = path.read_text()
    for before, after in changes.items():
        assert before in text, before
        text = text.replace(before, after)
    path.write_text(text)


def write_notes(path: Path, rows: int, *, seed: int) -> None:
    """Conversations that ask whether a note is good or bad."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for _ in range(rows):
        label = str(generator.choice(["good", "bad"]))
        note = f"{generator.choice(_SUBJECTS)} was {generator.choice(_SAID[label])}"
        asked = f"Is the note good or bad? {note}"
        messages = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": label},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    path.write_text("".join(lines))


def write_pictures(folder: Path, each: int, *, seed: int) -> None:
    """Dark and bright pictures in folders of their labels."""
    for label in ("dark", "bright"):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            picture = png(seed=1000 * seed + number, size=32, bright=label == "bright")
            (folder / label / f"{number}.png").write_bytes(picture)
