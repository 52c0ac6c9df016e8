"""What attacks on a finished adapter find with noise and without: the rows of docs/attacks.md.

Three sites of 16 made-up records each, whose labels nothing tells: to fit them is to remember them.
LoRA in MiniLM's last two layers is trained on them for 40 steps, with and without noise; who was in
is told among 120 others, with two reference models. Rows are appended to a
file of JSON lines, and a rerun skips those there:

    python benchmarks/attacks.py --output docs/results/attacks.jsonl
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmfl_secure.attacks.membership import Membership, tell_members
from fmfl_secure.comparison.simulate import simulate
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import load_federation

LABELS = list("abcdefgh")
WORDS = [
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "juniper",
    "kestrel", "lagoon", "maple", "nettle", "ocean", "pebble", "quartz", "raven", "spruce",
    "thistle", "umber", "violet", "willow", "yarrow",
]  # fmt: skip
DELTA = 1e-3
ADAPTER = 'kind = "lora"\nrank = 16\nalpha = 32\nlast_layers = 2'


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    lines = given.output.read_text().splitlines() if given.output.exists() else []
    done = {(row["epsilon"], row["seed"]) for row in map(json.loads, lines)}
    for seed in range(1, given.seeds + 1):
        for epsilon in (None, 1.0):
            if (epsilon, seed) not in done:
                row = measured(epsilon, seed)
                with given.output.open("a") as file:
                    file.write(json.dumps(row) + "\n")


def measured(epsilon: float | None, seed: int) -> dict[str, Any]:
    """One row."""
    began_s = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        told = told_of(Path(folder), epsilon, seed)
    return {
        "epsilon": epsilon,
        "delta": DELTA,
        "seed": seed,
        "members": told.members,
        "others": told.others,
        "attacks": {
            each.attack: {
                "auc": round(each.auc, 4),
                "low": round(each.low, 4),
                "found_at_10": round(each.true_positives[-1], 4),
                "flagged": each.flagged,
            }
            for each in told.membership
        },
        "cpu_s": round(time.process_time() - began_s, 1),
    }


def told_of(
    folder: Path,
    epsilon: float | None,
    seed: int,
    *,
    model: str = "minilm",
    adapter: str = ADAPTER,
    learning_rate: float = 0.003,
    rounds: int = 40,
    words: Sequence[str] = WORDS,
) -> Membership:
    """The membership of three sites' records in an adapter that was trained on them for long."""
    names = ("site-1", "site-2", "site-3")
    (folder / "federation.toml").write_text(
        f"""[federation]
name = "overfit"
rounds = {rounds}
[model]
base = "{model}"
max_length = 16
[task]
kind = "text-classification"
text_columns = ["text"]
label_column = "label"
labels = {json.dumps(LABELS)}
[adapter]
{adapter}
[privacy]
noise = "{"none" if epsilon is None else "local"}"
epsilon = {epsilon or 1.0}
delta = {DELTA}
sample_rate = 1.0
steps_per_round = 1
[training]
learning_rate = {learning_rate}
steps_at = "server"
physical_batch_size = 48
"""
        + "".join(f'[[sites]]\nname = "{name}"\npopulation = 16\n' for name in names)
    )
    config = load_federation(folder / "federation.toml")
    task = build_task(config, relative_to=folder)
    data = {
        name: task.load(
            random_rows(folder / f"{name}.csv", 16, 100 * seed + n, words), unit="record"
        )
        for n, name in enumerate(names)
    }
    like = task.load(random_rows(folder / "like.csv", 240, 100 * seed + 50, words), unit="record")
    trained = simulate(config, task, data).model.eval()
    return tell_members(
        config, task, trained, list(data.values()), like, references=2, confidence=0.95
    )


def random_rows(path: Path, rows: int, seed: int, words: Sequence[str]) -> Path:
    """Texts whose labels nothing tells."""
    generator = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            text = " ".join(str(word) for word in generator.choice(words, 8))
            writer.writerow([text, str(generator.choice(LABELS))])
    return path


if __name__ == "__main__":
    main()
