"""Every example's README, command by command, in a copy of its folder; and the notebook."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from documented import ROOT, Command, Terminal, read_commands

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))
ON_REAL_TEXT = ["medical_abstracts", "sst2"]
PLAYED = "keynote"  # by its own program, and test_keynote.py
GENERATED = [name for name in NAMES if name not in {*ON_REAL_TEXT, PLAYED}]
# The first metric's floor after the last round: what guessing gives, or the base model as it is.
# Of the pilots, whose READMEs state what to expect: well above the most frequent answer.
FLOORS = {
    "bank": ("accuracy", 0.60),
    "deidentification": ("entity_f1", 0.0),
    "digits": ("accuracy", 0.0),
    "hospital_network": ("accuracy", 0.45),
    "image_text": ("recall_at_1", 0.0),
    "image_text_classification": ("accuracy", 0.0),
    "instructions": ("token_accuracy", 0.0),
    "preferences": ("pair_accuracy", 0.6),
    "law_firm": ("accuracy", 0.60),
    "mailbox": ("micro_f1", 0.30),
    "radiology": ("accuracy", 0.70),
}
PILOTS = {"bank": "intent", "hospital_network": "category", "law_firm": "subject"}
PILOTS |= {"radiology": "label"}  # and the column that holds the answer
ON_PUBLISHED = {"law_firm": "gpt2", "radiology": "vit"}  # and what stands in for their models
# Those without a public row: their figures are what the sites answer.
ANSWERED = {"hospital_network"}
# What no test types, and why.
LEFT_OUT = {
    "compare": "hours; what it trains with is tested in test_compare.py",
}


def left_out(command: Command) -> bool:
    return command.words[0] == "fmfl-secure" and command.words[1] in LEFT_OUT


def test_there_is_an_example_for_every_task() -> None:
    from task_cases import TASKS

    from fmfl_secure.settings.federation import load_federation

    found = [load_federation(path) for path in EXAMPLES.glob("*/federation.toml")]
    assert {config.task.kind for config in found} == set(TASKS)
    assert all(config.steps_at_server for config in found)  # the better model for the same epsilon
    assert set(FLOORS) == set(GENERATED)


def copy_example(name: str, checkout: Path) -> Path:
    """What a clean clone has of an example; returns its folder."""
    folder = checkout / "examples"
    folder.mkdir(parents=True)
    for file in EXAMPLES.glob("*.py"):
        shutil.copy(file, folder)
    (folder / name).mkdir()
    for file in (EXAMPLES / name).glob("*.toml"):
        shutil.copy(file, folder / name)
    return folder / name


def run_commands(name: str, checkout: Path, *, stand_in: bool = False) -> Path:
    """Type a README's commands in a copy of the example; returns its folder."""
    folder = copy_example(name, checkout)
    terminal = Terminal(checkout, checkout.parent / "programs")
    for command in read_commands(EXAMPLES / name / "README.md"):
        made_small = stand_in and "examples/make.py" in command.line
        if not left_out(command):
            more = " --stand-in" if made_small else ""
            terminal.type(replace(command, line=command.line + more))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_REAL_TEXT)
def test_an_example_on_real_text_beats_the_majority(name: str, tmp_path: Path) -> None:
    shared = ROOT.parent / "shared"
    if not (shared / "data" / name).is_dir():
        pytest.skip(f"{name} is not beside the checkout")
    (tmp_path / "shared").symlink_to(shared)
    folder = run_commands(name, tmp_path / "checkout")
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    majority = {"sst2": 0.51, "medical_abstracts": 0.34}[name]
    assert metrics["rounds"][-1]["accuracy"] > majority + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATED)
def test_an_examples_commands_run_and_learn(name: str, tmp_path: Path) -> None:
    """A pilot on a published model runs on that where its package is installed."""
    has_learned(name, run_commands(name, tmp_path / "checkout"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ON_PUBLISHED))
def test_a_pilot_learns_on_its_stand_in_too(name: str, tmp_path: Path) -> None:
    folder = run_commands(name, tmp_path / "checkout", stand_in=True)
    assert (
        json.loads((folder / "model/config.json").read_text())["model_type"] == ON_PUBLISHED[name]
    )
    has_learned(name, folder)


def has_learned(name: str, folder: Path) -> None:
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    metric, floor = FLOORS[name]
    if name in ANSWERED:  # by the sites themselves, with noise
        before, after = (metrics["answers"][n]["figures"][metric][metric]["value"] for n in (0, -1))
    else:
        before, after = metrics["initial"][metric], metrics["rounds"][-1][metric]
        assert after > before
    print(name, metric, before, after)  # noqa: T201 - figures, shown by -rP
    assert after > floor, (before, after)
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert answers
    assert all("row" in answer for answer in answers)
    with (folder / "federation.toml").open("rb") as file:
        settings = tomllib.load(file)
    epsilon = settings["privacy"]["epsilon"]
    if name in ANSWERED:  # the same grant pays for what sites are asked
        epsilon += settings["evaluation"]["epsilon"]
    assert f"epsilon {epsilon:g}" in (folder / "exported" / "README.md").read_text()
    if name in PILOTS:
        asked = folder / "data" / ("new.csv" if name in ANSWERED else "holdout.csv")
        right, majority = against_majority(asked, PILOTS[name], answers)
        print(name, right, "most frequent answer", majority)  # noqa: T201
        assert right > majority + 0.15


def against_majority(holdout: Path, column: str, answers: list[dict]) -> tuple[float, float]:
    """Shares of right answers, and of rows with the most frequent one."""
    with holdout.open(encoding="utf-8", newline="") as file:
        truth = [row[column] for row in csv.DictReader(file)]
    given = [answer.get("label", answer.get("response")) for answer in answers]
    assert len(given) == len(truth)
    right = sum(one == other for one, other in zip(given, truth, strict=True))
    return right / len(truth), Counter(truth).most_common(1)[0][1] / len(truth)


def test_what_is_left_out_is_there() -> None:
    said = {command.words[1] for name in NAMES for command in read_commands(readme(name))}
    assert set(LEFT_OUT) <= said


def readme(name: str) -> Path:
    return EXAMPLES / name / "README.md"


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_what_its_readme_says(name: str) -> None:
    from fmfl_secure.settings.federation import load_federation

    config = load_federation(EXAMPLES / name / "federation.toml")
    for site in config.sites:
        assert config.privacy.delta <= 1 / (10 * site.population)
    text = readme(name).read_text(encoding="utf-8").replace("**", "")
    assert f"epsilon {config.privacy.epsilon:g}" in text
    if name in PILOTS:
        assert {"## Data", "## Commands", "## Expected"} <= set(text.splitlines())
        unit = config.task.unit
        assert f'`unit = "{unit}"`' in text or (unit == "record" and "Unit: one" in text)


def test_the_policies_of_the_banks_go_on_with_a_sites_file(tmp_path: Path) -> None:
    """As the README's `cat` does, and they say what it says."""
    from fmfl_secure import Federation
    from fmfl_secure.settings.federation import load_site

    folder = copy_example("bank", tmp_path)
    Federation(folder).initialise()
    terminal = Terminal(tmp_path, tmp_path / "programs")
    for command in read_commands(readme("bank")):
        if "cat " in command.line:
            terminal.type(command)
    limits = [
        load_site(folder / f"sites/site-{n}/site.toml").policy.max_epsilon_per_run
        for n in range(1, 6)
    ]
    assert limits == [2.0, 2.0, 2.0, 2.0, 1.0]


def cells() -> list[str]:
    """The notebook's code, as it is run from top to bottom."""
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(names) == len(set(names))
    for cell in notebook["cells"]:
        assert set(cell) >= {"id", "cell_type", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "clear its outputs"
            assert cell["execution_count"] is None
    found = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in found]


def test_the_notebook_is_clean_and_every_cell_is_python() -> None:
    sources = cells()
    assert len(sources) > 5
    for number, source in enumerate(sources):
        compile(source, f"cell {number}", "exec")


# The program that a notebook's kernel stands for: every cell in turn, in one namespace.
KERNEL = """\
import json, sys
import matplotlib
matplotlib.use("agg")
namespace = {"__name__": "__main__"}
for number, source in enumerate(json.load(sys.stdin)):
    exec(compile(source, f"cell {number}", "exec"), namespace)
print()
accuracy, right = namespace["metrics"]["accuracy"], namespace["audit"].verdict
print(json.dumps({"accuracy": accuracy, "verdict": right}))
"""


@pytest.mark.slow
def test_the_notebooks_cells_run_in_order(tmp_path: Path) -> None:
    copy_example("hospital_network", tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KERNEL],
        input=json.dumps(cells()),
        cwd=tmp_path / "examples",
        env=Terminal(tmp_path, tmp_path / "programs").environment
        | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path / 'examples'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)  # noqa: T201
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["accuracy"] > FLOORS["hospital_network"][1]
    assert found["verdict"] == "below-claim"
    assert "granted 3 at delta 1e-05 to each patient_id" in done.stdout
    assert (tmp_path / "examples/hospital_network/run-notebook/report.html").is_file()
