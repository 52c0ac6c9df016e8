"""A run's durable state."""

from __future__ import annotations

import itertools
import sqlite3
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from postgres import OWNER, PASSWORD, Cluster
from support import settings

from fmfl_secure.errors import FmflError, RunError, Unavailable
from fmfl_secure.settings.federation import FederationConfig, convert_config, encode_config
from fmfl_secure.storage.run_state import RunFacts, RunState
from fmfl_secure.storage.run_store import RunStore, holds_run

_NUMBERS = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    """Where runs keep their state, as a server's settings name it; None for their folders."""
    if request.param == "sqlite":
        return None
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.url(f"state_{next(_NUMBERS)}")


CONFIG = convert_config(
    tomllib.loads(settings(Path("model"))), FederationConfig, source="federation.toml"
)
PUBLIC = RunFacts("m", "sha256:a", "sha256:b", 5, {"s": "f"}, {"c": "g"}, b"adapter")


def a_state(run: str = "abcd") -> RunState:
    return RunState(run=run, config=CONFIG, started="2026-01-01T00:00:00", origin=Path("/here"))


def create(folder: Path, run: str = "abcd", *, database: str | None = None) -> RunStore:
    return RunStore.create(folder, a_state(run), PUBLIC, database=database)


def set_fact(store: RunStore, name: str, value: bytes) -> None:
    with closing(sqlite3.connect(store.folder / "state.sqlite", isolation_level=None)) as file:
        file.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))


@pytest.fixture
def store(tmp_path: Path, database: str | None) -> RunStore:
    return create(tmp_path / "run", database=database)


@pytest.fixture
def in_file(tmp_path: Path) -> RunStore:
    return create(tmp_path / "run")


NOW = "2026-02-02T10:00:00+00:00"


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmfl_secure.storage.run_store._now", lambda: NOW)


TRANSITIONS: list[tuple[Callable[[RunState], RunState], dict[str, object]]] = [
    (lambda s: s.measured({"accuracy": 0.5}), {"initial_metrics": {"accuracy": 0.5}}),
    (lambda s: s.measured({}), {"initial_metrics": {}}),
    (lambda s: s.uploaded(123_456), {"upload_bytes": 123_456}),
    (lambda s: s.refused("a b/%", "failed"), {"refusals": {"a b/%": "failed"}}),
    (lambda s: s.noted({"site_1": b"\x80\xff"}), {"sites": {"site_1": b"\x80\xff"}}),
    (lambda s: s.rounds_over(), {"outcome": ""}),
    (lambda s: s.rounds_over("zu wenige: é"), {"outcome": "zu wenige: é"}),
    (lambda s: s.signed(b"end"), {"end": b"end"}),
    (lambda s: s.marked("stopped", "why"), {"status": "stopped", "reason": "why"}),
    (lambda s: s.marked("finished"), {"status": "finished", "reason": ""}),
]


@pytest.mark.parametrize(("transition", "changed"), TRANSITIONS)
def test_a_transition_is_kept_and_changes_nothing_else(
    store: RunStore, database: str | None, transition, changed
) -> None:
    assert store.state == a_state()
    after = msgspec.structs.replace(a_state(), **changed, changed=NOW)
    assert store.move(transition) == after
    assert RunStore(store.folder, database=database).state == after
    assert store.public() == PUBLIC


def test_transitions_follow_each_other(store: RunStore) -> None:
    for site, code in (("b", "failed"), ("a", "policy.rounds"), ("b", "ledger-damaged")):
        store.move(lambda state, site=site, code=code: state.refused(site, code))
    store.move(lambda state: state.noted({"a": b"1", "b": b"2"}))
    store.move(lambda state: state.noted({"a": b"3"}))
    assert store.state.refusals == {"a": "policy.rounds", "b": "ledger-damaged"}
    assert store.state.sites == {"a": b"3", "b": b"2"}


def test_when_a_run_changed_last_is_kept_and_looking_at_it_is_no_change(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.move(lambda state: state.refused("a", "failed"))
    monkeypatch.setattr("fmfl_secure.storage.run_store._now", lambda: "2027-01-01T00:00:00+00:00")
    store.move(lambda state: state)
    assert store.state.changed == NOW


def test_only_finished_and_stopped_runs_have_ended() -> None:
    ended = {s: a_state().marked(s).ended for s in ("finished", "stopped", "interrupted")}
    assert ended == {"finished": True, "stopped": True, "interrupted": False}
    assert not a_state().ended


def test_a_transition_is_kept_as_a_whole_or_not_at_all(in_file: RunStore) -> None:
    before = in_file.state
    with closing(sqlite3.connect(in_file.folder / "state.sqlite", isolation_level=None)) as file:
        file.execute(
            "CREATE TRIGGER full BEFORE INSERT ON facts WHEN new.name = 'reason' "
            "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
    with pytest.raises(RunError):
        in_file.move(lambda state: state.marked("stopped", "why"))
    assert in_file.state == before


def test_facts_on_disk_have_their_names_and_bytes(in_file: RunStore) -> None:
    for transition, _ in TRANSITIONS:
        in_file.move(transition)
    with closing(sqlite3.connect(in_file.folder / "state.sqlite")) as file:
        facts = dict(file.execute("SELECT name, value FROM facts"))
    assert facts.pop("config") == encode_config(CONFIG)
    assert facts == {
        "run": b"abcd",
        "started": b"2026-01-01T00:00:00",
        "origin": b"/here",
        "changed": NOW.encode(),
        "public": msgspec.msgpack.encode(PUBLIC),
        "initial_metrics": b"{}",
        "upload_bytes": b"123456",
        "outcome": "zu wenige: é".encode(),
        "status": b"finished",
        "reason": b"",
        "end": b"end",
        "refusal/a b/%": b"failed",
        "site/site_1": b"\x80\xff",
    }


@pytest.mark.parametrize("name", ["run", "config", "started", "origin"])
def test_a_state_without_what_every_run_has_is_damaged(in_file: RunStore, name: str) -> None:
    with closing(sqlite3.connect(in_file.folder / "state.sqlite", isolation_level=None)) as file:
        file.execute("DELETE FROM facts WHERE name = ?", (name,))
    with pytest.raises(RunError, match=f"damaged: it holds no {name}"):
        _ = in_file.state


@pytest.mark.parametrize(
    ("name", "value"),
    [("run", b"\xff"), ("status", b"happy"), ("initial_metrics", b"["), ("upload_bytes", b"x")],
)
def test_a_fact_of_another_form_is_damage(in_file: RunStore, name: str, value: bytes) -> None:
    set_fact(in_file, name, value)
    with pytest.raises(RunError, match="damaged"):
        _ = in_file.state


def test_public_facts_that_are_damaged_or_gone_are_refused(in_file: RunStore) -> None:
    for damage in (b"", b"\xc1", b"\x80"):
        set_fact(in_file, "public", damage)
        with pytest.raises(RunError, match="damaged"):
            in_file.public()
    with closing(sqlite3.connect(in_file.folder / "state.sqlite", isolation_level=None)) as file:
        file.execute("DELETE FROM facts WHERE name = 'public'")
    with pytest.raises(RunError, match="damaged: it holds no public facts"):
        in_file.public()


def test_attempts_are_counted_by_round(store: RunStore) -> None:
    assert store.attempts(1) == 0
    store.begin_attempt(1, 1, b"plan 1")
    store.begin_attempt(1, 2, b"plan 2")
    store.begin_attempt(2, 1, b"plan 3")
    assert (store.attempts(1), store.attempts(2), store.attempts(3)) == (2, 1, 0)
    with pytest.raises(FmflError):
        store.begin_attempt(1, 2, b"another plan")


def test_only_attempts_with_cohort_and_list_may_have_been_opened(store: RunStore) -> None:
    for attempt in (1, 2, 3, 4):
        store.begin_attempt(1, attempt, b"plan %d" % attempt)
    store.begin_attempt(2, 1, b"plan of round 2")
    store.fix_cohort(1, 1, b"cohort 1")
    store.list_openings(1, 1, b"list 1")
    store.fix_cohort(1, 2, b"cohort 2")
    store.fix_cohort(1, 4, b"cohort 4")
    store.list_openings(1, 4, b"list 4")
    opened = store.opened_attempts(1)
    assert [(o.plan, o.cohort, o.opening_list) for o in opened] == [
        (b"plan 4", b"cohort 4", b"list 4"),
        (b"plan 1", b"cohort 1", b"list 1"),
    ]
    assert store.opened_attempts(2) == []


def test_a_round_and_its_adapter_are_recorded_once_and_together(store: RunStore) -> None:
    assert store.rounds() == []
    assert store.last_adapter() is None
    store.finish_round(2, b'{"round": 2}', None)  # lost: the adapter stays
    store.finish_round(1, '{"round": 1, "é": 1}'.encode(), b"adapter 1")
    assert store.rounds() == ['{"round": 1, "é": 1}'.encode(), b'{"round": 2}']
    assert store.last_adapter() == b"adapter 1"
    store.finish_round(3, b"{}", b"adapter 3")
    assert store.last_adapter() == b"adapter 3"
    with pytest.raises(FmflError):
        store.finish_round(3, b"{}", b"another adapter")
    assert store.last_adapter() == b"adapter 3"


def test_what_sites_said_is_kept_by_attempt_from_the_last_release_on(store: RunStore) -> None:
    for number, attempt in ((1, 1), (1, 2), (2, 1), (3, 1)):
        store.begin_attempt(number, attempt, b"plan %d/%d" % (number, attempt))
        store.fix_cohort(number, attempt, b"cohort %d/%d" % (number, attempt))
    assert store.verdicts_since(0, 0) == []
    store.keep_verdicts(1, 1, {"b": b"refused"})
    store.keep_verdicts(1, 1, {"b": b"refused"})  # again, after a restart
    store.finish_round(1, b"{}", b"adapter", attempt=2, verdicts={"b": b"yes", "a": b"aye"})
    store.finish_round(2, b"{}", None)
    store.keep_verdicts(3, 1, {"c": b"lost"})
    kept = [(k.round, k.attempt, k.plan, k.cohort, k.verdicts) for k in store.verdicts_since(1, 2)]
    assert kept == [
        (1, 2, b"plan 1/2", b"cohort 1/2", {"a": b"aye", "b": b"yes"}),
        (3, 1, b"plan 3/1", b"cohort 3/1", {"c": b"lost"}),
    ]
    assert [k.attempt for k in store.verdicts_since(0, 0)] == [1, 2, 1]


def test_a_run_that_an_earlier_version_began_is_brought_up_to_date(in_file: RunStore) -> None:
    with closing(sqlite3.connect(in_file.folder / "state.sqlite", isolation_level=None)) as file:
        file.execute("DROP TABLE verdicts")
    in_file.bring_up_to_date()
    in_file.bring_up_to_date()
    assert in_file.verdicts_since(0, 0) == []


def test_a_folder_in_use_is_refused(store: RunStore, database: str | None, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not empty") as refusal:
        create(store.folder, "b", database=database)
    assert "--resume" in refusal.value.hint
    assert store.state.run == "abcd"
    other = tmp_path / "documents"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not empty"):
        create(other)
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    create(empty)


def test_a_start_that_was_cut_off_leaves_no_run_and_can_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for rest in ("", "-wal", "-shm"):
        (folder / f"state.sqlite.0123456789abcdef.new{rest}").write_bytes(b"half a file")
    with pytest.raises(RunError, match="no run in"):
        RunStore(folder)
    assert create(folder, "1").state.run == "1"
    assert [p.name for p in folder.iterdir()] == ["state.sqlite"]


def test_where_there_is_no_run_or_none_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in"):
        RunStore(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunError, match="cannot start a run"):
        create(file)
    with pytest.raises(RunError, match="cannot start a run"):
        create(file / "below")


CALLS = [
    lambda s: s.state,
    lambda s: s.public(),
    lambda s: s.move(RunState.rounds_over),
    lambda s: s.attempts(1),
    lambda s: s.opened_attempts(1),
    lambda s: s.begin_attempt(1, 1, b""),
    lambda s: s.fix_cohort(1, 1, b""),
    lambda s: s.list_openings(1, 1, b""),
    lambda s: s.finish_round(1, b"", None),
    lambda s: s.keep_verdicts(1, 1, {"a": b""}),
    lambda s: s.verdicts_since(0, 0),
    lambda s: s.rounds(),
    lambda s: s.last_adapter(),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_damaged_state_is_a_typed_error_whatever_is_asked(in_file: RunStore, call) -> None:
    (in_file.folder / "state.sqlite").write_bytes(b"this is no database " * 500)
    with pytest.raises(RunError, match=r"the run's state: .*state\.sqlite is not readable"):
        call(RunStore(in_file.folder))


def test_a_state_without_its_tables_is_a_typed_error(in_file: RunStore) -> None:
    with closing(sqlite3.connect(in_file.folder / "state.sqlite", isolation_level=None)) as file:
        for table in ("facts", "attempts", "rounds", "verdicts"):
            file.execute(f"DROP TABLE {table}")
    for call in CALLS:
        with pytest.raises(RunError, match=r"the run's state: .*state\.sqlite is not readable"):
            call(RunStore(in_file.folder))


def test_each_run_has_a_schema_of_its_own_and_its_folder_says_where(
    tmp_path: Path, postgres: Cluster
) -> None:
    database = postgres.url(f"state_{next(_NUMBERS)}", user=OWNER)
    for run in ("aa", "bb"):
        create(tmp_path / run, run, database=database)
    for run in ("aa", "bb"):
        assert [file.name for file in (tmp_path / run).iterdir()] == ["state.url"]
        assert (tmp_path / run / "state.url").read_text().endswith(f"_{run}")
        assert holds_run(tmp_path / run)
        again = RunStore(tmp_path / run, database=database)
        assert again.state.run == run


def test_a_runs_folder_never_holds_the_databases_password(
    tmp_path: Path, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.url(f"state_{next(_NUMBERS)}", user=OWNER)
    secrets = (PASSWORD, quote(PASSWORD, safe=""))
    assert secrets[1] in database
    store = create(tmp_path / "run", "aa", database=database)
    assert not any(secret in (tmp_path / "run/state.url").read_text() for secret in secrets)
    with pytest.raises(Unavailable, match="password") as refusal:
        _ = RunStore(tmp_path / "run").state
    assert not any(secret in str(refusal.value) for secret in secrets)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert RunStore(tmp_path / "run").state.run == "aa"
    assert not any(secret in repr(vars(store)) for secret in secrets)


def test_a_state_that_is_gone_or_named_wrongly_is_a_typed_error(
    tmp_path: Path, postgres: Cluster
) -> None:
    database = postgres.url(f"state_{next(_NUMBERS)}")
    store = create(tmp_path / "run", "aa", database=database)
    pointer = tmp_path / "run/state.url"
    url = pointer.read_text()
    with postgres.connect() as connection:
        connection.execute(f"DROP SCHEMA {url.rpartition('=')[2]} CASCADE")
    with pytest.raises(RunError, match="nothing is at postgresql://"):
        _ = store.state
    pointer.write_text("state.sqlite")
    with pytest.raises(RunError, match="names no PostgreSQL database"):
        RunStore(tmp_path / "run")
    pointer.write_bytes(b"\xff")
    with pytest.raises(RunError, match="cannot read"):
        RunStore(tmp_path / "run")
    with pytest.raises(RunError, match="cannot start a run"):
        create(tmp_path / "no", "aa", database="postgresql://a:b@c@d")
    assert not holds_run(tmp_path / "no")
