"""The command line: help, and errors that say what happened and what to do."""

from __future__ import annotations

import json
import shlex
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from documented import command_tree
from support import settings
from typer.testing import CliRunner

from aggregation import Identity, SqliteJournal
from fmfl_secure import __version__, cli
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.ledgers_at_hand import ledgers_at_hand
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.settings.federation import load_federation
from privacy import Ledger, PoissonSampledGaussian
from privacy.ledger.chain import new_record
from privacy.ledger.tables import insert
from privacy.storage import open_store

COMMANDS = [
    ("init",),
    ("partition",),
    ("doctor",),
    ("plan",),
    ("check",),
    ("run",),
    ("ask",),
    ("choose",),
    ("evaluate",),
    ("predict",),
    ("chat",),
    ("export",),
    ("model", "import"),
    ("report", "show"),
    ("report", "dataset"),
    ("report", "bundle"),
    ("report", "schema"),
    ("report", "verify"),
    ("report", "rehearsals"),
    ("dpia",),
    ("schema",),
    ("attack",),
    ("audit",),
    ("compare",),
    ("techniques",),
    ("ledger", "show"),
    ("ledger", "verify"),
    ("ledger", "grant"),
    ("ledger", "anchor"),
    ("ledger", "recover"),
    ("ledger", "release"),
    ("ledger", "lower"),
    ("ledger", "close"),
    ("ledger", "admit"),
    ("ledger", "dismiss"),
    ("ledger", "export"),
    ("ledger", "afford"),
    ("journal", "recover"),
    ("acts", "show"),
    ("acts", "verify"),
    ("acts", "export"),
    ("acts", "recover"),
    ("demo", "federation"),
    ("demo", "aggregation"),
    ("bench", "aggregation"),
    ("bench", "round"),
    ("bench", "training"),
    ("bench", "decoder"),
    ("bench", "large"),
    ("bench", "startup"),
    ("bench", "service"),
    ("bench", "flower"),
    ("flower", "host"),
    ("start-file",),
    ("provision",),
    ("unseal",),
    ("request",),
    ("accept",),
    ("ceremony", "show"),
    ("ceremony", "sign"),
    ("ceremony", "collect"),
    ("serve",),
    ("decryptor",),
    ("custodian",),
    ("join",),
    ("health",),
    ("stop",),
    ("certificates", "list"),
    ("certificates", "renew"),
    ("certificates", "revoke"),
    ("members", "show"),
    ("members", "remove"),
    ("members", "approve"),
]


def invoke(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def test_the_list_above_is_complete() -> None:
    found = set()
    group = command_tree()
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {(name, each) for each in inner} if inner else {(name,)}
    assert found == set(COMMANDS)


def find(command: tuple[str, ...]):
    """A command's object, by its words."""
    found = command_tree()
    for name in command:
        found = found.commands[name]
    return found


def test_every_command_has_an_example_that_can_be_typed() -> None:
    """It is the command's own, and its arguments and options are ones that the command takes."""
    for command in COMMANDS:
        one = find(command)
        example = " ".join(one.help.partition("Example: ")[2].split("\n\n")[0].split())
        words = shlex.split(example)
        assert words[: len(command) + 1] == ["fmfl-secure", *command]
        with one.make_context(command[-1], words[len(command) + 1 :]) as context:
            assert context.params.keys() >= {p.name for p in one.params if p.required}, command


def test_an_example_that_cannot_be_typed_would_be_seen() -> None:
    for words in (["--no-such-option"], [], ["a", "b"]):
        with pytest.raises(Exception, match=r"No such option|Missing parameter|unexpected extra"):
            find(("report", "show")).make_context("show", words)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("fmfl-secure le", {"ledger"}),
        ("fmfl-secure demo ", {"federation", "aggregation"}),
        ("fmfl-secure report dataset --an", {"--anchor"}),
    ],
)
def test_a_shell_completes_commands_and_options(typed: str, offered: set[str]) -> None:
    """What the script of `--install-completion` asks the program, and what it answers."""
    words = typed.split()
    place = len(words) if typed.endswith(" ") else len(words) - 1
    asked = {
        "_FMFL_SECURE_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(place),
    }
    answer = CliRunner().invoke(cli.app, [], prog_name="fmfl-secure", env=asked)
    assert set(answer.output.split()) == offered


def test_the_completion_script_is_of_this_program() -> None:
    for shell in ("bash", "zsh", "fish"):
        asked = {"_FMFL_SECURE_COMPLETE": f"source_{shell}"}
        shown = CliRunner().invoke(cli.app, [], prog_name="fmfl-secure", env=asked)
        assert f"_FMFL_SECURE_COMPLETE=complete_{shell}" in shown.output


def test_every_option_is_explained() -> None:
    for command in COMMANDS:
        for parameter in find(command).params:
            assert getattr(parameter, "help", None), (command, parameter.name)


def test_no_arguments_show_the_help() -> None:
    for command in ((), ("ledger",), ("demo",)):
        result = invoke(*command)
        assert "Usage:" in result.output


def test_help_needs_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['fmfl-secure', 'run', '--help']\n"
        "from fmfl_secure import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'opacus', 'tenseal', 'scipy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


def test_a_typed_error_is_printed_with_what_to_do_and_no_traceback(main, tmp_path: Path) -> None:
    code, output, errors = main("plan", tmp_path / "nowhere" / "federation.toml")
    assert code == 1
    assert output == ""
    assert errors.startswith("error: ")
    assert "does not exist" in errors
    assert "what to do: Start with: fmfl-secure init DIR" in errors
    assert "Traceback" not in errors


def test_debug_shows_the_traceback(main, tmp_path: Path) -> None:
    for arguments in (("--debug", "plan"), ("plan", "--debug")):
        code, _, told = main(*arguments, tmp_path / "federation.toml")
        assert code == 1
        assert "Traceback" in told
        assert "does not exist" in told


def test_as_a_program_debug_shows_the_traceback_and_nothing_else_does(tmp_path: Path) -> None:
    call = [sys.executable, "-c", "from fmfl_secure.cli import main; main()"]
    show = ["ledger", "show", str(tmp_path / "x")]
    for arguments in (show, ["--debug", *show], [*show, "--debug"]):
        run = subprocess.run([*call, *arguments], capture_output=True, text=True, check=False)
        assert run.returncode == 1
        for of_traceback in ("Traceback", "LedgerError"):
            assert (of_traceback in run.stderr) == ("--debug" in arguments)
        assert "no ledger at" in run.stderr


def test_ctrl_c_while_the_command_line_is_being_loaded_ends_it_without_a_traceback() -> None:
    program = """
import os, signal, sys

class Pressed:
    def find_spec(self, name, *rest):
        if name == "fmfl_secure.cli":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Pressed())
from fmfl_secure.__main__ import main
main()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert run.returncode == -signal.SIGINT
    assert run.stderr == run.stdout == b""


def test_errors_of_every_package_are_printed(main, tmp_path: Path) -> None:
    assert "no ledger at" in main("ledger", "verify", tmp_path / "x")[2]  # privacy
    key = tmp_path / "identity.pem"
    grant = ("--epsilon", 1, "--delta", "1e-5", "--purpose", "x")
    assert "cannot read the key" in main("ledger", "grant", tmp_path / "x", *grant)[2]
    key.write_text("junk")
    key.chmod(0o600)
    code, _, errors = main("ledger", "grant", tmp_path / "x", *grant)  # aggregation
    assert code == 1
    assert "holds no private key" in errors


@pytest.mark.parametrize("text", ["[minilm] and [/red]", "a [bold]word[/bold]", "[link=x]y"])
def test_brackets_are_printed_and_not_taken_for_markup(
    main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    def refuse(*args, **kwargs):
        raise ConfigError(f"message {text}", hint=f"hint {text}")

    monkeypatch.setattr("fmfl_secure.settings.federation.load_federation", refuse)
    code, _, errors = main("plan", tmp_path)
    assert code == 1
    assert f"error: message {text}" in errors
    assert f"what to do: hint {text}" in errors


def test_wrong_usage_is_told_from_failure(main) -> None:
    code, _, errors = main("run")
    assert code == 2
    assert "Usage" in errors


def test_init_makes_a_federation_and_leaves_it_alone(tmp_path: Path) -> None:
    folder = tmp_path / "My Pilot (2)"
    first = invoke("init", folder, "--sites", 3)
    assert first.exit_code == 0
    assert f"wrote {folder / 'federation.toml'}: set the task" in first.output
    assert first.output.count("identity key of") == 6
    text = (folder / "federation.toml").read_text()
    assert 'name = "my-pilot-2"' in text
    second = invoke("init", folder)
    assert second.exit_code == 0
    assert second.output == f"nothing was made: {folder} has all of its parties\n"
    assert (folder / "federation.toml").read_text() == text


def test_init_ends_with_what_to_do_next_and_each_can_be_typed(tmp_path: Path, main) -> None:
    _, printed, _ = main("init", tmp_path / "pilot", "--sites", 3, "--json")
    lines = json.loads(printed)["next"]
    commands = [line.partition("fmfl-secure ")[2] for line in lines if "fmfl-secure " in line]
    assert [each.split()[0] for each in commands] == ["partition", "plan", "ledger", "check", "run"]
    for each in commands:
        words = each.replace("--sites N", "--sites 3").split()
        names = words[:2] if words[0] == "ledger" else words[:1]
        with find(tuple(names)).make_context(names[-1], words[len(names) :]):
            pass
    _, again, _ = main("init", tmp_path / "pilot", "--json")
    assert json.loads(again)["next"] == []


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Żółw", "w"), ("北京", "federation"), ("a" * 80, "a" * 63), ("x_y.z", "x-y-z")],
)
def test_init_makes_an_allowed_name_of_any_folders(tmp_path: Path, folder: str, name: str) -> None:
    assert invoke("init", tmp_path / folder, "--sites", 3).exit_code == 0
    assert f'name = "{name}"' in (tmp_path / folder / "federation.toml").read_text()


def test_init_grants_nothing_and_refuses_too_few_sites(tmp_path: Path) -> None:
    assert invoke("init", tmp_path / "a", "--sites", 2).exit_code == 2
    assert not (tmp_path / "a").exists()
    made = invoke("init", tmp_path / "b", "--sites", 3, "--epsilon", 2.5, "--delta", 1e-7)
    assert "nothing is granted" in made.output
    assert Ledger(tmp_path / "b/sites/site-1/ledger.sqlite").status() == []


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    (tmp_path / "federation.toml").write_text(settings(Path("none")))
    initialise(tmp_path, epsilon=None, delta=None, simulated=True)
    return tmp_path / "sites/site-1/ledger.sqlite"


def damage(path: Path, sequence: int) -> None:
    """Changes one letter of a record's line, past the trigger that honest tools heed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER records_are_not_edited")
        connection.execute(
            "UPDATE records SET line = replace(line, 'made for the', 'made For the') "
            "WHERE sequence = ?",
            (sequence,),
        )


def test_a_ledger_verifies_and_shows_its_head_on_one_line(main, ledger: Path) -> None:
    code, output, errors = main("ledger", "verify", ledger)
    assert (code, errors) == (0, "")
    sequence, digest = Ledger(ledger).head()
    whose, line = output.splitlines()
    assert line == f"{ledger} verifies: 2 records, head {sequence}:{digest}"
    opener = Identity.load(ledger.parent / "identity.pem").public.fingerprint
    assert whose == f"population 'site-1', opened by {opener}"
    assert main("ledger", "verify", ledger, "--head", f"{sequence}:{digest}")[0] == 0


def test_a_damaged_ledger_fails_to_verify(main, ledger: Path) -> None:
    damage(ledger, 2)
    for command in ("verify", "show"):
        code, output, errors = main("ledger", command, ledger)
        assert code == 3
        assert output == ""
        assert "record 2 was altered" in errors
    ledger.write_bytes(b"junk" * 1000)
    assert main("ledger", "verify", ledger)[0] == 3


def test_a_head_kept_elsewhere_detects_truncation(main, ledger: Path) -> None:
    grant = ("--epsilon", 1, "--delta", "1e-5", "--purpose", "follow-up [phase 2]")
    assert main("ledger", "grant", ledger, *grant)[0] == 0
    sequence, digest = Ledger(ledger).head()
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER records_are_not_deleted")
        connection.execute("DELETE FROM records WHERE sequence = 3")
    assert main("ledger", "verify", ledger)[0] == 0, "the chain alone cannot tell"
    code, output, errors = main("ledger", "verify", ledger, "--head", f"{sequence}:{digest}")
    assert (code, output) == (3, "")
    assert "truncated" in errors
    assert main("ledger", "verify", ledger, "--head", "rubbish")[0] == 1


def test_a_grant_adds_up_and_is_shown_as_it_was_written(main, ledger: Path) -> None:
    grant = ("--epsilon", 1.5, "--delta", "1e-6", "--purpose", "phase [2]")
    code, output, _ = main("ledger", "grant", ledger, *grant)
    assert (code, output) == (0, "grant 2: epsilon 1.5 at delta 1e-06\n")
    assert [s.grant.epsilon for s in Ledger(ledger).status()] == [8.0, 1.5]
    code, output, _ = main("ledger", "show", ledger)
    assert code == 0
    assert "population 'site-1', unit 'record'" in output
    assert "[2]" in output
    for value in ("0", "-1", "nan"):
        assert main("ledger", "grant", ledger, "--epsilon", value, *grant[2:])[0] == 1
    assert len(Ledger(ledger).budget().grants) == 2


def test_a_grant_above_the_bound_needs_a_reason_which_is_shown(main, ledger: Path) -> None:
    grant = ("--epsilon", 1, "--purpose", "phase 2", "--delta", "2.495e-3")
    code, output, errors = main("ledger", "grant", ledger, *grant)
    assert (code, output) == (1, "")
    assert "above 1 / (10 x 40 declared units) = 0.0025, and no reason is recorded" in errors
    assert "--delta-reason" in errors
    for value in ("0.5", "0.9"):  # and a smaller population does not make it less
        more = ("--population-size", 1)
        assert main("ledger", "grant", ledger, *grant[:-1], value, *more)[0] == 1
    code, output, _ = main("ledger", "grant", ledger, *grant, "--delta-reason", "nobody [yet]")
    assert code == 0
    assert output == (
        "grant 2: epsilon 1 at delta 0.002495\ngrant 2, why its delta: nobody [yet]\n"
    )
    shown = main("ledger", "show", ledger)[1]
    assert "40 units declared" in shown
    assert "grant 2, why its delta: nobody [yet]" in shown
    assert "nobody [yet]" in main("ledger", "export", ledger)[1]


def test_what_does_not_stand_is_shown_and_affords_nothing(main, ledger: Path) -> None:
    """A grant of delta 0.9 that somebody with the site's key signed past this program."""
    signer = Identity.load(ledger.parent / "identity.pem")
    body = {
        "grant": 2, "epsilon": (1.0).hex(), "delta": (0.9).hex(), "orders": [6, 7], "purpose": "",
    }  # fmt: skip
    previous = Ledger(ledger).records()[-1]
    record = new_record(previous=previous, kind="grant", body=body, signer=signer)
    with open_store(ledger).write() as transaction:
        insert(transaction, record)
    assert main("ledger", "verify", ledger)[0] == 0
    shown = main("ledger", "show", ledger)[1]
    assert "grant 2 affords nothing: the deltas of the grants up to it add up to 0.9" in shown
    afford = main("ledger", "afford", ledger, "--sample-rate", "0.25")[1]
    assert "it affords nothing: the deltas" in afford
    assert "at delta 1e-05" in afford


def test_an_old_ledger_says_that_no_size_was_declared(main, tmp_path: Path) -> None:
    identity = Identity.generate("site")
    identity.save(tmp_path / "identity.pem")
    place = tmp_path / "ledger.sqlite"
    Ledger.create(
        place, population="p", unit="record", signer=identity, public_key=identity.public.key
    )
    assert "population size not declared" in main("ledger", "show", place)[1]
    grant = ("--epsilon", 1, "--delta", "1e-5", "--purpose", "x")
    code, _, errors = main("ledger", "grant", place, *grant)
    assert code == 1
    assert "--population-size" in errors
    assert main("ledger", "grant", place, *grant, "--population-size", 1000)[0] == 0
    assert "1,000 units declared" in main("ledger", "show", place)[1]


def test_init_takes_a_reason_that_the_first_grant_declares(main, tmp_path: Path) -> None:
    folder = tmp_path / "pilot"
    assert main("init", folder, "--sites", 3, "--delta", 0.5)[0] == 1
    assert not (folder / "sites").exists()
    asked = ("--delta", 0.5, "--delta-reason", "made-up rows")
    assert main("init", folder, "--sites", 3, *asked)[0] == 0
    file = folder / "federation.toml"
    file.write_text(file.read_text().replace("rounds = 40", "rounds = 39"))
    code, output, _ = main("ledger", "grant", folder / "sites/site-2", "--accept")
    assert (code, "why its delta: made-up rows" in output) == (0, True)
    budget = Ledger(folder / "sites/site-2/ledger.sqlite").budget()
    (granted,) = budget.grants
    assert (granted.population_size, granted.delta_reason) == (500, "made-up rows")


@pytest.mark.parametrize("delta", ["0.9", "0", "1", "nan", "3e-3"])
def test_what_can_be_afforded_is_asked_at_a_delta_of_use(main, ledger: Path, delta: str) -> None:
    asked = ("--sample-rate", "0.25", "--delta", delta)
    code, _, errors = main("ledger", "afford", ledger, *asked)
    assert code == 1
    assert "delta is" in errors


def test_a_stranger_cannot_grant(main, ledger: Path) -> None:
    other = ledger.parents[1] / "site-2/identity.pem"
    grant = ("--epsilon", 1, "--delta", "1e-5", "--purpose", "x", "--identity", other)
    assert main("ledger", "grant", ledger, *grant)[0] == 1
    assert len(Ledger(ledger).budget().grants) == 1


def test_a_grant_is_lowered_and_closed(main, ledger: Path) -> None:
    lower = ("ledger", "lower", ledger, "--grant", 1, "--reason", "smaller")
    code, output, _ = main(*lower, "--epsilon", 2)
    assert code == 0
    assert "grant 1: epsilon 2, 2.0000 of it is left" in output
    assert "can only be lowered" in main(*lower, "--epsilon", 5)[2]
    opened = Ledger(ledger, signer=Identity.load(ledger.with_name("identity.pem")))
    opened.reserve(run="a", event=PoissonSampledGaussian(0.1, 5.0, 2), rounds=1, plan="p")
    opened.commit(run="a", round=1)
    code, output, _ = main(*lower, "--epsilon", 1.9)
    assert (code, "the ledger's guarantee still counts 2" in output) == (0, True)
    code, output, _ = main("ledger", "close", ledger, "--grant", 1, "--reason", "over [1]")
    assert (code, "grant 1 is closed" in output) == (0, True)
    output = main("ledger", "show", ledger)[1]
    assert "grant 1 is closed: over [1]" in output
    assert "grant 1 was lowered from 2 after trainings" in output


def test_a_sites_folder_stands_for_its_ledger_in_every_command(main, ledger: Path) -> None:
    """With the key that is in it; and a folder that is no site's is named as such."""
    site = ledger.parent
    for words in (
        ("show",),
        ("verify",),
        ("grant", "--epsilon", 1, "--delta", "1e-5", "--purpose", "more"),
        ("lower", "--grant", 2, "--epsilon", 0.5, "--reason", "smaller"),
        ("close", "--grant", 2, "--reason", "over"),
        ("export",),
    ):
        name, *more = words
        code, _, errors = main("ledger", name, site, *more)
        assert code == 0, (name, errors)
    assert [grant.number for grant in Ledger(ledger).budget().grants] == [1, 2]
    code, _, errors = main("ledger", "show", site.parent)
    assert (code, "site.toml" in errors) == (1, True)


def test_another_identity_is_admitted_and_dismissed(main, ledger: Path) -> None:
    other = ledger.parents[1] / "site-2/identity.pem"
    admit = ("ledger", "admit", ledger, "--name", "second federation")
    code, output, _ = main(*admit, other)
    public = Identity.load(other).public
    assert (code, public.fingerprint in output) == (0, True)
    assert "may sign in this ledger already" in main(*admit, public.text)[2]
    assert "second federation" in main("ledger", "show", ledger)[1]
    opened = Ledger(ledger, signer=Identity.load(other))
    opened.reserve(run="a", event=PoissonSampledGaussian(0.1, 5.0, 2), rounds=1, plan="p")
    stranger = ("ledger", "admit", ledger, "ed25519:AAAA", "--name", "no key")
    assert main(*stranger)[0] == 1
    dismiss = ("ledger", "dismiss", ledger, public.text, "--reason", "over")
    code, output, _ = main(*dismiss)
    assert (code, "run a still holds budget" in output) == (0, True)
    assert main(*dismiss)[0] == 1
    assert main("ledger", "verify", ledger)[0] == 0


def test_an_owner_closes_a_run_and_is_told_what_that_means(
    main, ledger: Path, tmp_path: Path
) -> None:
    opened = Ledger(ledger, signer=Identity.load(ledger.with_name("identity.pem")))
    opened.reserve(run="a", event=PoissonSampledGaussian(0.1, 2.0, 4), rounds=3, plan="p")
    opened.commit(run="a", round=1)
    assert "open until" in main("ledger", "show", ledger)[1]
    officer = tmp_path / "officer"
    release = ("ledger", "release", ledger, "--run", "a", "--reason", "unknown [1]")
    assert main(*release)[0] == 2, "without heads that others kept"
    assert main(*release, "--anchor", officer)[0] == 1
    assert main("ledger", "anchor", ledger, "--output", officer)[0] == 0
    code, output, _ = main(*release, "--anchor", officer)
    assert code == 0
    assert "1 trainings stay charged, 2 come back" in output
    assert "the latest anchor was of record 4 of 4" in output
    assert Ledger(ledger).budget().reservations["a"].released == "unknown [1]"
    assert "closed:" in main("ledger", "show", ledger)[1]
    assert "is closed (unknown [1])" in main(*release, "--anchor", officer)[2]


@pytest.fixture
def kept(main, ledger: Path, tmp_path: Path) -> Path:
    """A ledger with a later record, which an officer's anchor knows of, and which is then lost."""
    grant = ("--epsilon", 1, "--delta", "1e-5", "--purpose", "follow-up")
    assert main("ledger", "grant", ledger, *grant)[0] == 0
    officer = tmp_path / "officer"
    assert main("ledger", "anchor", ledger, "--output", officer)[0] == 0
    assert main("ledger", "verify", ledger, "--anchor", officer)[0] == 0
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER records_are_not_deleted")
        connection.execute("DELETE FROM records WHERE sequence = 3")
    return officer


def test_an_officer_s_anchor_detects_truncation_and_is_recovered(
    main, ledger: Path, kept: Path
) -> None:
    code, output, errors = main("ledger", "verify", ledger, "--anchor", kept)
    assert (code, output) == (3, "")
    assert "truncated or rolled back" in errors
    assert "fmfl-secure ledger recover" in errors
    recover = ("ledger", "recover", ledger, "--anchor", kept, "--reason", "only a grant [1]")
    assert main(*recover)[0] == 1  # it must be said what to charge
    assert "in one way" in main(*recover, "--nothing", "--everything")[2]
    assert "go together" in main(*recover, "--rounds", 3)[2]
    figures = ("--steps", 4, "--sample-rate", 0.1, "--noise-multiplier", 2.0)
    code, output, _ = main(*recover, "--rounds", 3, *figures)
    assert code == 0
    assert "settled 1 lost heads" in output
    assert "grant 1: 3 x 4 steps at rate 0.1, noise 2.0000" in output
    (charge,) = Ledger(ledger).budget().recoveries[0].charges
    assert (charge.event, charge.rounds) == (PoissonSampledGaussian(0.1, 2.0, 4), 3)
    assert main("ledger", "verify", ledger, "--anchor", kept)[0] == 0
    assert "needs the heads" in main(*recover, "--nothing")[2]  # nothing is lost any more
    code, output, _ = main("ledger", "show", ledger)
    assert "for a lost history (only a grant [1]): 3 x 4 steps" in output


def test_everything_may_be_charged(main, ledger: Path, kept: Path) -> None:
    head = kept.read_text().split('"digest":"')[1][:64]
    recover = ("ledger", "recover", ledger, "--reason", "unknown", "--everything")
    code, output, _ = main(*recover, "--anchor", f"3:{head}")
    assert code == 0
    assert "grant 1: 1 x a cost without bound" in output
    assert "grant 1: 0 of epsilon is left" in output
    code, output, _ = main("ledger", "show", ledger)
    assert code == 0
    assert "no bound" in output


def test_another_site_s_ledger_is_not_told_of_as_this_one_s(
    main, ledger: Path, tmp_path: Path
) -> None:
    other = ledger.parents[1] / "site-2/ledger.sqlite"
    ledger.write_bytes(other.read_bytes())
    assert "population 'site-2', opened by" in main("ledger", "verify", ledger)[1]
    told = "site-1: the ledger is of population 'site-2', site.toml says 'site-1'"
    code, _, errors = main("report", "dataset", ledger.parent, "--output", tmp_path / "told")
    assert (code, told in errors) == (1, True)
    federation = ledger.parents[2] / "federation.toml"
    with pytest.raises(ConfigError, match="the ledger is of population 'site-2'"):  # as in a plan
        ledgers_at_hand(federation.parent, load_federation(federation))
    assert not (tmp_path / "told").exists()


def test_anchors_of_other_ledgers_prove_nothing(main, ledger: Path, tmp_path: Path) -> None:
    other = ledger.parents[1] / "site-2/ledger.sqlite"
    assert main("ledger", "anchor", other, "--output", tmp_path / "a")[0] == 0
    code, _, errors = main("ledger", "verify", ledger, "--anchor", tmp_path / "a")
    assert code == 1
    assert "none of the anchors is of this ledger" in errors
    code, _, errors = main("ledger", "anchor", other, "--output", tmp_path / "no/such")
    assert code == 1
    assert "cannot write the anchor" in errors


def test_an_export_is_verified_without_the_ledger(main, ledger: Path, tmp_path: Path) -> None:
    exported, table = tmp_path / "out" / "ledger.json", tmp_path / "charges.csv"
    assert main("ledger", "export", ledger, "--output", exported)[0] == 0
    assert main("ledger", "export", ledger, "--output", table, "--format", "csv")[0] == 0
    assert table.read_text().startswith("sequence,at,kind,run,purpose,round,grant,")
    code, printed, _ = main("ledger", "export", ledger)
    assert code == 0
    assert json.loads(printed)["records"] == json.loads(exported.read_text())["records"]
    head = "{}:{}".format(*Ledger(ledger).head())
    ledger.unlink()
    code, output, _ = main("ledger", "verify", exported, "--head", head)
    assert (code, output.splitlines()[-1]) == (0, f"{exported} verifies: 2 records, head {head}")
    exported.write_text(exported.read_text().replace("8.0", "9.0"))
    code, output, errors = main("ledger", "verify", exported)
    assert (code, output) == (3, "")
    assert "other than its records add up to" in errors
    assert "cannot read" in main("ledger", "verify", tmp_path / "none.json")[2]


def test_commands_on_what_is_no_run_say_so(main, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\na,b\n")
    for command in (("report",), ("evaluate", "--data", tmp_path / "x.csv")):
        code, _, errors = main(command[0], tmp_path, *command[1:])
        assert code == 1
        assert "no run in" in errors


def test_check_refuses_a_site_that_is_not_listed(main, ledger: Path) -> None:
    folder = ledger.parents[2]
    code, _, errors = main("check", folder / "federation.toml", "site-9")
    assert code == 1
    assert "site-9 is not among the sites" in errors


def test_partition_refuses_a_rule_that_is_none(main, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,who\n" + "".join(f"a,P{n}\nb,p{n}\n" for n in range(6)))
    out = tmp_path / "out"
    split = ("partition", file, "--sites", 2, "--out", out, "--unit-column", "who")
    code, _, errors = main(*split, "--unit-normalisation", "letters")
    assert code == 1
    assert "case, punctuation, zeros, compatibility, exact" in errors
    assert main(*split, "--unit-normalisation", "case")[0] == 0
    parts = [(out / f"site-{n}.csv").read_text().lower().split("\n")[1:-1] for n in (1, 2)]
    owners = [{row.partition(",")[2] for row in part} for part in parts]
    assert not owners[0] & owners[1]


def test_the_package_runs_as_a_module_and_tells_its_version() -> None:
    command = [sys.executable, "-m", "fmfl_secure", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"fmfl-secure {__version__}\n"


def test_a_lost_journal_is_made_again_and_joins_nothing_old(main, tmp_path: Path) -> None:
    identity = Identity.generate("decryptor")
    identity.save(tmp_path / "identity.pem")
    recover = ("journal", "recover", tmp_path)
    assert "no run is named" in main(*recover, "--reason", "disk failed")[2]
    assert "--reason is empty" in main(*recover, "--reason", " ", "--bar", "00112233")[2]
    SqliteJournal(tmp_path / "journal.sqlite")
    for file in tmp_path.glob("journal.sqlite*"):
        if not file.name.endswith(".made"):
            file.unlink()
    code, output, _ = main(*recover, "--reason", "disk failed", "--bar", "00112233")
    assert code == 0
    assert "joins nothing more of 1 runs" in output
    made = SqliteJournal(tmp_path / "journal.sqlite")
    assert made.lookup("run/barred", f"{identity.public.fingerprint}/00112233") == b""
