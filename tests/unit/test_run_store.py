"""A run's durable state."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from postgres import OWNER, PASSWORD, Cluster

from fmfl_secure.errors import RunError
from fmfl_secure.storage.run_store import RunFacts, RunStore, holds_run, run_facts

_NUMBERS = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str | None:
    """Where runs keep their state, as a server's settings name it; None for their folders."""
    if request.param == "sqlite":
        return None
    cluster: Cluster = request.getfixturevalue("postgres")
    return cluster.url(f"state_{next(_NUMBERS)}")


@pytest.fixture
def store(tmp_path: Path, database: str | None) -> RunStore:
    facts = {"run": b"abcd", "config": b"{}"}
    return RunStore.create(tmp_path / "run", facts, database=database)


@pytest.fixture
def in_file(tmp_path: Path) -> RunStore:
    return RunStore.create(tmp_path / "run", {"run": b"abcd", "config": b"{}"})


def test_facts_are_kept_and_replaced(store: RunStore, database: str | None) -> None:
    assert store.fact("run") == b"abcd"
    assert store.fact("status") is None
    store.set_fact("status", b"finished")
    store.set_fact("status", b"stopped")
    store.set_fact("empty", b"")
    again = RunStore(store.folder, database=database)
    assert again.require("status") == b"stopped"
    assert again.fact("empty") == b""
    with pytest.raises(RunError, match="damaged: it holds no public"):
        again.require("public")


def test_facts_by_prefix_take_the_prefix_literally(store: RunStore) -> None:
    for name in ("site/a", "site/b%", "site_c", "siteXd", "side/e"):
        store.set_fact(name, name.encode())
    assert store.facts("site/") == {"a": b"site/a", "b%": b"site/b%"}
    assert store.facts("nothing/") == {}


def test_attempts_are_counted_by_round(store: RunStore) -> None:
    assert store.attempts(1) == 0
    store.begin_attempt(1, 1, b"plan 1")
    store.begin_attempt(1, 2, b"plan 2")
    store.begin_attempt(2, 1, b"plan 3")
    assert (store.attempts(1), store.attempts(2), store.attempts(3)) == (2, 1, 0)
    with pytest.raises(RunError):
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
    with pytest.raises(RunError):
        store.finish_round(3, b"{}", b"another adapter")
    assert store.last_adapter() == b"adapter 3"


def test_a_folder_in_use_is_refused(store: RunStore, database: str | None, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not empty") as refusal:
        RunStore.create(store.folder, {"run": b"b"}, database=database)
    assert "--resume" in refusal.value.hint
    assert store.require("run") == b"abcd"
    other = tmp_path / "documents"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="is not empty"):
        RunStore.create(other, {})
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    RunStore.create(empty, {})


def test_a_start_that_was_cut_off_leaves_no_run_and_can_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for rest in ("", "-wal", "-shm"):
        (folder / f"state.sqlite.0123456789abcdef.new{rest}").write_bytes(b"half a file")
    with pytest.raises(RunError, match="no run in"):
        RunStore(folder)
    assert RunStore.create(folder, {"run": b"1"}).require("run") == b"1"
    assert [p.name for p in folder.iterdir()] == ["state.sqlite"]


def test_where_there_is_no_run_or_none_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in"):
        RunStore(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunError, match="cannot start a run"):
        RunStore.create(file, {})
    with pytest.raises(RunError, match="cannot start a run"):
        RunStore.create(file / "below", {})


CALLS = [
    lambda s: s.fact("run"),
    lambda s: s.require("run"),
    lambda s: s.set_fact("a", b""),
    lambda s: s.facts(""),
    lambda s: s.attempts(1),
    lambda s: s.opened_attempts(1),
    lambda s: s.begin_attempt(1, 1, b""),
    lambda s: s.fix_cohort(1, 1, b""),
    lambda s: s.list_openings(1, 1, b""),
    lambda s: s.finish_round(1, b"", None),
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
        for table in ("facts", "attempts", "rounds"):
            file.execute(f"DROP TABLE {table}")
    for call in CALLS:
        with pytest.raises(RunError, match=r"the run's state: .*state\.sqlite is not readable"):
            call(RunStore(in_file.folder))


def test_each_run_has_a_schema_of_its_own_and_its_folder_says_where(
    tmp_path: Path, postgres: Cluster
) -> None:
    database = postgres.url(f"state_{next(_NUMBERS)}", user=OWNER)
    for run in ("aa", "bb"):
        facts = {"run": run.encode(), "started": run.encode() * 2}
        RunStore.create(tmp_path / run, facts, database=database)
    for run in ("aa", "bb"):
        assert [file.name for file in (tmp_path / run).iterdir()] == ["state.url"]
        assert (tmp_path / run / "state.url").read_text().endswith(f"_{run}")
        assert holds_run(tmp_path / run)
        again = RunStore(tmp_path / run, database=database)
        assert again.require("started") == run.encode() * 2


def test_a_runs_folder_never_holds_the_databases_password(
    tmp_path: Path, postgres: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = postgres.url(f"state_{next(_NUMBERS)}", user=OWNER)
    secrets = (PASSWORD, quote(PASSWORD, safe=""))
    assert secrets[1] in database
    store = RunStore.create(tmp_path / "run", {"run": b"aa"}, database=database)
    assert not any(secret in (tmp_path / "run/state.url").read_text() for secret in secrets)
    with pytest.raises(RunError, match="password") as refusal:
        RunStore(tmp_path / "run").require("run")
    assert not any(secret in str(refusal.value) for secret in secrets)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert RunStore(tmp_path / "run").require("run") == b"aa"
    assert not any(secret in repr(vars(store)) for secret in secrets)


def test_a_state_that_is_gone_or_named_wrongly_is_a_typed_error(
    tmp_path: Path, postgres: Cluster
) -> None:
    database = postgres.url(f"state_{next(_NUMBERS)}")
    store = RunStore.create(tmp_path / "run", {"run": b"aa"}, database=database)
    pointer = tmp_path / "run/state.url"
    url = pointer.read_text()
    with postgres.connect() as connection:
        connection.execute(f"DROP SCHEMA {url.rpartition('=')[2]} CASCADE")
    with pytest.raises(RunError, match="nothing is at postgresql://"):
        store.fact("run")
    pointer.write_text("state.sqlite")
    with pytest.raises(RunError, match="names no PostgreSQL database"):
        RunStore(tmp_path / "run")
    pointer.write_bytes(b"\xff")
    with pytest.raises(RunError, match="cannot read"):
        RunStore(tmp_path / "run")
    with pytest.raises(RunError, match="cannot start a run"):
        RunStore.create(tmp_path / "no", {"run": b"aa"}, database="postgresql://a:b@c@d")
    assert not holds_run(tmp_path / "no")


def test_public_facts_are_read_back_or_refused(store: RunStore) -> None:
    facts = RunFacts("m", "sha256:a", "sha256:b", 5, {"s": "f"}, {"c": "g"}, b"adapter")
    store.set_fact("public", msgspec.msgpack.encode(facts))
    assert run_facts(store) == facts
    for damage in (b"", b"\xc1", b"\x80"):
        store.set_fact("public", damage)
        with pytest.raises(RunError, match="damaged"):
            run_facts(store)


def test_several_facts_are_set_together_or_not_at_all(store: RunStore) -> None:
    store.set_facts({"x/a": b"1", "x/b": b"2"})
    assert store.facts("x/") == {"a": b"1", "b": b"2"}
    with pytest.raises(RunError):
        store.set_facts({"x/a": b"3", "x/c": None})  # type: ignore[dict-item]
    assert store.facts("x/") == {"a": b"1", "b": b"2"}
    store.set_facts({})


def test_refusals_are_kept(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path / "run", {"run": b"r"})
    assert store.refusals() == {}
    store.refuse("site-2", "failed")
    store.refuse("site-1", "policy.rounds")
    store.refuse("site-2", "ledger-damaged")
    assert RunStore(tmp_path / "run").refusals() == {
        "site-1": "policy.rounds",
        "site-2": "ledger-damaged",
    }
