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
