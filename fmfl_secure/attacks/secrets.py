"""Secrets that were planted before a run, and how far its language model exposes them.

A secret is a row of training data with a place in it for a text drawn at random. Whoever plants it
puts the row into a site's data; whoever attacks ranks what was planted among other texts of its
form, by the model's loss (Carlini et al. 2019, arXiv 1802.08232). The file holds one JSON object a
line: `row`, the columns with `{}` where the text goes; `planted`, the text; `alphabet`, what it was
drawn from letter by letter; and `units`, of how many people or records, 1 where it does not say.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from torch import nn

from fmfl_secure.attacks.references import losses
from fmfl_secure.errors import ConfigError
from fmfl_secure.outside import MALFORMED, MOST_SETTINGS, read_regular
from fmfl_secure.run.attack_record import ToldSecret
from fmfl_secure.tasks import Task
from fmfl_secure.tasks.causal_lm import CausalLM
from privacy.auditing import exposure, most_exposed

_PLACE: Final = "{}"


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One planted secret.

    Attributes:
        row: Columns of the training data by name, one of them with `{}` in it.
        planted: What stood in its place.
        alphabet: What each of its letters was drawn from, uniformly.
        units: How many protected units held it.
    """

    row: dict[str, str]
    planted: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    alphabet: Annotated[str, msgspec.Meta(min_length=2, max_length=4096)]
    units: Annotated[int, msgspec.Meta(ge=1)] = 1

    def __post_init__(self) -> None:
        if sum(text.count(_PLACE) for text in self.row.values()) != 1:
            raise ValueError("row has no single place {} for the secret")
        if len(set(self.alphabet)) != len(self.alphabet):
            raise ValueError("alphabet has a letter twice")
        if not set(self.planted) <= set(self.alphabet):
            raise ValueError("planted has letters that are not in alphabet")

    def __repr__(self) -> str:
        return "Secret(<planted>)"

    def filled(self, text: str) -> dict[str, str]:
        """The row with a text in its place."""
        return {column: words.replace(_PLACE, text) for column, words in self.row.items()}


def read_secrets(path: Path) -> tuple[Secret, ...]:
    """The secrets of a file.

    Raises:
        ConfigError: It cannot be read, has none, or a line is something else.
    """
    try:
        lines = read_regular(path, most_bytes=MOST_SETTINGS).splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(msgspec.json.decode(line, type=Secret))
        except MALFORMED as error:
            # The error names a place and never a value; a secret is in none.
            raise ConfigError(f"{path}, line {number}: {error}") from None
    if not found:
        raise ConfigError(f"{path} has no secret")
    return tuple(found)


def expose(
    secrets: tuple[Secret, ...],
    model: nn.Module,
    task: Task,
    *,
    candidates: int,
    epsilon: float,
    delta: float,
    batch_size: int,
) -> tuple[ToldSecret, ...]:
    """Rank every planted secret among others of its form.

    Args:
        secrets: What was planted.
        model: The finished model.
        task: Its task.
        candidates: At most so many texts, the planted one among them.
        epsilon: Of a unit; infinite without noise.
        delta: Beside it.
        batch_size: How many at once.

    Raises:
        ConfigError: The task models no language.
        DataError: A row is not one of the task's data.
    """
    if secrets and not isinstance(task, CausalLM):
        raise ConfigError(
            f"--secrets is for a language model, and this run's task is {task.kind!r}",
            hint="Leave it out.",
        )
    found = []
    for number, secret in enumerate(secrets, start=1):
        texts = _candidates(secret, candidates)
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "candidates.jsonl"
            rows = (json.dumps(secret.filled(text)) for text in texts)
            path.write_text("\n".join(rows) + "\n", encoding="utf-8")
            data = task.load(path, unit="record")
        each = losses(model, task, data, batch_size=batch_size)
        bits = exposure(float(each[0]), each)
        found.append(
            ToldSecret(
                number=number,
                units=secret.units,
                candidates=len(texts),
                exposure=bits,
                by_chance=most_exposed(bits, epsilon=epsilon, delta=delta, units=secret.units),
            )
        )
    return tuple(found)


def _candidates(secret: Secret, most: int) -> list[str]:
    """The planted text, and others of its length and letters, none twice."""
    letters, length = sorted(secret.alphabet), len(secret.planted)
    space = len(letters) ** length
    # Public and the same each time: what is drawn here says nothing of what was planted.
    generator = np.random.default_rng(1802)
    others: dict[str, None] = {}
    while len(others) + 1 < min(most, space):
        drawn = generator.integers(0, len(letters), length)
        text = "".join(letters[index] for index in drawn)
        if text != secret.planted:
            others[text] = None
    return [secret.planted, *others]
