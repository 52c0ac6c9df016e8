"""Every command line that the README or an example tells a reader to type.

By default each is held against the command line's own parser, and those of the README that take
a table to a report are typed, on a tiny model. The slow suite types those of every example
(`test_examples.py`) and starts a federation across machines with the README's five. A line that is
neither typed nor listed here with a reason fails.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import test_examples
import transformers
import typer
from documented import (
    DOCUMENTS,
    ROOT,
    Command,
    Terminal,
    command_tree,
    read_blocks,
    read_commands,
)
from support import write_rows
from test_cli_walkthrough import EDITS, Shell, shell  # noqa: F401 - a fixture

from fmfl_secure.transports.https.ports import free_port

UsageError = typer.BadParameter.__base__  # Click's own, which Typer brings with it
README = ROOT / "README.md"
ALL = [command for document in DOCUMENTS for command in read_commands(document)]
OWN_FILES, ACROSS = "On your own files", "Across machines, in five commands"
# What no test types, and why; its target has to be in the Makefile.
MAKE = {
    "make demo": "installs packages first; what it does then is typed in the slow suite",
    "make test": "is this suite",
}
TYPED = {OWN_FILES, ACROSS}  # sections of the README whose every line a test below types


def identify(command: Command) -> str:
    return str(command)


def check_arguments(words: list[str]) -> None:
    """Hold a line against the parser: the command exists, and takes these arguments."""
    command: Any = command_tree()
    context, rest = None, list(words)
    while hasattr(command, "commands"):
        context = command.context_class(command, parent=context)
        _, command, rest = command.resolve_command(context, rest)
    command.make_context(words[0], rest, parent=context)


def examples_made() -> set[str]:
    """What examples/make.py can write."""
    tree = ast.parse((ROOT / "examples/make.py").read_text(encoding="utf-8"))
    tables = [
        ast.literal_eval(ast.List([*node.value.keys]))
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    assert tables
    return {name for table in tables for name in table}


def test_commands_are_found() -> None:
    """The reader of documents: both kinds of block, continuation lines, comments; no code."""
    lines = [command.line for command in read_commands(README)]
    assert lines[0].startswith("make demo")
    assert sum(line.startswith("fmfl-secure ") for line in lines) >= 19
    assert not any("import" in line for line in lines)
    found = {command.document.parent.name for command in ALL if command.document != README}
    assert found == set(test_examples.NAMES)
    (dealt,) = (c for c in ALL if "partition" in c.words and "medical_abstracts" in c.line)
    assert dealt.words[-2:] == ["--out", "examples/medical_abstracts/data"]


def test_a_command_that_does_not_exist_is_found_out() -> None:
    assert check_arguments(["report", "pilot/run"]) is None
    for wrong in (
        "fmfl-secure runn pilot/federation.toml --output run",
        "fmfl-secure run pilot/federation.toml --outputs run",
        "fmfl-secure run --output run",
        "fmfl-secure ledger shows x.sqlite",
        "fmfl-secure init pilot --sites four",
    ):
        with pytest.raises(UsageError):
            check_arguments(shlex.split(wrong)[1:])


@pytest.mark.parametrize("command", ALL, ids=identify)
def test_every_command_is_one_and_some_test_types_it(command: Command) -> None:
    program, *arguments = command.words
    match program:
        case "fmfl-secure":
            check_arguments(arguments)
        case "make":
            assert command.line.split("#")[0].strip() in MAKE, "type it in a test, or say why not"
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{re.escape(arguments[0])}:", makefile, re.MULTILINE)
        case "python":
            assert arguments[0] == "examples/make.py"
            assert arguments[1] in examples_made()
            assert arguments[3] == f"examples/{arguments[1]}"
        case "for" | "cat":
            for file in re.findall(r"cat (\S+)", command.line):
                assert (ROOT / file).is_file(), file
        case _:
            pytest.fail(f"{program} is no program that these tests know")
    if command.document == README and program != "make":
        assert command.section in TYPED, "a test below has to type what this section says"


def edited(federation: Path, model: Path, **more: str) -> None:
    """The settings as somebody leaves them who has said what to learn."""
    text = federation.read_text().replace('base = "minilm"', f'base = "{model}"')
    for before, after in (EDITS | more).items():
        assert before in text
        text = text.replace(before, after)
    federation.write_text(text)


def test_the_readmes_commands_take_a_table_to_a_report(
    shell: Shell,  # noqa: F811
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of "On your own files", as they are written and in their order."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "notes.csv", 220, seed=5, columns=("note", "category"))
    write_rows(tmp_path / "new.csv", 5, seed=6, columns=("note", "category"))
    texts = [line.split(",")[0] for line in (tmp_path / "new.csv").read_text().splitlines()[1:]]
    # As a spreadsheet writes it where the comma is a decimal sign.
    (tmp_path / "new.csv").write_text("id;note\n" + "".join(f"1;{text}\n" for text in texts))
    for command in read_commands(README):
        if command.section != OWN_FILES:
            continue
        assert shell(*command.words[1:]).code == 0, f"{command}\n{shell.out}\n{shell.err}"
        if "--sites" in command.words and command.words[1] == "init":
            edited(tmp_path / "pilot/federation.toml", tiny_model)
    for made in ("answers.jsonl", "pilot/model/README.md", "pilot.report", "pilot/run/report.html"):
        assert (tmp_path / made).exists(), made
    # The export answers as the run does, by what people use.
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    classify = transformers.pipeline("text-classification", "pilot/model", truncation=True)
    for text, expected in zip(texts, answers, strict=True):
        given = {one["label"]: one["score"] for one in classify(text, top_k=None)}
        assert given == pytest.approx(expected["probabilities"], abs=1e-5)
    # And the Python of that section and the one on the adapter, in the same folder.
    shutil.rmtree(tmp_path / "pilot/run")
    for n in range(1, 5):
        ledger = f"pilot/sites/site-{n}/ledger.sqlite"
        granted = ("--epsilon", 8, "--delta", 1e-5, "--purpose", "the same from Python")
        assert shell("ledger", "grant", ledger, *granted).code == 0
    namespace: dict[str, object] = {"base": str(tiny_model)}
    for block in read_blocks(README, "python"):
        exec(compile(block, str(README), "exec"), namespace)
    assert namespace["run"].report.is_file()  # type: ignore[attr-defined]
    assert "encoder" in namespace


STAND_IN = """\
# The name that the README's server has, as a name server would give it out.
import socket
_ask = socket.getaddrinfo
def getaddrinfo(host, port, *rest, **named):
    if host in ("fl.example.org", b"fl.example.org"):
        host, port = "127.0.0.1", {port}
    return _ask(host, port, *rest, **named)
socket.getaddrinfo = getaddrinfo
"""


@pytest.mark.slow
def test_the_readmes_five_commands_run_a_federation_across_machines(
    tmp_path: Path, tiny_model: Path
) -> None:
    """As written; only the name does not exist, and a free port stands for 8443."""
    port = free_port()
    terminal = Terminal(tmp_path, tmp_path / "programs")
    (tmp_path / "names").mkdir()
    (tmp_path / "names/sitecustomize.py").write_text(STAND_IN.format(port=port))
    terminal.environment["PYTHONPATH"] += f":{tmp_path / 'names'}"
    five = [command for command in read_commands(README) if command.section == ACROSS]
    assert [command.words[1] for command in five] == [
        "init", "provision", "serve", "decryptor", "join",
    ]  # fmt: skip
    init, provision, serve, decryptor, join = five

    terminal.type(init)
    # Between the first command and the second: what to learn, and figures on nothing held out.
    edited(tmp_path / "pilot/federation.toml", tiny_model, **{
        'data = "data/holdout.csv"': 'data = ""',
        'visibility = "public"   # must': 'visibility = "private"   # must',
    })  # fmt: skip
    terminal.type(provision)
    for n in range(1, 5):
        write_rows(
            tmp_path / f"kits/site-{n}/data/train.csv", 50, seed=n, columns=("note", "category")
        )
    settings = tmp_path / "kits/server/service.toml"
    text = settings.read_text()
    assert "port = 8443" in text
    settings.write_text(text.replace("port = 8443", f"port = {port}"))

    started = {"serve": terminal.start(serve, tmp_path / "serve.log")}
    try:
        started["decryptor"] = terminal.start(decryptor, tmp_path / "decryptor.log")
        for n in range(1, 5):  # "at every site, beside its data"
            line = join.line.replace("site-1", f"site-{n}")
            one = Command(join.document, join.section, line)
            started[f"site-{n}"] = terminal.start(one, tmp_path / f"site-{n}.log")
        code = started.pop("serve").wait(timeout=1500)
        logs = "\n".join(f"--- {p.name}\n{p.read_text()[-2000:]}" for p in tmp_path.glob("*.log"))
        assert code == 0, logs
        assert "report   run/report.html" in logs
        assert (tmp_path / "run/report.html").is_file()
        # They stay for the next run, until somebody stops them.
        assert all(process.poll() is None for process in started.values()), logs
        for process in started.values():
            process.send_signal(signal.SIGTERM)
        assert {process.wait(timeout=300) for process in started.values()} == {0}, logs
    finally:
        for process in started.values():
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.mark.slow
def test_the_demonstration_of_make_demo_runs(tmp_path: Path) -> None:
    """What `make demo` does once packages are there."""
    dry = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    program, *arguments = shlex.split(dry.strip().splitlines()[-1])
    assert program.endswith("/fmfl-secure")
    terminal = Terminal(tmp_path, tmp_path / "programs")
    terminal.type(Command(README, "Two commands", shlex.join(["fmfl-secure", *arguments])))
    assert (tmp_path / "demo/run/report.html").is_file()
