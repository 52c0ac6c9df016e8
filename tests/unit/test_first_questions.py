"""`init` asks on a terminal what only people can say; elsewhere options say it, and nothing waits.

The terminal is a pseudo-terminal: a program that types what a person would.
"""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fmfl_secure import cli
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.proposals import is_template, open_choices
from fmfl_secure.planning.proposed_choices import known_of_schema, known_of_table
from fmfl_secure.settings.choices import choices_of
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.task_templates import TASK_TEMPLATES
from privacy import Ledger

Main = Callable[..., tuple[int, str, str]]
Typed = Callable[[list[str], list[tuple[str, str]]], tuple[int, str]]
END = "\x04"  # Ctrl-D
TABLE = "patient_id,note,category\n" + "".join(
    f"p{n % 7},a note of some length {n},{('ear', 'eye', 'skin')[n % 3]}\n" for n in range(42)
)


@dataclass
class Typist:
    """Whoever sits at the other end of a pseudo-terminal, and what they see.

    Attributes:
        terminal: Their end, as a file descriptor.
        answers: Questions in order, each with what is typed once it stands there.
    """

    terminal: int
    answers: list[tuple[str, str]]
    shown: str = ""
    waits_for: str = ""

    def work(self) -> None:
        seen = 0
        for question, answer in self.answers:
            self.waits_for = question
            while self.waits_for not in self.shown[seen:]:
                if not self._read():
                    os.write(self.terminal, b"\x04" * 9)  # and the program ends
                    return
            seen = self.shown.index(self.waits_for, seen) + len(self.waits_for)
            os.write(self.terminal, answer.encode() + (b"" if answer == END else b"\n"))
        self.waits_for = ""
        while self._read():
            pass

    def _read(self) -> bool:
        ready, _, _ = select.select([self.terminal], [], [], 30)
        try:
            more = os.read(self.terminal, 65536) if ready else b""
        except OSError:  # the other end is closed
            more = b""
        self.shown += more.decode().replace("\r\n", "\n")
        return bool(more)


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Typed:
    """Types a command at a pseudo-terminal, and answers; returns exit code and what was shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(words: list[str], answers: list[tuple[str, str]]) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        typist = Typist(ours, answers)
        thread = threading.Thread(target=typist.work)
        with (
            monkeypatch.context() as patch,
            os.fdopen(theirs, closefd=False) as typed,
            os.fdopen(theirs, "w", buffering=1) as written,
        ):
            patch.setattr(sys, "stdin", typed)
            patch.setattr(sys, "stdout", written)
            patch.setattr(sys, "stderr", written)
            patch.setattr(sys, "argv", ["fmfl-secure", *words])
            thread.start()
            with pytest.raises(SystemExit) as ended:
                cli.main()
        thread.join()
        os.close(ours)
        assert not typist.waits_for, f"{typist.waits_for!r} was not asked: {typist.shown}"
        return int(ended.value.code or 0), typist.shown

    return call


def test_a_terminal_is_asked_and_the_answers_are_the_settings(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "public.csv").write_text(TABLE)
    code, shown = typed(
        ["init", "pilot"],
        [
            ("Number or name", "1"),
            ("Number or name", "other"),
            ("Number or name", "synthetic"),
            ("Its file", "public.csv"),
            ("How many sites", "5"),
            ("Column with the text [note]", ""),
            ("Column with the label [category]", ""),
            ("with commas [ear,eye,skin]", ""),
            ("Number or name [person]", ""),
            ("identifies a person [patient_id]", ""),
            ("declared and rounded", "many"),
            ("declared and rounded", "20000"),
            ("Epsilon", "3"),
        ],
    )
    assert code == 0, shown
    config = load_federation(tmp_path / "pilot/federation.toml")
    assert config.task.text_columns == ("note",)
    assert (config.task.label_column, config.task.unit) == ("category", "patient_id")
    assert config.task.labels == ("ear", "eye", "skin")
    assert [site.population for site in config.sites] == [20_000] * 5
    assert (config.privacy.epsilon, config.privacy.delta) == (3.0, 1e-6)
    assert "'other' is none of them" in shown
    assert "'many' is no whole number" in shown
    assert "privacy.delta = 1e-06: at most 1 / (10 x 20,000 units)" in shown
    assert "epsilon 8: " in shown
    assert "no meaningful bound" in shown
    assert "next 1. read pilot/federation.toml" in shown
    assert "fmfl-secure run pilot --output pilot/run-1" in shown
    assert max(map(len, shown.splitlines())) <= 80 or "identity key" in shown
    assert not is_template(tmp_path / "pilot/federation.toml")
    assert Ledger(tmp_path / "pilot/sites/site-1/ledger.sqlite").status() == []


def test_who_leaves_in_the_middle_has_made_nothing(typed: Typed, tmp_path: Path) -> None:
    code, shown = typed(["init", "pilot"], [("Number or name", "1"), ("name", END)])
    assert code == 1, shown
    assert "Traceback" not in shown
    assert not (tmp_path / "pilot").exists()


@pytest.mark.parametrize("word", ["--json", "--no-ask", "--quiet"])
def test_a_program_at_a_terminal_is_asked_nothing(typed: Typed, tmp_path: Path, word: str) -> None:
    code, shown = typed(["init", "pilot", word], [])
    assert code == 0, shown
    assert is_template(tmp_path / "pilot/federation.toml")


def test_options_say_it_without_a_terminal(main: Main, tmp_path: Path) -> None:
    said = ("--text-column", "note,text", "--label-column", "kind", "--labels", "b, a",
            "--unit", "person", "--population", 900, "--epsilon", 2)  # fmt: skip
    code, printed, _ = main("init", tmp_path / "pilot", "--sites", 3, *said, "--json")
    answer = json.loads(printed)
    assert (code, answer["left_open"]) == (0, [])
    assert answer["next"][0].startswith("read ")
    config = load_federation(tmp_path / "pilot/federation.toml")
    assert (config.task.text_columns, config.task.labels) == (("note", "text"), ("b", "a"))
    assert (config.task.unit, config.sites[2].population) == ("person", 900)
    assert (config.privacy.epsilon, config.privacy.delta) == (2.0, 1e-5)
    assert main("ledger", "grant", tmp_path / "pilot/sites/site-1", "--accept")[0] == 0
    (status,) = Ledger(tmp_path / "pilot/sites/site-1/ledger.sqlite").status()
    assert status.grant.epsilon == 2.0


def test_nothing_is_granted_before_all_is_chosen(main: Main, tmp_path: Path) -> None:
    """The reject arm: everything but epsilon was said, and the template's 8 is nobody's choice."""
    folder = tmp_path / "pilot"
    said = ("--text-column", "note", "--label-column", "kind", "--labels", "b,a",
            "--unit", "record", "--population", 50_000)  # fmt: skip
    _, printed, _ = main("init", folder, "--sites", 3, *said, "--simulated", "--json")
    answer = json.loads(printed)
    assert answer["left_open"] == ["privacy.epsilon"]
    assert answer["next"][0] == f"edit {folder}/federation.toml: privacy.epsilon"
    assert sum("is as init wrote it" in line for line in answer["made"]) == 3
    code, _, errors = main("ledger", "grant", folder / "sites/site-1", "--accept")
    assert (code, "is as init wrote it" in errors) == (1, True)
    file = folder / "federation.toml"
    file.write_text(file.read_text().replace("epsilon = 8.0", "epsilon = 4.0", 1))
    assert open_choices(file) == ()
    assert main("ledger", "grant", folder / "sites/site-1", "--accept")[0] == 0


@pytest.mark.parametrize("task", sorted(TASK_TEMPLATES))
def test_every_choice_of_every_task_has_an_option_and_a_place(
    main: Main, tmp_path: Path, task: str
) -> None:
    values = {"population": 321, "epsilon": 1.5, "labels": "x,y", "entities": "NAME,CITY"}
    words: list[object] = []
    for each in choices_of(task):
        words += [each.flag, values.get(each.option, f"my-{each.option}")]
    code, _, errors = main("init", tmp_path / "pilot", "--sites", 3, "--task", task, *words)
    assert code == 0, errors
    config = load_federation(tmp_path / "pilot/federation.toml")
    for each in choices_of(task):
        section, key = each.key.split(".")
        there = getattr(config.sites[0] if section == "sites" else getattr(config, section), key)
        meant = values.get(each.option, f"my-{each.option}")
        expected = each.read(meant) if isinstance(meant, str) else meant
        assert there == (tuple(expected) if isinstance(expected, list) else expected), each
    assert open_choices(tmp_path / "pilot/federation.toml") == ()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        pytest.param(("--entities", "NAME"), "--entities has no place", id="another-task-s"),
        pytest.param(("--table", "t.csv"), "only with --table-is", id="undeclared-table"),
        pytest.param(("--labels", "one"), "labels", id="one-label"),
        pytest.param(("--delta", "0.5"), "1 / (10", id="delta"),
        pytest.param(("--task", "regression"), "regression", id="task"),
    ],
)
def test_what_would_be_wrong_is_refused_before_anything_is_made(
    main: Main, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    words = tuple(str(tmp_path / word) if word == "t.csv" else word for word in words)
    code, _, errors = main("init", tmp_path / "pilot", *words)
    assert (code, complaint in errors) == (1, True), errors
    assert not (tmp_path / "pilot").exists()


def test_settings_that_exist_are_not_said_again(main: Main, tmp_path: Path) -> None:
    assert main("init", tmp_path / "pilot")[0] == 0
    code, _, errors = main("init", tmp_path / "pilot", "--labels", "a,b")
    assert (code, "says itself what --labels says" in errors) == (1, True)


def test_a_declared_table_proposes_and_says_so(main: Main, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    code, printed, _ = main(
        "init", tmp_path / "pilot", "--table", tmp_path / "t.csv", "--table-is", "public"
    )
    assert code == 0
    assert "task.label_column = category: proposed by t.csv, declared public" in printed
    config = load_federation(tmp_path / "pilot/federation.toml")
    assert (config.task.labels, config.task.unit) == (("ear", "eye", "skin"), "patient_id")
    assert open_choices(tmp_path / "pilot/federation.toml") == (
        "sites.population", "privacy.epsilon",
    )  # fmt: skip


def test_a_table_without_usual_names_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE.replace("note,category", "befund,fach"))
    known = known_of_table(tmp_path / "t.csv", "synthetic")
    text, label, labels, *_ = choices_of("text-classification")
    assert known.proposal(text, {}) == "befund"
    assert known.proposal(label, {}) == "fach"
    assert known.proposal(labels, {"task.label_column": "fach"}) == "ear,eye,skin"
    assert known.proposal(labels, {"task.label_column": "befund"}) is None, "texts are no labels"


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(
            {"properties": {"note": {"type": "string"}, "label": {"enum": ["b", "a"]}}},
            id="json-schema",
        ),
        pytest.param(
            {"fields": [{"name": "note"}, {"name": "label", "constraints": {"enum": ["b", "a"]}}]},
            id="table-schema",
        ),
    ],
)
def test_a_schema_proposes_labels_in_its_order(tmp_path: Path, schema: dict) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    known = known_of_schema(tmp_path / "schema.json")
    text, label, labels, *_ = choices_of("text-classification")
    assert (known.proposal(text, {}), known.proposal(label, {})) == ("note", "label")
    assert known.proposal(labels, {"task.label_column": "label"}) == "b,a"


@pytest.mark.parametrize("text", ["[]", "{}", '{"fields": [1]}', "{", '{"properties": 3}'])
def test_what_is_no_schema_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "schema.json").write_text(text)
    with pytest.raises(ConfigError, match="schema"):
        known_of_schema(tmp_path / "schema.json")
