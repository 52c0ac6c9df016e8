import shutil
import sqlite3
import stat
import threading

import pytest

from aggregation import JournalError, MemoryJournal, RecordedError, SqliteJournal


@pytest.fixture(params=["memory", "sqlite"])
def journal(request, tmp_path):
    return MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path / "j.db")


def test_an_entry_is_written_once(journal):
    assert journal.lookup("kind", "key") is None
    journal.record("kind", "key", b"value")
    for value in (b"value", b"other"):
        with pytest.raises(RecordedError):
            journal.record("kind", "key", value)
    assert journal.lookup("kind", "key") == b"value"
    journal.record("other", "key", b"")
    assert journal.lookup("other", "key") == b""


def test_one_of_many_writers_wins(journal):
    outcomes = []

    def write(i):
        try:
            journal.record("kind", "key", bytes([i]))
            outcomes.append(i)
        except RecordedError:
            pass

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bytes([i]) for i in outcomes] == [journal.lookup("kind", "key")]


def test_it_survives_a_restart_and_is_private(tmp_path):
    path = tmp_path / "j.db"
    SqliteJournal(path).record("kind", "key", b"value")
    assert SqliteJournal(path).lookup("kind", "key") == b"value"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_what_is_no_journal_is_refused(tmp_path):
    path = tmp_path / "j.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(JournalError):
        SqliteJournal(path)
    with pytest.raises(JournalError):
        SqliteJournal(tmp_path / "no" / "folder")


def test_a_lost_file_is_an_error_not_an_empty_journal(tmp_path):
    path = tmp_path / "j.db"
    journal = SqliteJournal(path)
    path.unlink()
    with pytest.raises(JournalError):
        journal.lookup("kind", "key")


def test_what_is_kept_open_is_on_the_disk_before_a_word_leaves(tmp_path):
    path, crashed = tmp_path / "j.db", tmp_path / "crashed"
    journal = SqliteJournal(path)
    with journal.kept_open():
        journal.record("site/opened", "key", b"value")
        # What the disk holds should the process, or the machine, die now.
        crashed.mkdir()
        for file in tmp_path.glob("j.db*"):
            shutil.copy(file, crashed)
    found = SqliteJournal(crashed / "j.db")
    assert found.lookup("site/opened", "key") == b"value"
    assert found.head == journal.head


def test_two_that_keep_one_file_open_extend_one_chain(tmp_path):
    path = tmp_path / "j.db"
    one, other = SqliteJournal(path), SqliteJournal(path)
    with one.kept_open(), other.kept_open(), one.kept_open():
        one.record("kind", "a", b"1")
        with pytest.raises(RecordedError):
            other.record("kind", "a", b"2")
        other.record("kind", "b", b"3")
        with pytest.raises(RecordedError):
            one.record("kind", "b", b"4")
        assert one.head == other.head
    assert SqliteJournal(path).head == one.head
    assert sorted(file.name for file in tmp_path.iterdir()) == ["j.db", "j.db.made"]


def test_threads_share_the_one_that_is_kept_open(tmp_path):
    journal = SqliteJournal(tmp_path / "j.db")
    with journal.kept_open():
        test_one_of_many_writers_wins(journal)
    assert SqliteJournal(tmp_path / "j.db").head.sequence == 2


def test_one_that_takes_the_place_of_the_one_kept_open_is_noticed(tmp_path):
    path, older = tmp_path / "j.db", tmp_path / "older"
    journal = SqliteJournal(path)
    older.mkdir()
    shutil.copy(path, older)
    with journal.kept_open():
        journal.record("kind", "key", b"value")
        head = journal.head
        for file in tmp_path.glob("j.db*"):
            if not file.name.endswith(".made"):
                file.unlink()
        with pytest.raises(JournalError, match="is missing, and there was one"):
            journal.record("kind", "other", b"value")
        assert not path.exists(), "nothing is begun in its place"
        (older / "j.db").rename(path)
        assert journal.lookup("kind", "key") is None
        assert not journal.holds(head)


def make_0_1_0(path, entries):
    """A journal as 0.1.0 made it: entries, and no chain."""
    connection = sqlite3.connect(path)
    connection.execute(
        "CREATE TABLE entries (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, "
        "PRIMARY KEY (kind, key)) STRICT, WITHOUT ROWID"
    )
    connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", entries)
    connection.commit()
    connection.close()


def change(path, statement, *values):
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_one_that_is_missing_where_one_was_is_refused_and_not_begun_anew(tmp_path):
    path = tmp_path / "j.db"
    SqliteJournal(path).record("kind", "key", b"value")
    for file in tmp_path.glob("j.db*"):
        if not file.name.endswith(".made"):
            file.unlink()
    with pytest.raises(JournalError, match="is missing, and there was one"):
        SqliteJournal(path)
    assert not path.exists()


def test_another_one_in_its_place_is_refused(tmp_path):
    path, other = tmp_path / "j.db", tmp_path / "other" / "j.db"
    other.parent.mkdir()
    SqliteJournal(path)
    SqliteJournal(other)
    for file in tmp_path.glob("j.db-*"):
        file.unlink()
    path.write_bytes(other.read_bytes())
    with pytest.raises(JournalError, match="another journal than the one made here"):
        SqliteJournal(path)


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        ("DELETE FROM entries WHERE key = ?", ("b",)),
        ("UPDATE entries SET value = ? WHERE key = 'b'", (b"x",)),
        ("UPDATE entries SET key = ? WHERE key = 'b'", ("c",)),
        ("INSERT INTO entries VALUES ('kind', ?, x'00')", ("z",)),
        ("DELETE FROM chain WHERE key = ?", ("b",)),
        ("DELETE FROM chain WHERE sequence = ?", (1,)),
        ("UPDATE chain SET sequence = 9 WHERE key = ?", ("c2",)),
    ],
    ids=["entry gone", "value", "key", "entry more", "chain cut", "no beginning", "gap"],
)
def test_a_change_is_noticed_when_it_is_opened(tmp_path, statement, values):
    path = tmp_path / "j.db"
    journal = SqliteJournal(path)
    for key in ("a", "b", "c2"):
        journal.record("kind", key, key.encode())
    change(path, statement, *values)
    with pytest.raises(JournalError, match="does not verify"):
        SqliteJournal(path)


def test_every_entry_moves_the_head_and_the_journal_holds_its_earlier_ones(tmp_path):
    journal = SqliteJournal(tmp_path / "j.db")
    heads = [journal.head]
    for key in "abc":
        journal.record("kind", key, b"value")
        heads.append(journal.head)
    assert [head.sequence for head in heads] == [1, 2, 3, 4]
    assert all(journal.holds(head) for head in heads)
    assert SqliteJournal(tmp_path / "j.db").head == heads[-1]
    other = SqliteJournal(tmp_path / "o.db")
    assert not any(other.holds(head) for head in heads)


def test_one_of_0_1_0_is_taken_over_once_and_said(tmp_path, caplog):
    path = tmp_path / "j.db"
    opened = ("site/opened", "sha256:ab/tiny/00112233/1", b"opening")
    make_0_1_0(path, [opened, ("site/ready", "sha256:ab/tiny/00112233/1/1", b"ready")])
    journal = SqliteJournal(path)
    assert "took over the journal" in caplog.text
    assert "2 entries" in caplog.text
    assert journal.lookup(*opened[:2]) == b"opening"
    assert journal.lookup("run/federation", "sha256:ab/00112233") == b"tiny"
    head = journal.head
    caplog.clear()
    assert SqliteJournal(path).head == head
    assert caplog.text == ""
    change(path, "DELETE FROM entries WHERE kind = 'site/opened'")
    with pytest.raises(JournalError, match="does not verify"):
        SqliteJournal(path)


def test_a_new_one_is_not_passed_off_as_one_of_0_1_0(tmp_path):
    path = tmp_path / "j.db"
    SqliteJournal(path).record("site/opened", "sha256:ab/tiny/00112233/1", b"opening")
    change(path, "DROP TABLE chain")
    change(path, "DELETE FROM entries")
    with pytest.raises(JournalError, match="has lost its chain"):
        SqliteJournal(path)


@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite.made"])
def test_a_folder_in_its_place_is_damage_and_is_not_waited_for(tmp_path, name: str) -> None:
    SqliteJournal(tmp_path / "journal.sqlite")
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(JournalError) as refused:
        SqliteJournal(tmp_path / "journal.sqlite")
    assert refused.value.nature == "damage"
