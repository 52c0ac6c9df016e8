"""Heads of journals in others' hands: what they notice, and what nobody can make up."""

from __future__ import annotations

import shutil

import pytest

from aggregation import (
    Identity,
    JournalError,
    MemoryJournal,
    MessageError,
    SqliteJournal,
    hold_journal_to,
    is_journal_head,
    read_journal_head,
    recover_journal,
    sign_journal_head,
)
from aggregation.protocol.journal_heads import lacking

SITE, OTHER = Identity.generate("site-1"), Identity.generate("site-2")


@pytest.fixture
def put_back(tmp_path):
    """A journal put back to before its last entry, and the heads that were seen of it."""
    path, backup = tmp_path / "j.db", tmp_path / "backup.db"
    journal = SqliteJournal(path)
    journal.record("site/opened", "a", b"1")
    heads = [sign_journal_head(journal, SITE)]
    shutil.copy(path, backup)
    shutil.copy(f"{path}-wal", f"{backup}-wal") if (tmp_path / "j.db-wal").exists() else None
    journal.record("site/opened", "b", b"2")
    heads.append(sign_journal_head(journal, SITE))
    for file in tmp_path.glob("j.db*"):
        if not file.name.endswith(".made"):
            file.unlink()
    shutil.copy(backup, path)
    return SqliteJournal(path), heads


def test_a_journal_that_was_put_back_is_noticed_by_whoever_kept_a_head(put_back):
    journal, (earlier, later) = put_back
    hold_journal_to(journal, SITE.public, [earlier])
    with pytest.raises(JournalError, match="lacks entry 3, which others have seen"):
        hold_journal_to(journal, SITE.public, [earlier, later])


def test_and_still_once_it_has_grown_again(put_back):
    journal, (_, later) = put_back
    journal.record("site/opened", "c", b"3")
    journal.record("site/opened", "d", b"4")
    assert journal.head.sequence > read_journal_head(later).head.sequence
    with pytest.raises(JournalError, match="lacks entry 3"):
        hold_journal_to(journal, SITE.public, [later])


def test_one_begun_anew_lacks_every_head(put_back, tmp_path):
    _, heads = put_back
    fresh = SqliteJournal(tmp_path / "fresh.db")
    assert len(lacking(fresh, SITE.public, heads)) == 2


def test_a_recovered_one_goes_on_and_joins_nothing_old(tmp_path, put_back):
    journal, heads = put_back
    pinned = ("run/federation", f"{SITE.public.fingerprint}/00112233", b"tiny")
    journal.record(*pinned)
    barred = recover_journal(tmp_path / "j.db", SITE.public, reason="disk died", runs=["44556677"])
    assert barred == ["00112233", "44556677"]
    made = SqliteJournal(tmp_path / "j.db")
    assert made.lookup("site/opened", "a") == b"1", "what is left is kept"
    for run in barred:
        assert made.lookup("run/barred", f"{SITE.public.fingerprint}/{run}") == b""
    hold_journal_to(made, SITE.public, heads)
    # Its own heads hold it from then on.
    later = sign_journal_head(made, SITE)
    for file in tmp_path.glob("j.db*"):
        if ".lost-" not in file.name and not file.name.endswith(".made"):
            file.unlink()
    (old,) = [f for f in tmp_path.glob("j.db.lost-*") if not f.name.endswith(("-wal", "-shm"))]
    shutil.copy(old, tmp_path / "j.db")
    with pytest.raises(JournalError, match="another journal than the one made here"):
        SqliteJournal(tmp_path / "j.db")
    (tmp_path / "j.db.made").unlink()
    with pytest.raises(JournalError, match="lacks entry"):
        hold_journal_to(SqliteJournal(tmp_path / "j.db"), SITE.public, [later])


def test_heads_of_others_are_passed_over(put_back, tmp_path):
    journal, _ = put_back
    hold_journal_to(journal, SITE.public, [sign_journal_head(SqliteJournal(tmp_path / "o"), OTHER)])


def test_nobody_makes_up_a_head(put_back):
    _, (line, _) = put_back
    assert is_journal_head(line)
    for wrong in (
        line.replace(" 2 ", " 7 "),
        line[:-1] + ("0" if line[-1] != "0" else "1"),
        line.replace(SITE.public.key.hex(), OTHER.public.key.hex()),
        line + " ",
        "",
        "journal-head",
    ):
        with pytest.raises(MessageError):
            read_journal_head(wrong)


def test_a_journal_in_memory_has_no_head_to_keep():
    assert sign_journal_head(MemoryJournal(), SITE) is None
    hold_journal_to(MemoryJournal(), SITE.public, [])
