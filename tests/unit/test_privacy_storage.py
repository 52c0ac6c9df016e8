"""What every store promises, whoever keeps what in it."""

import threading

import pytest

from privacy import (
    StorageDamaged,
    StorageError,
    StorageExists,
    StorageMissing,
    StorageUnavailable,
)
from privacy.storage import is_url, open_store, without_secrets
from privacy.storage.urls import split_schema, with_schema, without_password

TABLES = {
    "sqlite": ("CREATE TABLE things (name TEXT PRIMARY KEY, number INTEGER, data BLOB) STRICT",),
    "postgresql": ("CREATE TABLE things (name TEXT PRIMARY KEY, number BIGINT, data BYTEA)",),
}
INSERT = "INSERT INTO things VALUES (?, ?, ?)"
ALL = "SELECT name, number, data FROM things ORDER BY name"


@pytest.fixture
def store(places):
    store = open_store(places.new(), timeout_s=5.0)
    with store.create(TABLES[store.dialect]) as transaction:
        transaction.execute(INSERT, "first", 1, b"\x00\xff")
    return store


def rows(store):
    with store.read() as transaction:
        return transaction.execute(ALL)


def put(store, name, number=0, data=None):
    with store.write() as transaction:
        assert transaction.execute(INSERT, name, number, data) == []


def test_values_come_back_as_they_were(store):
    put(store, "ünïcødé 100% ?", 2**62, bytes(range(256)))
    put(store, "none", -1, None)
    assert rows(store) == [
        ("first", 1, b"\x00\xff"),
        ("none", -1, None),
        ("ünïcødé 100% ?", 2**62, bytes(range(256))),
    ]
    with store.read() as transaction:
        query = "SELECT number FROM things WHERE name = ?"
        assert transaction.execute(query, "ünïcødé 100% ?") == [(2**62,)]
        assert transaction.execute(query, "nobody") == []


def test_opening_creates_nothing(places):
    store = open_store(places.new())
    assert not store.exists()
    for use in (store.read, store.write):
        with pytest.raises(StorageMissing), use() as transaction:
            transaction.execute(ALL)
    assert not store.exists()


def test_what_exists_is_not_created_again(store):
    assert store.exists()
    with pytest.raises(StorageExists), store.create(TABLES[store.dialect]):
        pytest.fail("it was created again")
    assert len(rows(store)) == 1


def test_a_creation_that_fails_leaves_nothing_to_use(places):
    store = open_store(places.new())

    def failing():
        with store.create(TABLES[store.dialect]) as transaction:
            transaction.execute(INSERT, "x", 1, None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    with pytest.raises((StorageMissing, StorageDamaged)):
        rows(store)


def test_a_change_that_fails_is_no_change(store):
    def failing():
        with store.write() as transaction:
            transaction.execute(INSERT, "second", 2, None)
            assert len(transaction.execute(ALL)) == 2  # it sees its own
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert [name for name, *_ in rows(store)] == ["first"]
    put(store, "second")


def test_readers_see_what_was_kept_and_wait_for_nobody(store):
    with store.write() as transaction:
        transaction.execute(INSERT, "second", 2, None)
        assert [name for name, *_ in rows(store)] == ["first"]
    assert [name for name, *_ in rows(store)] == ["first", "second"]


def test_writers_come_one_after_the_other(store):
    """Each reads how many there are and adds one of that number: no number comes twice."""

    def work():
        for _ in range(5):
            with store.write() as transaction:
                ((count,),) = transaction.execute("SELECT count(*) FROM things")
                transaction.execute(INSERT, f"{count}", count, None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for _, number, _ in rows(store)) == [1, *range(1, 21)]


def test_a_writer_waits_so_long_and_no_longer(places, store):
    hasty = open_store(places.new(), timeout_s=0.05)
    with store.write() as transaction:
        transaction.execute(INSERT, "second", 2, None)
        with pytest.raises(StorageUnavailable, match="lock"), hasty.write():
            pytest.fail("two writers at once")
    put(hasty, "third")
    assert [name for name, *_ in rows(store)] == ["first", "second", "third"]


def test_calls_share_what_is_kept_open_and_lose_nothing_by_it(places):
    place = places.new()
    store, other = (open_store(place, timeout_s=5.0) for _ in range(2))
    with store.create(TABLES[store.dialect]) as transaction:
        transaction.execute(INSERT, "first", 1, None)
    with store.kept_open():
        with store.kept_open():
            put(store, "a")
        assert rows(other) == rows(store), "durable when the change ended, and seen by all"
        with pytest.raises(StorageError), store.write() as transaction:
            transaction.execute("INSERT INTO things VALUES ('never', 2, NULL), ('a', 3, NULL)")
        put(other, "b")
        threads = [threading.Thread(target=put, args=(store, name)) for name in "cd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [row[0] for row in rows(store)] == ["a", "b", "c", "d", "first"]
        with store.write() as transaction:  # one call inside another one waits for nobody
            transaction.execute(INSERT, "e", 3, None)
            assert [row[0] for row in rows(store)] == ["a", "b", "c", "d", "first"]
    assert rows(other) == rows(store)


def test_what_is_kept_open_is_closed_at_the_end(tmp_path):
    store = open_store(tmp_path / "things.sqlite")
    with store.create(TABLES["sqlite"]):
        pass
    with store.kept_open():
        put(store, "a")
        assert (tmp_path / "things.sqlite-wal").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["things.sqlite"], "whole in one file"


def test_a_file_that_takes_the_place_of_the_one_kept_open_is_noticed(tmp_path):
    one, another = (open_store(tmp_path / f"{name}.sqlite") for name in ("one", "another"))
    for store in (one, another):
        with store.create(TABLES["sqlite"]):
            pass
    put(another, "its own")
    with one.kept_open():
        put(one, "a")
        for file in tmp_path.glob("one.sqlite*"):
            file.unlink()
        with pytest.raises(StorageMissing):
            rows(one)
        (tmp_path / "another.sqlite").rename(tmp_path / "one.sqlite")
        assert [row[0] for row in rows(one)] == ["its own"]


def test_a_wrong_statement_is_an_error_of_this_layer(store):
    with pytest.raises(StorageDamaged), store.read() as transaction:
        transaction.execute("SELECT nonsense FROM things")


def test_repr_and_name_say_where_it_is(places, store):
    assert store.name in repr(store)
    assert store.dialect == places.kind
    assert "deep/ledger.sqlite" in store.name or "schema=t" in store.name


def test_urls_are_told_from_paths():
    for url in ("postgresql://h/d", "postgres://h/d", "postgresql+psycopg://u:secret@h/d"):
        assert is_url(url)
        assert "secret" not in without_secrets(url)
        assert without_secrets(url).endswith("://***")
    for path in ("ledger.sqlite", "/x/postgresql:/y", "postgresql", "mysql://h/d"):
        assert not is_url(path)
        assert without_secrets(path) == path


def test_without_the_driver_it_says_what_to_install(monkeypatch):
    import builtins
    import sys

    real = builtins.__import__

    def missing(name, *rest, **named):
        if name.startswith("psycopg"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **named)

    monkeypatch.delitem(sys.modules, "privacy.storage.postgresql", raising=False)
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(StorageUnavailable, match="needs the driver psycopg") as refusal:
        open_store("postgresql://h/d")
    assert refusal.value.hint.startswith("pip install 'psycopg[binary]>=")


@pytest.mark.parametrize(
    ("url", "plain", "schema"),
    [
        ("postgresql://u@h/d", "postgresql://u@h/d", ""),
        ("postgresql://u@h/d?schema=a", "postgresql://u@h/d", "a"),
        ("postgresql://u@h/d?x=1&schema=a&y=2&", "postgresql://u@h/d?x=1&y=2", "a"),
        ("postgresql://u@h/d?schema=a&schema=b", "postgresql://u@h/d", "b"),
        ("postgresql:///d?host=%2Ftmp", "postgresql:///d?host=%2Ftmp", ""),
    ],
)
def test_a_schema_is_taken_from_a_url_and_put_into_one(url: str, plain: str, schema: str) -> None:
    assert split_schema(url) == (plain, schema)
    assert split_schema(with_schema(url, "other")) == (plain, "other")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h:1/d?schema=a", "postgresql://u@h:1/d?schema=a"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?user=u&password=secret&x=1", "postgresql://h/d?user=u&x=1"),
        ("postgres://u:s%40ecret@h/d?sslpassword=secret", "postgres://u@h/d"),
        ("postgresql:///d?host=%2Ftmp", "postgresql:///d?host=%2Ftmp"),
    ],
)
def test_a_url_loses_its_passwords_and_nothing_else(url: str, shown: str) -> None:
    assert without_password(url) == shown
