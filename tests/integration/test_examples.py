"""Every example's README, command by command, in a copy of its folder."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = sorted(
    path.parent.name
    for path in (ROOT / "examples").glob("*/README.md")
    if "examples/make.py" in path.read_text(encoding="utf-8")
)
# The first metric's floor after the last round; what guessing gives, or the base model as it is.
FLOORS = {
    "deidentification": ("entity_f1", 0.0),
    "instructions": ("token_accuracy", 0.0),
    "digits": ("accuracy", 0.0),
    "image_text": ("recall_at_1", 0.0),
    "image_text_classification": ("accuracy", 0.0),
}


def commands(name: str) -> list[list[str]]:
    text = (ROOT / "examples" / name / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    (.*)$", text.replace("\\\n", ""), flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_there_is_an_example_for_every_task() -> None:
    from task_cases import TASKS

    from fmfl_secure.config import load_federation

    kinds = {
        load_federation(path).task.kind for path in (ROOT / "examples").glob("*/federation.toml")
    }
    assert kinds == set(TASKS)
    assert set(FLOORS) == set(GENERATED)


def run_commands(name: str, checkout: Path, *, left_out: tuple[str, ...] = ()) -> Path:
    """Run a README's commands in a copy of the example; returns its folder."""
    folder = checkout / "examples"
    folder.mkdir(parents=True)
    for file in (ROOT / "examples").glob("*.py"):
        shutil.copy(file, folder)
    (folder / name).mkdir()
    shutil.copy(ROOT / "examples" / name / "federation.toml", folder / name)
    programs = {
        "python": [sys.executable, "-W", "ignore"],
        "fmfl-secure": [sys.executable, "-c", "from fmfl_secure.cli import main; main()"],
    }
    for program, *arguments in commands(name):
        if arguments[0] in left_out:
            continue
        done = subprocess.run(
            [*programs[program], *arguments],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return folder / name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sst2", "medical_abstracts"])
def test_an_example_on_real_text_beats_the_majority(name: str, tmp_path: Path) -> None:
    shared = ROOT.parent / "shared"
    if not (shared / "data" / name).is_dir():
        pytest.skip(f"{name} is not beside the checkout")
    (tmp_path / "shared").symlink_to(shared)
    # The comparison takes hours; what it trains with is tested in test_compare.py.
    folder = run_commands(name, tmp_path / "checkout", left_out=("compare",))
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    majority = {"sst2": 0.51, "medical_abstracts": 0.34}[name]
    assert metrics["rounds"][-1]["accuracy"] > majority + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATED)
def test_an_examples_commands_run_and_learn(name: str, tmp_path: Path) -> None:
    folder = run_commands(name, tmp_path / "checkout").parent
    metrics = json.loads((folder / name / "run" / "metrics.json").read_text())
    metric, floor = FLOORS[name]
    before, after = metrics["initial"][metric], metrics["rounds"][-1][metric]
    assert after > floor, (before, after)
    assert after > before
    answers = (folder / name / "answers.jsonl").read_text().splitlines()
    assert answers
    assert all("row" in json.loads(line) for line in answers)
    assert "epsilon 8" in (folder / name / "exported" / "README.md").read_text()
