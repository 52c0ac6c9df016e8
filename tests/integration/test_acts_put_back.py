"""A party's log of acts that was put back between two runs: whoever carried its head remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import Quiet, make_federation

from fmfl_secure.parties.acts import FILE, ActLog, ActsDamaged
from fmfl_secure.transports.local.engine import LocalEngine

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """With an entry in each log; then a second one, and a run."""
    folder = tmp_path_factory.mktemp("acts") / "federation"
    make_federation(folder, tiny_model, rounds=1, steps=1, evaluation=False, grant=20.0)
    for place in PLACES.values():
        log = ActLog(folder / place)
        log.begin("init", {})
        shutil.copy(log.path, log.path.with_name("backup"))
        log.begin("run", {})
    run(folder, "run")
    return folder


PLACES = {"coordinator": "", "site": "sites/site-2", "decryptor": "decryptor"}


def run(folder: Path, output: str) -> None:
    LocalEngine(folder / "federation.toml", folder / output, resume=False, observer=Quiet()).run()


@pytest.mark.parametrize("party", PLACES)
def test_it_is_refused_until_it_was_put_right_or_that_was_said(folder: Path, party: str) -> None:
    log = ActLog(folder / PLACES[party])
    latest = log.path.with_name("latest")
    shutil.copy(log.path, latest)
    shutil.copy(log.path.with_name("backup"), log.path)
    with pytest.raises(ActsDamaged, match="which others have seen"):
        run(folder, "refused")
    if party == "site":
        ActLog(folder / PLACES[party]).recover("the disk failed")
    else:
        shutil.copy(latest, log.path)
    run(folder, "again")


def test_one_that_is_gone_with_all_that_tells_of_it_is_missed(folder: Path) -> None:
    place = folder / PLACES["site"]
    (place / FILE).unlink()
    (place / f"{FILE}.made").unlink()
    with pytest.raises(ActsDamaged, match="begun anew"):
        run(folder, "refused")
