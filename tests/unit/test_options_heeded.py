"""No option is taken and passed over: what has no effect where it stands is refused, by its name.

Every option of these commands is here, with a command line in which it could change nothing, or
with the reason why there is none. A new option stands here or the walk below fails.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest
from documented import command_tree
from support import settings
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.cli._command import COMMON
from fmfl_secure.errors import ConfigError, ModelError

ALWAYS: Final = "it changes what the command does or writes, whatever else is said"
REQUIRED: Final = "the command does not go without it"
THERE = ("init", "FOLDER")
DATA = ("evaluate", "RUN", "--data", "x.csv")
SITES = ("evaluate", "RUN", "--sites")
ROUNDS = ("evaluate", "RUN", "--rounds", "due")
SUITE = ("evaluate", "RUN", "--suite", "x.toml")
RUN = ("run", "FOLDER", "--output", "out")
PUBLIC = ("compare", "FOLDER", "--only", "federated")
PREDICT = ("predict", "RUN", "--data", "x.csv", "--output", "y.csv")
ASK = ("ask", "FOLDER", "--what", "units", "--epsilon", "0.3")
LENGTHS = ("ask", "FOLDER", "--what", "lengths", "--epsilon", "0.3")
ANSWER = ("provision", "FOLDER", "--output", "RUN", "--requests", "RUN")
ANSWERED = ("choose", "RUN", "--answered", "RUN")
INIT_ONLY = (
    "--task", "--model", "--text-column", "--label-column", "--labels", "--image-column",
    "--tokens-column", "--tags-column", "--entities", "--prompt-column", "--response-column",
    "--chosen-column", "--rejected-column", "--unit", "--schema",
)  # fmt: skip

# By command and option: command lines that pass it over, or why there is none.
HEEDED: Final[dict[str, dict[str, str | list[tuple[str, ...]]]]] = {
    "init": {
        **{option: [(*THERE, option, "x")] for option in INIT_ONLY},
        "--sites": [(*THERE, "--sites", "9")],
        "--population": [(*THERE, "--population", "500")],
        "--table": [(*THERE, "--table", "t.csv", "--table-is", "public")],
        "--table-is": [(*THERE, "--table-is", "public"), ("init", "NEW", "--table-is", "public")],
        "--epsilon": [(*THERE, "--epsilon", "2")],
        "--delta": [(*THERE, "--delta", "1e-7")],
        "--delta-reason": [(*THERE, "--delta-reason", "made-up rows")],
        "--data": [(*THERE, "--data", "{site}.csv")],
        "--public": [(*THERE, "--public")],
        "--simulated": "it grants where nobody has, and says where there is nothing to grant",
        "--ask": "it says who may be asked, and asks for nothing",
    },
    "run": {
        "--output": REQUIRED,
        "--resume": ALWAYS,
        "--engine": ALWAYS,
        "--sites": [(*RUN, "--sites", "2")],
        "--workers": [(*RUN, "--workers", "2")],
        "--superlink": [(*RUN, "--superlink", "x")],
        "--track": [(*RUN, "--engine", "flower", "--superlink", "x", "--track", "tensorboard:x")],
    },
    "plan": {"--advice": ALWAYS},
    "ask": {
        "--what": REQUIRED,
        "--epsilon": REQUIRED,
        "--insider-epsilon": "it bounds the answer where noise is in shares, as in the settings",
        "--repeats": ALWAYS,
        "--lengths": [(*ASK, "--lengths", "16,32"), (*LENGTHS, "--lengths", ",")],
        "--again": [(*ASK, "--settings", "q.toml", "--again")],
        "--write": [
            (*ASK, "--settings", "q.toml", "--write"),
            (*LENGTHS, "--write"),
        ],
        "--write-lengths": [(*ASK, "--write-lengths")],
        "--write-weights": [(*ASK, "--write-weights")],
        "--round-to": [(*ASK, "--round-to", "5")],
        "--settings": ALWAYS,
        "--about": [(*ASK, "--about", "RUN")],
    },
    "provision": {
        "--output": REQUIRED,
        "--requests": ALWAYS,
        "--replace": [("provision", "FOLDER", "--output", "RUN", "--replace", "site-1")],
        "--server": [(*ANSWER, "--server", "https://h")],
        "--seal": [(*ANSWER, "--seal")],
        "--epsilon": [(*ANSWER, "--epsilon", "1")],
        "--delta": [(*ANSWER, "--delta", "1e-6")],
        "--delta-reason": [(*ANSWER, "--delta-reason", "x")],
        "--data": [(*ANSWER, "--data", "x.csv")],
    },
    "choose": {
        "--epsilon": [(*ANSWERED, "--epsilon", "1")],
        "--rounds": [(*ANSWERED, "--rounds", "1")],
        "--adapter": [(*ANSWERED, "--adapter", "x")],
        "--insider-epsilon": [(*ANSWERED, "--insider-epsilon", "1")],
        "--repeats": [(*ANSWERED, "--repeats", "1")],
        "--again": [(*ANSWERED, "--again")],
        "--settings": [(*ANSWERED, "--settings", "x.toml")],
        "--federation": [
            (*ANSWERED, "--federation", "x"),
            ("choose", "RUN", "--epsilon", "1", "--federation", "x"),
        ],
        "--answered": ALWAYS,
        "--output": ALWAYS,
    },
    "check": {"--contact-sheet": "refused where there are no pictures: `test_picture_check`"},
    "compare": {
        "--seeds": ALWAYS,
        "--epsilon": [(*PUBLIC, "--epsilon", "3")],
        "--adapter": ALWAYS,
        "--only": ALWAYS,
        "--partition": [("compare", "FOLDER", "--only", "pooled", "--partition", "dirichlet:1")],
        "--steps-per-round": [(*PUBLIC, "--steps-per-round", "2")],
        "--output": ALWAYS,
    },
    "evaluate": {
        "--data": [(*SITES, "--data", "x.csv"), (*SUITE, "--data", "x.csv")],
        "--suite": [(*SITES, "--suite", "x.toml"), (*ROUNDS, "--suite", "x.toml")],
        "--output": [(*way, "--output", "x.json") for way in (DATA, SITES, ROUNDS)],
        "--sites": ALWAYS,
        "--measures": [(*way, "--measures", "recall") for way in (DATA, ROUNDS, SUITE)],
        "--epsilon": [(*way, "--epsilon", "1") for way in (DATA, ROUNDS, SUITE)],
        "--insider-epsilon": [(*DATA, "--insider-epsilon", "1")],
        "--again": [(*way, "--again") for way in (DATA, ROUNDS, SUITE)],
        "--rounds": [(*SITES, "--rounds", "due")],
        "--round": [(*way, "--round", "1") for way in (SITES, ROUNDS, SUITE)]
        + [("evaluate", "RUN", "--round", "1")],
        "--curve": [(*way, "--curve") for way in (SITES, ROUNDS, SUITE)]
        + [(*ROUNDS, "--data", "x.csv", "--curve")],
        "--details": [(*way, "--details", "x") for way in (SITES, ROUNDS, SUITE)],
        "--base": [(*SITES, "--base", "x")],
        "--personal": [(*way, "--personal", "x") for way in (SITES, ROUNDS, SUITE)],
        "--max-left-out": [(*way, "--max-left-out", "0.5") for way in (SITES, ROUNDS, SUITE)],
    },
    "predict": {
        "--data": REQUIRED,
        "--output": REQUIRED,
        "--base": ALWAYS,
        "--personal": ALWAYS,
        "--temperature": "refused of what draws no tokens, where that is known: by the run's task",
        "--top-p": [(*PREDICT, "--top-p", "0.5")],
        "--stop": "as --temperature",
        "--seed": [(*PREDICT, "--seed", "3")],
    },
    "chat": {
        "--base": ALWAYS,
        "--temperature": ALWAYS,
        "--top-p": [("chat", "RUN", "--top-p", "0.5")],
        "--stop": ALWAYS,
        "--seed": [("chat", "RUN", "--seed", "3")],
    },
    "export": {
        "--output": REQUIRED,
        "--merged": ALWAYS,
        "--base": ALWAYS,
        "--personal": ALWAYS,
    },
    "attack": {
        "--public-like": REQUIRED,
        "--site": ALWAYS,
        "--secrets": ALWAYS,
        "--references": ALWAYS,
        "--confidence": ALWAYS,
        "--base": ALWAYS,
    },
    "audit": {
        "--canaries": ALWAYS,
        "--confidence": ALWAYS,
        "--against": ALWAYS,
        "--answers": [("audit", "FOLDER", "--answers")],
        "--base": [("audit", "FOLDER/federation.toml", "--base", "x")],
    },
}  # fmt: skip
CASES = [
    pytest.param(option, words, id=f"{command} {option} {number}")
    for command, options in HEEDED.items()
    for option, cases in options.items()
    if not isinstance(cases, str)
    for number, words in enumerate(cases)
]


@pytest.mark.parametrize("command", sorted(HEEDED))
def test_every_option_of_a_command_is_decided_on(command: str) -> None:
    parser = command_tree().commands[command]
    options = {
        next(word for word in each.opts if word.startswith("--"))
        for each in parser.params
        if each.param_type_name == "option" and each.name not in {*COMMON, "as_json", "help"}
    }
    assert set(HEEDED[command]) == options


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation's folder that has all of its parties."""
    folder = tmp_path_factory.mktemp("whole") / "pilot"
    folder.mkdir()
    (folder / "federation.toml").write_text(settings(Path("none"), sites=3))
    assert CliRunner().invoke(app, ["init", str(folder)]).exit_code == 0
    return folder


@pytest.mark.parametrize(("option", "words"), CASES)
def test_what_would_be_passed_over_is_refused_by_name(
    option: str, words: tuple[str, ...], whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "pilot")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    places = {"FOLDER": folder, "RUN": tmp_path / "run", "NEW": tmp_path / "new"}
    typed = [str(_placed(word, places)) for word in words]
    done = CliRunner().invoke(app, typed)
    assert done.exit_code == 1
    assert isinstance(done.exception, ConfigError | ModelError)
    said = f"{done.exception} {getattr(done.exception, 'hint', '')}"
    named = {option, option.removeprefix("--").replace("-", "_")}
    assert any(word in said for word in named), said
    kept = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    acts = {file for file in kept if file.name.startswith("acts.sqlite")}
    assert {f: t for f, t in kept.items() if f not in acts} == {
        f: t for f, t in before.items() if f not in acts
    }


def _placed(word: str, places: dict[str, Path]) -> str:
    first, slash, rest = word.partition("/")
    return f"{places[first]}{slash}{rest}" if first in places else word


@pytest.mark.parametrize("lengths", ["\u00b2", "16,\u0663"])
def test_figures_that_are_no_digits_are_refused_in_a_sentence(lengths: str, whole: Path) -> None:
    words = ["--what", "lengths", "--epsilon", "0.3", "--lengths", lengths]
    done = CliRunner().invoke(app, ["ask", str(whole), *words])
    assert isinstance(done.exception, ConfigError)
    assert "not a whole number" in str(done.exception)


def test_populations_are_rounded_to_one_at_least(whole: Path) -> None:
    words = ["--what", "units", "--epsilon", "0.3", "--write", "--round-to", "0"]
    assert CliRunner().invoke(app, ["ask", str(whole), *words]).exit_code == 2
