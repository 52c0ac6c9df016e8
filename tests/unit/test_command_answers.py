"""What commands answer to programs: one document, of its published form, failures too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs
import pytest
from answered import forms, read_answer
from documented import command_tree
from support import settings
from test_cli import COMMANDS, find

from aggregation import Identity
from fmfl_secure.cli.answers.base import Failure
from fmfl_secure.cli.schema import answers_schema
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.report.schema import schema_text
from privacy import Ledger, PoissonSampledGaussian

DOCS = Path(__file__).parents[2] / "docs"
# Services, which log, and whose state is asked of `health`; and a talk.
ANSWERS_NOTHING = {"serve", "decryptor", "custodian", "join", "flower host", "chat"}
EVERYWHERE = {"--quiet", "--verbose", "--log-level"}
Main = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_answers_programs_or_has_no_answer(command: tuple[str, ...]) -> None:
    options = {name for one in find(command).params for name in one.opts}
    assert options >= EVERYWHERE
    assert ("--json" in options) == (" ".join(command) not in ANSWERS_NOTHING)


def test_every_command_with_an_answer_has_a_form() -> None:
    assert set(forms()) == {" ".join(command) for command in COMMANDS}
    assert {name for name, types in forms().items() if not types} == ANSWERS_NOTHING


def test_what_is_published_is_what_the_code_says() -> None:
    published = (DOCS / "answers.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(answers_schema(forms())), (
        "fmfl-secure schema > docs/answers.schema.json"
    )
    jsonschema_rs.validator_for(json.loads(published))


def test_every_field_says_what_it_means() -> None:
    for name, definition in answers_schema(forms())["$defs"].items():
        for field, schema in definition.get("properties", {}).items():
            is_tag = len(schema.get("enum", ())) == 1  # what kind of line it is
            assert schema.get("description") or is_tag, f"{name}.{field}"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    (tmp_path / "federation.toml").write_text(settings(Path("none")))
    initialise(tmp_path, epsilon=None, delta=None, simulated=True)
    place = tmp_path / "sites/site-1/ledger.sqlite"
    opened = Ledger(place, signer=Identity.load(place.with_name("identity.pem")))
    opened.reserve(run="a", event=PoissonSampledGaussian(0.1, 5.0, 2), rounds=2, plan="p")
    opened.commit(run="a", round=1)
    return place


def test_commands_on_a_ledger_answer(main: Main, ledger: Path, tmp_path: Path) -> None:
    """Each as it would be typed, one after another, on the same ledger."""
    other = tmp_path / "sites/site-2/identity.pem"
    grant = ("--epsilon", 1, "--delta", "1e-5", "--purpose", "follow-up")
    reason = ("--reason", "because")
    officer = tmp_path / "officer.jsonl"
    typed: list[tuple[str, tuple[object, ...]]] = [
        ("ledger show", (ledger,)),
        ("ledger verify", (ledger,)),
        ("ledger grant", (ledger, *grant)),
        ("ledger afford", (ledger, "--sample-rate", 0.1)),
        ("ledger lower", (ledger, "--grant", 2, "--epsilon", 0.5, *reason)),
        ("ledger close", (ledger, "--grant", 2, *reason)),
        ("ledger admit", (ledger, other, "--name", "second")),
        ("ledger dismiss", (ledger, other, *reason)),
        ("ledger anchor", (ledger, "--output", officer)),
        ("ledger release", (ledger, "--run", "a", "--anchor", officer, *reason)),
        ("ledger export", (ledger,)),
        ("ledger export", (ledger, "--output", tmp_path / "export.csv", "--format", "csv")),
    ]
    found = {}
    for command, arguments in typed:
        code, printed, _ = main(*command.split(), *arguments, "--json")
        assert code == 0, command
        found[command] = read_answer(command, printed)
    assert found["ledger show"]["grants"][0]["spent"] > 0
    assert found["ledger show"]["runs"][0]["run"] == "a"
    assert found["ledger grant"]["granted"]["purpose"] == "follow-up"
    assert found["ledger lower"]["changed"]["epsilon"] == 0.5
    assert found["ledger close"]["changed"]["closed"] == "because"
    assert found["ledger dismiss"]["open_runs"] == []
    assert (found["ledger release"]["charged"], found["ledger release"]["returned"]) == (1, 1)


def test_commands_of_a_first_hour_answer(main: Main, tmp_path: Path) -> None:
    table, folder = tmp_path / "notes.csv", tmp_path / "pilot"
    table.write_text("text,label\n" + "".join(f"note {n},{'ab'[n % 2]}\n" for n in range(24)))
    typed: list[tuple[str, tuple[object, ...]]] = [
        ("init", (folder, "--sites", 3)),
        ("partition", (table, "--sites", 3, "--out", folder / "data")),
        ("techniques", ()),
        ("techniques", ("fedprox",)),
        ("report schema", ()),
        ("schema", ("ledger", "show")),
    ]
    for command, arguments in typed:
        code, printed, _ = main(*command.split(), *arguments, "--json")
        assert code == 0, command
        read_answer(command, printed)


def test_a_command_prints_the_form_of_another(main: Main) -> None:
    code, printed, _ = main("schema", "ledger", "verify")
    assert (code, json.loads(printed)) == (
        0,
        answers_schema({"ledger verify": forms()["ledger verify"]}),
    )
    code, printed, errors = main("schema", "serve")
    assert (code, printed) == (1, "")
    assert "no command 'serve' answers" in errors


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("plan", "no-such-folder/federation.toml"), 1, "configuration"),
        (("ledger", "show", "no-such-ledger"), 1, "ledger"),
        (("run",), 2, "usage"),
        (("no-such-command",), 2, "usage"),
        (("ledger", "show", "a", "--no-such-option"), 2, "usage"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_failure_is_one_document_too(
    main: Main,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended, printed, errors = main(*arguments, "--json")
    document = json.loads(printed)
    jsonschema_rs.validator_for(answers_schema({"-": (Failure,)})).validate(document)
    assert (ended, errors) == (code, "")
    assert (document["error"]["exit_code"], document["error"]["code"]) == (code, word)
    assert document["error"]["message"]
    assert document["error"]["hint"]


def test_a_fault_of_the_program_is_a_document_and_a_traceback(
    main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(name: str) -> None:
        raise ZeroDivisionError(name)

    monkeypatch.setattr("fmfl_secure.settings.techniques.technique_of", fails)
    code, printed, errors = main("techniques", "x", "--json")
    assert (code, json.loads(printed)["error"]["code"]) == (70, "bug")
    assert "Traceback" in errors


def test_an_answer_that_ends_in_another_code_is_printed(
    main: Main, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmfl_secure.doctor.machine import Finding

    fault = Finding("room", "fault", "none", "make some")
    monkeypatch.setattr("fmfl_secure.doctor.machine.examine", lambda _: iter([fault]))
    monkeypatch.setattr("fmfl_secure.doctor.federation.examine_federation", lambda _: iter([]))
    code, printed, _ = main("doctor", "--json")
    assert (code, read_answer("doctor", printed)["faults"]) == (1, 1)


def test_people_s_lines_leave_standard_output_alone(main: Main, tmp_path: Path) -> None:
    code, printed, errors = main("init", tmp_path / "a", "--sites", 3, "--json")
    assert code == 0
    assert "nothing is granted" in errors
    assert json.loads(printed)["new_settings"] is True
    assert "nothing is granted" in main("init", tmp_path / "b", "--sites", 3)[1], "as before"


def test_quiet_says_nothing_but_what_goes_wrong(main: Main, tmp_path: Path) -> None:
    assert main("init", tmp_path / "a", "--sites", 3, "--quiet") == (0, "", "")
    code, printed, errors = main("plan", tmp_path / "nowhere", "--quiet")
    assert (code, printed) == (1, "")
    assert "error: " in errors


@pytest.mark.parametrize(
    ("options", "level"),
    [((), None), (("-v",), 20), (("-vv",), 10), (("--log-level", "error"), 40), (("--quiet",), 40)],
    ids=str,
)
def test_a_level_of_logs_is_chosen(
    main: Main, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], level: int | None
) -> None:
    chosen = []
    monkeypatch.setattr(
        "fmfl_secure.cli._console.logging.basicConfig", lambda **given: chosen.append(given)
    )
    assert main("techniques", *options)[0] == 0
    assert [each["level"] for each in chosen] == ([] if level is None else [level])


def test_the_tree_that_is_walked_is_the_program_s() -> None:
    assert set(command_tree().commands) >= {"init", "ledger", "schema"}
