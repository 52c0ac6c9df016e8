"""What people did at a party: recorded before it is done, and edited by nobody without the key."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from answered import read_answer
from documented import command_tree
from support import settings
from test_cli import COMMANDS, find

from aggregation import AggregationError, Identity, JournalError, SqliteJournal, hold_journal_to
from aggregation.protocol import JournalEntry, heads_of, read_head
from fmfl_secure import Federation
from fmfl_secure.cli._command import ACT
from fmfl_secure.cli.acting import AUTHORITY, Act
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.parties.acting import recorded
from fmfl_secure.parties.acts import FILE, PERMIT, ActLog, ActsDamaged, read_export
from fmfl_secure.parties.workspace import initialise
from privacy import Ledger

Main = Callable[..., tuple[int, str, str]]
GRANT = ("--epsilon", 1, "--delta", "1e-5", "--purpose", "follow-up")
REASON = ("--reason", "because")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    (folder / "federation.toml").write_text(settings(Path("none")))
    initialise(folder, epsilon=None, delta=None, simulated=True)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "federation"))


@pytest.fixture
def site(folder: Path) -> Path:
    return folder / "sites/site-1"


def kept(folder: Path) -> list[tuple[str, str, str]]:
    return [(note.act, note.what, note.code) for note in ActLog(folder).notes()]


def acted(folder: Path) -> list[tuple[str, str, str]]:
    return [each for each in kept(folder) if each[1] != "found"]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_recorded_or_says_why_not(command: tuple[str, ...]) -> None:
    """A command cannot be registered without one of both; and the log calls it by its words."""
    act = getattr(find(command).callback, ACT)
    if isinstance(act, Act):
        assert act.name == " ".join(command)
        names = {one.name for one in find(command).params}
        assert set(act.keeps) <= names
        assert callable(act.at) or act.at in names
    else:
        assert len(act) > 15


def test_those_that_change_something_are_recorded() -> None:
    acts = {
        " ".join(command)
        for command in COMMANDS
        if isinstance(getattr(find(command).callback, ACT), Act)
    }
    assert acts >= {
        "init", "run", "ask", "choose", "export", "report bundle", "report dataset", "unseal",
        "request", "accept", "ceremony sign", "ceremony collect", "serve", "decryptor", "custodian",
        "join", "flower host", "stop", "members remove", "members approve", "journal recover",
        *(f"ledger {each}" for each in ("grant", "lower", "close", "admit", "dismiss", "recover",
                                        "release", "anchor", "export")),
    }  # fmt: skip
    assert set(command_tree().commands)  # of the program itself


def test_an_act_is_recorded_with_who_and_what_came_of_it(
    main: Main, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PERMIT, "DP-2026-17")
    ledger = site / "ledger.sqlite"
    assert main("ledger", "grant", ledger, *GRANT)[0] == 0
    assert main("ledger", "lower", ledger, "--grant", 9, "--epsilon", 1, *REASON)[0] == 1
    assert acted(site) == [
        ("ledger grant", "begun", ""),
        ("ledger grant", "done", ""),
        ("ledger lower", "begun", ""),
        ("ledger lower", "refused", "ledger"),
    ]
    code, printed, _ = main("acts", "show", site, "--json")
    assert code == 0
    shown = read_answer("acts show", printed)
    settings_found, granted, lowered = shown["acts"]
    assert (settings_found["state"], settings_found["facts"]["policy.min_sites"]) == ("found", 3)
    assert granted["permit"] == "DP-2026-17"
    assert granted["user"]
    assert granted["facts"] == {"epsilon": 1.0, "delta": 1e-5, "purpose": "follow-up"}
    assert (granted["state"], lowered["state"], lowered["code"]) == ("done", "refused", "ledger")
    said = main("acts", "show", site)[1]
    assert "permit DP-2026-17: ledger grant, done" in said
    assert main("acts", "verify", site, "--json")[0] == 0


def test_any_figure_that_can_be_typed_can_be_read_back(main: Main, site: Path) -> None:
    ledger = site / "ledger.sqlite"
    for epsilon in ("inf", "nan", "1e308"):
        grant = ("--epsilon", epsilon, "--delta", "1e-5", "--purpose", "follow-up")
        assert main("ledger", "grant", ledger, *grant)[0] == 1
    assert main("ledger", "close", ledger, "--grant", 10**30, *REASON)[0] == 1
    facts = [note.facts for note in ActLog(site).notes() if note.what == "begun"]
    assert [each["epsilon"] for each in facts[:-1]] == ["inf", "nan", "1e+308"]
    assert facts[-1] == {"grant": str(10**30), "reason": "because"}


def test_what_only_looks_is_not_recorded(main: Main, site: Path) -> None:
    assert main("ledger", "show", site / "ledger.sqlite")[0] == 0
    assert main("acts", "show", site)[0] == 0
    assert not ActLog(site).exists


def test_an_act_that_did_not_come_back_is_seen_to_be_under_way(site: Path, main: Main) -> None:
    """As after a kill: what was begun is on the disk before anything happened."""
    ActLog(site).begin("ledger grant", {"epsilon": 1.0})
    (_, shown) = read_answer("acts show", main("acts", "show", site, "--json")[1])["acts"]
    assert (shown["state"], shown["ended"]) == ("begun", "")


def test_nothing_happens_where_it_cannot_be_recorded(main: Main, site: Path) -> None:
    ActLog(site).begin("ledger grant", {})
    (site / FILE).unlink()
    before = Ledger(site / "ledger.sqlite").head()
    code, _, errors = main("ledger", "grant", site / "ledger.sqlite", *GRANT)
    assert code == 3, errors
    assert "acts recover" in errors
    assert Ledger(site / "ledger.sqlite").head() == before, "nothing was granted"
    code, _, errors = main("acts", "recover", site, "--reason", "the disk failed")
    assert code == 0, errors
    assert main("ledger", "grant", site / "ledger.sqlite", *GRANT)[0] == 0
    assert [each[1] for each in kept(site)] == ["recovered", "found", "begun", "done"]


def test_a_run_is_stopped_although_its_log_does_not_hold(main: Main, folder: Path) -> None:
    ActLog(folder).begin("run", {})
    (folder / "coordinator" / FILE).unlink()
    code, _, errors = main("stop", folder, "--run", "00ff00ff", "--reason", "consent")
    assert code == 0, errors
    assert "not in the log of acts" in errors
    assert list((folder / "stops").iterdir())


def test_the_first_act_of_a_party_is_recorded_once_it_has_a_key(main: Main, tmp_path: Path) -> None:
    assert main("init", tmp_path / "pilot", "--sites", 3)[0] == 0
    assert acted(tmp_path / "pilot") == [("init", "begun", ""), ("init", "done", "")]


def test_an_act_without_a_party_s_key_is_said_to_be_in_no_log(main: Main, site: Path) -> None:
    alone = site.parent / "copy"
    alone.mkdir()
    shutil.copy(site / "ledger.sqlite", alone)
    code, _, errors = main("ledger", "export", alone / "ledger.sqlite", "--output", alone / "e")
    assert code == 0
    assert "not in a log of acts: no party's key is at hand" in errors


def test_a_change_of_policy_is_found_at_the_next_act(main: Main, site: Path) -> None:
    assert main("ledger", "anchor", site / "ledger.sqlite", "--output", site / "a")[0] == 0
    policy = (site / "site.toml").read_text()
    assert "[policy]" in policy
    changed = policy.replace("[policy]", "[policy]\nmax_rounds = 7\n")
    (site / "site.toml").write_text(changed)
    assert main("ledger", "anchor", site / "ledger.sqlite", "--output", site / "a")[0] == 0
    found = [note.facts for note in ActLog(site).notes() if note.what == "found"]
    assert len(found) == 2
    assert found[1] == {"policy.max_rounds": 7}
    (site / "site.toml").write_text("[policy")
    ActLog(site).begin("join", {})
    assert ActLog(site).notes()[-2].facts == {"policy": "cannot be read"}


def test_no_secret_and_no_record_is_in_it(
    main: Main, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "correct-horse-battery"
    passphrase = tmp_path / "passphrase.txt"
    passphrase.write_text(secret)
    sealed = tmp_path / "no.kit"
    sealed.write_text(secret)
    out = site  # so that there is a key to sign with
    assert main("unseal", sealed, "--output", out, "--passphrase-file", passphrase)[0] == 1
    url = f"postgresql://user:{secret}@nowhere/db"
    key = site / "identity.pem"
    assert main("ledger", "export", url, "--output", tmp_path / "e")[0] != 0
    main("ledger", "close", url, "--grant", 1, "--reason", "over", "--identity", key)
    assert [each[0] for each in acted(site)] == ["unseal", "unseal", "ledger close", "ledger close"]
    exported = ActLog(site).export()
    values = b"".join(entry.value for entry in ActLog(site)._journal.entries()[1])
    for place in (exported, values, (site / FILE).read_bytes()):
        assert secret.encode() not in place
    monkeypatch.setenv(PERMIT, "x" * 101)
    assert main("ledger", "close", site / "ledger.sqlite", "--grant", 1, *REASON)[0] == 1


def test_two_processes_write_one_chain(site: Path) -> None:
    one, other = ActLog(site), ActLog(site)
    first = one.begin("ledger grant", {})
    before = one._journal.head
    second = other.begin("ledger lower", {})
    with pytest.raises(JournalError, match="has gone on"):
        one._journal.record("act", "99", b"", after=before)
    one.end(first, "ledger grant", "done", code="", facts={})
    other.end(second, "ledger lower", "done", code="", facts={})
    assert [note.of for note in one.notes()] == [0, 0, 0, first, second]


def test_what_python_does_is_recorded_as_a_command_is(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "pilot"
    folder.mkdir()
    (folder / "federation.toml").write_text(settings(tiny_model, sites=3))
    pilot = Federation(folder)
    pilot.initialise(epsilon=2.5, simulated=True)
    with pytest.raises(RunError):
        pilot.run(folder / "run", resume=True)
    notes = ActLog(folder).notes()
    assert [(n.act, n.what, n.code) for n in notes if n.what != "found"] == [
        ("init", "begun", ""),
        ("init", "done", ""),
        ("run", "begun", ""),
        ("run", "refused", "run"),
    ]
    begun = [note.facts for note in notes if note.what == "begun"]
    assert begun[0] == {"interface": "python", "epsilon": 2.5, "simulated": True}
    assert begun[1] == {"interface": "python", "output": str(folder / "run"), "resume": True}
    assert notes[-1].user


def test_nothing_is_done_from_python_where_it_cannot_be_recorded(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "pilot"
    folder.mkdir()
    (folder / "federation.toml").write_text(settings(tiny_model, sites=3))
    Federation(folder).initialise()
    (folder / "coordinator" / FILE).unlink()
    with pytest.raises(JournalError):
        Federation(folder).initialise(simulated=True)
    assert Ledger(folder / "sites/site-1/ledger.sqlite").status() == [], "nothing was granted"
    with recorded(tmp_path / "nowhere", "export"):
        """At no party."""
    assert "not in a log of acts: no party's key is at hand" in caplog.text


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (KeyboardInterrupt(), ("interrupted", "interrupted")),
        (OSError(errno.ENOSPC, "full"), ("interrupted", "file-system")),
        (OSError(errno.EACCES, "no"), ("refused", "file-system")),
        (ConfigError("no"), ("refused", ConfigError.code)),
        (ZeroDivisionError(), ("failed", "bug")),
    ],
    ids=["signal", "full", "denied", "refused", "bug"],
)
def test_what_ended_an_act_from_python_is_told_by_its_code(
    site: Path, error: BaseException, ended: tuple[str, str]
) -> None:
    with pytest.raises(type(error)), recorded(site, "export"):
        raise error
    last = ActLog(site).notes()[-1]
    assert (last.what, last.code, last.facts) == (*ended, {})


def test_an_act_at_the_authority_is_said_to_be_in_no_log(
    main: Main, tmp_path: Path, tiny_model: Path
) -> None:
    federation = tmp_path / "federation.toml"
    federation.write_text(settings(tiny_model, sites=3))
    out = ("--output", tmp_path / "kits")
    code, printed, errors = main("provision", federation, *out, "--json")
    assert code == 0
    assert f"not in a log of acts: {AUTHORITY}" in errors
    assert "not in a log" not in printed
    issued = json.loads((tmp_path / "kits/authority/issued.json").read_bytes())
    assert {each["name"] for each in issued} >= {"site-1", "decryptor"}
    revoke = ("certificates", "revoke", tmp_path / "kits")
    assert AUTHORITY in main(*revoke, "site-1")[2]
    assert main(*revoke, "site-2", "--quiet") == (0, "", "")


# Whoever can write the file, and has no key.


def rewrite(place: Path, change: Callable[[list[tuple[str, str, bytes]]], object]) -> None:
    """Change entries and make the chain anew over them, as anybody could."""
    with sqlite3.connect(place) as connection:
        ((log,),) = connection.execute("SELECT key FROM chain WHERE sequence = 1")
        entries = list(
            connection.execute(
                "SELECT kind, key, value FROM chain JOIN entries USING (kind, key) "
                "ORDER BY sequence"
            )
        )
        change(entries)
        connection.execute("DELETE FROM entries")
        connection.execute("DELETE FROM chain WHERE sequence > 1")
        numbered = [JournalEntry(n, *each) for n, each in enumerate(entries, start=2)]
        heads = [head for head, _ in heads_of(log, [*numbered, JournalEntry(0, "", "", b"")])]
        for entry, head in zip(numbered, heads[1:], strict=True):
            connection.execute(
                "INSERT INTO entries VALUES (?, ?, ?)", (entry.kind, entry.key, entry.value)
            )
            connection.execute(
                "INSERT INTO chain VALUES (?, ?, ?, ?)",
                (entry.sequence, entry.kind, entry.key, bytes.fromhex(head.digest)),
            )
    connection.close()


def edited(entries: list[tuple[str, str, bytes]]) -> None:
    kind, key, value = entries[1]
    entries[1] = (kind, key, value.replace(b"ledger grant", b"ledger lower"))


def dropped(entries: list[tuple[str, str, bytes]]) -> None:
    del entries[1]


def swapped(entries: list[tuple[str, str, bytes]]) -> None:
    entries[1], entries[2] = entries[2], entries[1]


def repeated(entries: list[tuple[str, str, bytes]]) -> None:
    kind, _, value = entries[1]
    entries.append((kind, "again", value))


def by_another_key(entries: list[tuple[str, str, bytes]]) -> None:
    kind, key, value = entries[1]
    body = value[64:]
    forged = Identity.generate("site-1").sign(b"fmfl-secure/acts/v1\x00" + body)
    entries[1] = (kind, key, forged + body)


@pytest.mark.parametrize("change", [edited, dropped, swapped, repeated, by_another_key])
def test_nobody_without_the_key_changes_an_entry(
    site: Path, change: Callable[[list[tuple[str, str, bytes]]], object]
) -> None:
    log = ActLog(site)
    number = log.begin("ledger grant", {"epsilon": 1.0})
    log.end(number, "ledger grant", "done", code="", facts={})
    rewrite(site / FILE, lambda _: None)
    assert len(ActLog(site).notes()) == 3, "made anew as it was, it holds"
    rewrite(site / FILE, change)
    with pytest.raises(ActsDamaged, match="does not hold"):
        ActLog(site).notes()
    with pytest.raises(ActsDamaged):
        ActLog(site).export()


def test_a_log_that_was_put_back_lacks_a_head_that_others_kept(site: Path, main: Main) -> None:
    log = ActLog(site)
    log.begin("join", {})
    shutil.copy(site / FILE, site / "backup")
    log.begin("ledger grant", {})
    head = log.head()
    assert head is not None
    assert log.hold_to([head]) == 1
    exported = site / "acts.json"
    exported.write_bytes(log.export())
    for ending in ("-wal", "-shm"):
        (site / f"{FILE}{ending}").unlink(missing_ok=True)
    shutil.copy(site / "backup", site / FILE)
    assert len(ActLog(site).notes()) == 2, "it verifies by itself"
    with pytest.raises(ActsDamaged, match="lacks entry 4, which others have seen"):
        ActLog(site).hold_to([head])
    for option in (("--head", head), ("--export", exported)):
        assert main("acts", "verify", site, *option)[0] == 3
    (site / FILE).unlink()
    (site / f"{FILE}.made").unlink()
    with pytest.raises(ActsDamaged):  # as if there had never been one
        ActLog(site).hold_to([head])
    ActLog(site).recover("put back by mistake")
    assert ActLog(site).hold_to([head]) == 1, "said, and from then on another log"


def test_a_head_of_acts_is_none_of_a_journal(site: Path) -> None:
    log = ActLog(site)
    log.begin("join", {})
    head = log.head()
    own = Identity.load(site / "identity.pem").public
    journal = SqliteJournal(site / "journal.sqlite")
    assert head is not None
    hold_journal_to(journal, own, [head])  # passed over
    assert read_head(head).of == "acts"
    assert ActLog(site.with_name("site-2")).hold_to([head]) == 0, "another party's"


def test_an_export_verifies_by_itself_and_not_once_it_was_changed(site: Path, main: Main) -> None:
    log = ActLog(site)
    log.begin("join", {})
    log.begin("ledger grant", {})
    output = site / "acts.json"
    assert main("acts", "export", site, "--output", output)[0] == 0
    code, printed, errors = main("acts", "verify", output, "--json")
    answer = read_answer("acts verify", printed)
    assert (code, answer["party"], answer["entries"]) == (0, "site-1", 4)
    assert "NOT CHECKED" in errors
    assert main("acts", "verify", output, "--signer", answer["signed_by"])[0] == 0
    assert main("acts", "verify", output, "--signer", "ed25519:0")[0] == 3
    document = json.loads(output.read_text())
    shorter = {**document, "entries": document["entries"][:-1]}
    with pytest.raises(ActsDamaged, match="does not end where its signed head does"):
        read_export(json.dumps(shorter).encode(), source="it")
    other = ActLog(site.with_name("site-2"))
    other.begin("join", {})
    theirs = {**document, "head": other.head()}
    with pytest.raises(ActsDamaged):
        read_export(json.dumps(theirs).encode(), source="it")
    with pytest.raises(ConfigError, match="no export"):
        read_export(b"{}", source="it")
    # Nobody is told to begin another log for an export that was altered on its way.
    altered = {**document, "entries": document["entries"][1:]}
    with pytest.raises(ActsDamaged, match=r"^it: entry") as refused:
        read_export(json.dumps(altered).encode(), source="it")
    assert "recover" not in refused.value.hint


def test_a_journal_in_its_place_is_no_log(site: Path) -> None:
    log = ActLog(site)
    log.begin("join", {})
    other = ActLog(site.with_name("site-2"))
    other.begin("join", {})
    for ending in ("", ".made"):
        shutil.copy(other.path.with_name(f"{FILE}{ending}"), site / f"{FILE}{ending}")
    with pytest.raises((ActsDamaged, AggregationError)):
        ActLog(site).notes()
