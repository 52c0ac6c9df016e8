"""A site's stored updates: sealed, bound to their round, and gone once forgotten."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fmfl_secure.errors import RunDamaged, RunError
from fmfl_secure.storage.update_store import UpdateStore

KEY = bytes(range(32))
# Long enough to spread over several pages of the file.
UPDATE = np.arange(-20_000, 20_000, dtype=np.int32) * 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "updates.sqlite"


def execute(path: Path, statement: str, *values) -> list:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def sealed(path: Path, round_number: int = 1) -> bytes:
    ((blob,),) = execute(path, "SELECT sealed FROM updates WHERE round = ?", round_number)
    return blob


def test_an_update_is_read_back_also_after_a_restart(path: Path) -> None:
    store = UpdateStore(path, KEY)
    assert store.get("run", 1) is None
    store.put("run", 1, UPDATE)
    store.put("run", 2, -UPDATE)
    store.put("other", 1, UPDATE[:5])
    for each in (store, UpdateStore(path, KEY)):
        assert np.array_equal(each.get("run", 1), UPDATE)
        assert np.array_equal(each.get("run", 2), -UPDATE)
        assert np.array_equal(each.get("other", 1), UPDATE[:5])
        assert each.get("run", 3) is None
    assert store.get("run", 1).dtype == np.int32


@pytest.mark.parametrize("values", [[], [2**31 - 1, -(2**31)]])
def test_extreme_updates(path: Path, values: list[int]) -> None:
    store = UpdateStore(path, KEY)
    store.put("run", 1, np.array(values, dtype=np.int32))
    assert store.get("run", 1).tolist() == values


def test_a_rounds_update_is_stored_once(path: Path) -> None:
    store = UpdateStore(path, KEY)
    store.put("run", 1, UPDATE)
    with pytest.raises(RunError, match="failed"):
        store.put("run", 1, -UPDATE)
    assert np.array_equal(store.get("run", 1), UPDATE)


def test_nothing_is_stored_in_the_clear_and_equal_updates_look_different(path: Path) -> None:
    store = UpdateStore(path, KEY)
    store.put("run", 1, UPDATE)
    store.put("run", 2, UPDATE)
    data = path.read_bytes()
    for start in range(0, UPDATE.size, 4000):
        assert UPDATE[start : start + 4].astype("<i4").tobytes() not in data
    assert sealed(path, 1) != sealed(path, 2)
    assert len(sealed(path)) == 12 + UPDATE.nbytes + 16


@pytest.mark.parametrize("position", [0, 11, 12, 1000, -17, -1])
def test_a_flipped_bit_is_noticed(path: Path, position: int) -> None:
    store = UpdateStore(path, KEY)
    store.put("run", 1, UPDATE)
    blob = bytearray(sealed(path))
    blob[position] ^= 1
    execute(path, "UPDATE updates SET sealed = ?", bytes(blob))
    with pytest.raises(RunError, match="round 1 does not verify"):
        store.get("run", 1)


@pytest.mark.parametrize("blob", [b"", b"x" * 11, b"x" * 27])
def test_a_cut_blob_is_noticed(path: Path, blob: bytes) -> None:
    store = UpdateStore(path, KEY)
    store.put("run", 1, UPDATE)
    execute(path, "UPDATE updates SET sealed = ?", blob)
    with pytest.raises(RunError, match="does not verify"):
        store.get("run", 1)


def test_another_key_opens_nothing(path: Path) -> None:
    UpdateStore(path, KEY).put("run", 1, UPDATE)
    with pytest.raises(RunError, match="does not verify"):
        UpdateStore(path, KEY[::-1]).get("run", 1)


@pytest.mark.parametrize("column", ["round = 2", "run = 'other'"])
def test_an_update_moved_to_another_round_or_run_is_refused(path: Path, column: str) -> None:
    store = UpdateStore(path, KEY)
    store.put("run", 1, UPDATE)
    execute(path, f"UPDATE updates SET {column}")
    run, number = ("run", 2) if "round" in column else ("other", 1)
    with pytest.raises(RunError, match="does not verify"):
        store.get(run, number)


def test_forgetting_takes_that_run_up_to_that_round(path: Path) -> None:
    store = UpdateStore(path, KEY)
    for number in (1, 2, 3):
        store.put("run", number, UPDATE)
    store.put("other", 1, UPDATE)
    store.forget("run", 2)
    assert store.get("run", 1) is None
    assert store.get("run", 2) is None
    assert store.get("run", 3) is not None
    assert store.get("other", 1) is not None
    store.forget("run", 2)


def test_what_is_forgotten_is_in_no_file_any_more(path: Path) -> None:
    store = UpdateStore(path, KEY)
    store.put("run", 1, UPDATE)
    store.put("run", 2, -UPDATE)
    blob = sealed(path)
    pieces = [blob[start : start + 64] for start in range(0, len(blob) - 64, 4096)]
    assert any(piece in path.read_bytes() for piece in pieces)
    store.forget("run", 1)
    files = [file.read_bytes() for file in path.parent.iterdir()]
    assert files
    assert not any(piece in data for piece in pieces for data in files)
    assert np.array_equal(store.get("run", 2), -UPDATE)


def test_the_key_comes_from_the_sites_folder(tmp_path: Path) -> None:
    key = tmp_path / "storage.key"
    with pytest.raises(RunError, match=r"cannot read .*storage\.key"):
        UpdateStore.open(tmp_path)
    key.write_bytes(KEY)
    key.chmod(0o600)
    UpdateStore.open(tmp_path).put("run", 1, UPDATE)
    assert np.array_equal(UpdateStore(tmp_path / "updates.sqlite", KEY).get("run", 1), UPDATE)
    for mode in (0o640, 0o604, 0o622):
        key.chmod(mode)
        with pytest.raises(RunError, match="others may read") as refusal:
            UpdateStore.open(tmp_path)
        assert "chmod 600" in refusal.value.hint
    key.chmod(0o600)
    for wrong in (b"", KEY[:31], KEY + b"\n"):
        key.write_bytes(wrong)
        with pytest.raises(RunError, match="32 bytes"):
            UpdateStore.open(tmp_path)


def test_a_damaged_file_is_a_typed_error(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(RunError, match="stored updates"):
        UpdateStore(path, KEY)
    path.unlink()
    store = UpdateStore(path, KEY)
    execute(path, "DROP TABLE updates")
    for call in (
        lambda: store.get("run", 1),
        lambda: store.put("run", 1, UPDATE),
        lambda: store.forget("run", 1),
    ):
        with pytest.raises(RunError, match="stored updates"):
            call()


def test_what_opens_an_attempt_is_sealed_in_a_file_of_its_own_and_erased(path: Path) -> None:
    store, file = UpdateStore(path, KEY), path.with_name("attempts.sqlite")
    store.forget_attempt("aa")
    assert store.kept_attempt("aa", 1, 1) == b""
    assert not file.exists(), "where every site must open it is never made"
    secret, later = b"seed of a mask, and shares of others'", b"of the next attempt"
    store.keep_attempt("aa", 1, 1, secret)
    store.keep_attempt("bb", 1, 1, later)
    again = UpdateStore(path, KEY)
    assert again.kept_attempt("aa", 1, 1) == secret
    assert again.kept_attempt("aa", 1, 2) == again.kept_attempt("aa", 2, 1) == b""
    assert all(secret not in each.read_bytes() for each in path.parent.glob("attempts.sqlite*"))
    again.keep_attempt("aa", 1, 2, later)
    assert again.kept_attempt("aa", 1, 1) == b"", "one of a run at a time"
    execute(file, "UPDATE attempts SET attempt = 3 WHERE run = 'aa'")
    with pytest.raises(RunDamaged, match="does not verify"):
        store.kept_attempt("aa", 1, 3)
    store.forget_attempt("aa")
    assert store.kept_attempt("aa", 1, 3) == b""
    assert store.kept_attempt("bb", 1, 1) == later
