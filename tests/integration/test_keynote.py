"""The keynote pilot as its README plays it: every party's commands, and two mishaps."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from documented import ROOT

from fmfl_secure.run.record import decode_record
from privacy import Ledger

KEYNOTE = ROOT / "examples/keynote"
HOSPITALS = tuple(f"hospital-{n}" for n in range(1, 5))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["published", "stand-in"])
def test_the_keynote_is_played_to_its_end(tmp_path: Path, model: str) -> None:
    out = tmp_path / "keynote"
    done = subprocess.run(
        [
            sys.executable, str(KEYNOTE / "play.py"), "--out", str(out),
            *(["--stand-in"] if model == "stand-in" else []),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    logs = {path.name: path.read_text()[-1500:] for path in out.glob("logs/*.log")}
    assert done.returncode == 0, (done.stdout[-4000:], done.stderr[-3000:], logs)
    print(done.stdout)  # noqa: T201 - figures, shown by -rP
    was_played(out, done.stdout)


def was_played(out: Path, said: str) -> None:
    """What its README says happens, happened."""
    record = decode_record((out / "run/report.json").read_bytes())
    assert record.status == "finished"
    assert record.keys.compared
    rounds = {each.round: each for each in record.rounds}
    assert (rounds[3].status, rounds[3].cohort) == ("released", HOSPITALS)
    assert rounds[3].vanished == ("hospital-2",), "released with the update of who was gone"
    assert rounds[8].status == "lost"
    assert "hospital-4" in rounds[8].refusals
    # The run goes on without who was named, unless two would be left: a sum is of three at least.
    for number in range(9, 13):
        cohort = rounds[number].cohort
        assert ("hospital-4" in cohort) == ("hospital-2" not in cohort), number
    assert rounds[max(rounds)].cohort == HOSPITALS, "and with it once its program was mended"
    assert len([each for each in record.rounds if each.answer is not msgspec.UNSET]) == 2
    for name in HOSPITALS:
        budget = Ledger(out / name / "ledger.sqlite").budget()
        assert all(not held.open for held in budget.reservations.values())
        assert all(status.epsilon_committed <= 5.0 for status in budget.status())
    right, asked = map(int, re.search(r"right for (\d+) of (\d+) comments", said).groups())
    with (out / "data/new.csv").open(encoding="utf-8", newline="") as file:
        most = Counter(row["sentiment"] for row in csv.DictReader(file)).most_common(1)[0][1]
    assert right > most, asked


def test_a_program_with_a_mishap_is_a_sites_own_but_for_that() -> None:
    """The names that it replaces are there, as it calls them."""
    from aggregation import SiteAttempt

    text = (KEYNOTE / "mishap.py").read_text(encoding="utf-8")
    for name in re.findall(r"SiteAttempt\.(\w+) =", text):
        assert callable(getattr(SiteAttempt, name))
