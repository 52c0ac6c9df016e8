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
    QUICK_START,
    ROOT,
    Command,
    Terminal,
    command_tree,
    read_blocks,
    read_commands,
)
from support import write_rows
from test_cli_walkthrough import EDITS, Shell, shell  # noqa: F401 - a fixture

from fmfl_secure.models import find_base_model
from fmfl_secure.transports.https.ports import free_port

UsageError = typer.BadParameter.__base__  # Click's own, which Typer brings with it
README = ROOT / "README.md"
PLAY = "examples/keynote/play.py"  # test_keynote.py runs it
KEYNOTE = "The whole of it, in one play"
ALL = [command for document in DOCUMENTS for command in read_commands(document)]
UPGRADE = read_commands(ROOT / "docs/upgrading.md")  # test_installed.py types most
OWN_FILES, ACROSS = "On your own files", "Across machines, in five commands"
# What no test types, and why; its target has to be in the Makefile.
MAKE = {
    "make demo": "installs packages first; what it does then is typed in the slow suite",
    "make test": "is this suite",
}
# Sections whose every line a test below types, by document.
TYPED = {
    README: {OWN_FILES, ACROSS, KEYNOTE},
    QUICK_START: {"On a table of your own", "Finding commands"},
}


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
    found = {command.document.parent.name for command in ALL if command.document not in TYPED}
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


def test_every_command_is_one_and_some_test_types_it() -> None:
    for command in (*ALL, *UPGRADE):
        require_typed(command)


def require_typed(command: Command) -> None:
    """It is a command, of a section that some test types."""
    program, *arguments = command.words
    match program:
        case "fmfl-secure" if arguments[0].startswith("--"):  # which the parser would do at once
            assert arguments[0] in {name for one in command_tree().params for name in one.opts}
        case "fmfl-secure":
            check_arguments(arguments)
        case "make":
            assert command.line.split("#")[0].strip() in MAKE, "type it in a test, or say why not"
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{re.escape(arguments[0])}:", makefile, re.MULTILINE)
        case "python" if arguments[0] == PLAY:
            assert (ROOT / PLAY).is_file()
            assert arguments[1] == "--out"
        case "python":
            assert arguments[0] == "examples/make.py"
            assert arguments[1] in examples_made()
            assert arguments[3] == f"examples/{arguments[1]}"
        case "for" | "cat":
            for file in re.findall(r"cat (\S+)", command.line):
                assert (ROOT / file).is_file(), file
        case ".":
            assert arguments == [".venv/bin/activate"], "what make leaves there"
        case _:
            pytest.fail(f"{program} is no program that these tests know")
    if command.document in TYPED and program not in {"make", "."}:
        assert command.section in TYPED[command.document], "a test below has to type this section"


def edited(federation: Path, model: Path, edits: dict[str, str]) -> None:
    """The settings with another base model, and other changes."""
    text = federation.read_text().replace('base = "minilm"', f'base = "{model}"')
    for before, after in edits.items():
        assert before in text, before
        text = text.replace(before, after)
    federation.write_text(text)


# What makes a run short: nothing of what the documents have people say.
SHORT = {"rounds = 40": "rounds = 1", "max_length = 128": "max_length = 16", "rank = 8": "rank = 2"}


def write_tables(folder: Path) -> list[str]:
    """The tables that the documents name; returns the texts of the one to answer for."""
    write_rows(folder / "notes.csv", 220, seed=5, columns=("note", "category"))
    write_rows(folder / "new.csv", 5, seed=6, columns=("note", "category"))
    texts = [line.split(",")[0] for line in (folder / "new.csv").read_text().splitlines()[1:]]
    # As a spreadsheet writes it where the comma is a decimal sign.
    (folder / "new.csv").write_text("id;note\n" + "".join(f"1;{text}\n" for text in texts))
    return texts


def typed_here(document: Path) -> list[Command]:
    """Lines of a document that take a table to a report, in their order."""
    section = OWN_FILES if document == README else "On a table of your own"
    return [
        command
        for command in read_commands(document)
        if command.section == section and command.words[0] == "fmfl-secure"
    ]


def type_line(shell: Shell, command: Command) -> None:  # noqa: F811
    """It ends well; one that goes on with a run that was cut off finds that it was not."""
    done = shell(*command.words[1:])
    said = f"{command}\n{done.out}\n{done.err}"
    if "--resume" in command.words:
        assert (done.code, "has ended; there is nothing to resume" in done.err) == (1, True), said
        assert "go on with" not in done.out, said
    else:
        assert done.code == 0, said


@pytest.mark.parametrize("document", [README, QUICK_START], ids=lambda path: path.stem)
def test_the_commands_of_a_document_take_a_table_to_a_report(
    shell: Shell,  # noqa: F811
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    document: Path,
) -> None:
    """All of them, as they are written and in their order, on a tiny model and for one round."""
    monkeypatch.chdir(tmp_path)
    texts = write_tables(tmp_path)
    for command in typed_here(document):
        type_line(shell, command)
        if "--sites" in command.words and command.words[1] == "init":
            edited(tmp_path / "pilot/federation.toml", tiny_model, SHORT)
    assert (tmp_path / "pilot/run/report.html").exists()
    if document == README:
        require_what_the_readme_makes(tmp_path, texts)
        run_python_of_the_readme(tmp_path, tiny_model, shell)
    assert document == README or not read_blocks(document, "python"), "some test runs them"


def require_what_the_readme_makes(folder: Path, texts: list[str]) -> None:
    for made in ("answers.jsonl", "pilot/model/README.md", "pilot.report"):
        assert (folder / made).exists(), made
    # The export answers as the run does, by what people use.
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    classify = transformers.pipeline("text-classification", "pilot/model", truncation=True)
    for text, expected in zip(texts, answers, strict=True):
        given = {one["label"]: one["score"] for one in classify(text, top_k=None)}
        assert given == pytest.approx(expected["probabilities"], abs=1e-5)


def run_python_of_the_readme(folder: Path, base: Path, shell: Shell) -> None:  # noqa: F811
    """Every Python block of it, in the folder that its commands left."""
    shutil.rmtree(folder / "pilot/run")
    for n in range(1, 5):
        ledger = f"pilot/sites/site-{n}/ledger.sqlite"
        granted = ("--epsilon", 3, "--delta", 1e-5, "--purpose", "the same from Python")
        assert shell("ledger", "grant", ledger, *granted).code == 0
    namespace: dict[str, object] = {"base": str(base)}
    for block in read_blocks(README, "python"):
        exec(compile(block, str(README), "exec"), namespace)
    assert namespace["run"].report.is_file()  # type: ignore[attr-defined]
    assert "encoder" in namespace


@pytest.mark.slow
@pytest.mark.parametrize("document", [README, QUICK_START], ids=lambda path: path.stem)
def test_the_commands_and_snippets_of_a_document_run_as_they_stand(
    shell: Shell,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    document: Path,
) -> None:
    """On the built-in model, with the settings as they come: nothing is edited on the way."""
    monkeypatch.chdir(tmp_path)
    texts = write_tables(tmp_path)
    for command in typed_here(document):
        type_line(shell, command)
    if document == README:
        require_what_the_readme_makes(tmp_path, texts)
        run_python_of_the_readme(tmp_path, find_base_model("minilm").path, shell)


def test_the_quick_start_completes_commands_in_a_shell_of_one_s_own(
    shell: Shell,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`--install-completion` writes to a start-up file, here to that of somebody with none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    finding = [c for c in read_commands(QUICK_START) if c.section == "Finding commands"]
    assert [c.words[1] for c in finding] == ["--install-completion"]
    assert shell(*finding[0].words[1:]).code == 0
    assert "fmfl-secure" in "".join(
        path.read_text() for path in tmp_path.rglob("*") if path.is_file()
    )


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
    on_figures = {'data = ""', 'visibility = "private"   # must'}
    edits = {before: after for before, after in EDITS.items() if before not in on_figures}
    edited(tmp_path / "pilot/federation.toml", tiny_model, edits)
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
