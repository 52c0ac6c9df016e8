"""Rows that cannot be used are told of at the site and where figures are made, and nowhere else."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from support import make_federation
from typer.testing import CliRunner

from fmfl_secure import Federation, Run
from fmfl_secure.cli import app
from fmfl_secure.data import DataError


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Federation:
    """Three sites; half of what site-1 has says its label in capitals."""
    folder = tmp_path_factory.mktemp("left-out")
    make_federation(folder, tiny_model, rounds=1, privacy="delta = 1e-4")
    capitals(folder / "data/site-1.csv")
    return Federation(folder)


@pytest.fixture(scope="module")
def trained(pilot: Federation) -> tuple[Run, list[str]]:
    """A run of theirs, and what was logged meanwhile."""
    told: list[str] = []
    noting = logging.Handler()
    noting.emit = lambda record: told.append(record.getMessage())
    logging.getLogger("fmfl_secure").addHandler(noting)
    try:
        return pilot.run(pilot.folder / "run"), told
    finally:
        logging.getLogger("fmfl_secure").removeHandler(noting)


def capitals(path: Path) -> None:
    """Write one label of a table in capitals."""
    header, *rows = path.read_text("utf-8").splitlines()
    one = rows[0].rpartition(",")[2]
    changed = [row[: -len(one)] + one.upper() if row.endswith(f",{one}") else row for row in rows]
    path.write_text("\n".join([header, *changed]) + "\n", "utf-8")


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_site_that_loses_half_of_its_rows_learns_of_it_and_nobody_else(
    trained: tuple[Run, list[str]],
) -> None:
    run, messages = trained
    (told,) = [message for message in messages if "rows cannot be used" in message]
    assert told.startswith("site-1: ")
    assert "in case alone (row" in told
    assert run.record.rounds[0].cohort == ("site-1", "site-2", "site-3")
    for file in run.folder.rglob("*"):
        assert not file.is_file() or b"cannot be used" not in file.read_bytes(), file


def test_check_counts_them_all(pilot: Federation) -> None:
    done = invoke("check", pilot.folder / "federation.toml", "site-1")
    assert done.exit_code == 1
    assert "rows cannot be used" in str(done.exception)
    assert "in case alone" in str(done.exception)
    assert invoke("check", pilot.folder / "federation.toml", "site-2").exit_code == 0


def test_evaluate_says_of_how_many_and_refuses_figures_of_few(
    pilot: Federation, trained: tuple[Run, list[str]], tmp_path: Path
) -> None:
    run = trained[0].folder
    whole, broken = pilot.folder / "data/holdout.csv", tmp_path / "broken.csv"
    done = invoke("evaluate", run, "--data", whole)
    assert done.exit_code == 0
    assert "n         30" in done.output
    shutil.copy(whole, broken)
    capitals(broken)
    refused = invoke("evaluate", run, "--data", broken)
    assert refused.exit_code == 1
    assert isinstance(refused.exception, DataError)
    assert "rows cannot be used" in str(refused.exception)
    assert "--max-left-out" in refused.exception.hint
    done = invoke("evaluate", run, "--data", broken, "--max-left-out", "0.9")
    assert done.exit_code == 0
    assert "left out: " in done.output


def test_predict_names_every_sort_of_row_it_cannot_answer(
    trained: tuple[Run, list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "new.csv"
    path.write_text("text,label\nfine,x\n,x\n,x\n", "utf-8")
    output = tmp_path / "answers.jsonl"
    done = invoke("predict", trained[0].folder, "--data", path, "--output", output)
    assert done.exit_code == 1
    assert "2 of 3 rows cannot be used: 2 with no text (rows 2, 3)" in str(done.exception)
    assert not output.exists()
