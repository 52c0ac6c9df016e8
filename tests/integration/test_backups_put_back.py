"""One party's files are put back from a backup, in every combination, in the middle of a run.

What was forgotten is noticed: nothing is spent beyond what the latest ledger says, no round is
opened twice, and whoever lost nothing of that kind goes on.
"""

from __future__ import annotations

import itertools
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from faults import Killed
from support import Quiet, make_federation

from aggregation import AggregationError
from fmfl_secure.errors import FmflError
from fmfl_secure.report.results import build_record
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

pytestmark = pytest.mark.usefixtures("quick")

SITES = ("site-1", "site-2", "site-3", "site-4")
FOLDERS = {
    "site": ("sites/site-2", ("ledger", "journal", "updates", "anchors")),
    "decryptor": ("decryptor", ("journal",)),
    "custodian": ("custodians/board", ("journal",)),
    "coordinator": ("coordinator", ("anchors",)),
    "run": ("run", ("state",)),
}
CASES = [
    (party, files)
    for party, (_, all_files) in FOLDERS.items()
    for count in range(1, len(all_files) + 1)
    for files in itertools.combinations(all_files, count)
]
SAMPLE = {("site", ("ledger",))}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("backups") / "federation"
    make_federation(
        folder, tiny_model, sites=4, rounds=3, steps=1, evaluation=False,
        aggregation='custodians = ["board"]',
    )  # fmt: skip
    return folder


class BackingUp(Quiet):
    """Copies everything after the first round, and ends the process after the second."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        super().round_finished(record, epsilon, upload_bytes)
        if record.round == 1:
            shutil.copytree(self.folder, self.folder.with_name("backup"))
        else:
            raise Killed


def charges(folder: Path) -> list[int]:
    budget = Ledger(folder / "sites/site-2/ledger.sqlite").budget()
    return [n for held in budget.reservations.values() for n, _ in held.commits]


@pytest.mark.parametrize(
    ("party", "files"),
    [
        pytest.param(
            *case,
            id=f"{case[0]}-{'-'.join(case[1])}",
            marks=() if case in SAMPLE else pytest.mark.slow,
        )
        for case in CASES
    ],
)
def test_a_backup_put_back_spends_and_opens_nothing_twice(
    template: Path, tmp_path: Path, party: str, files: tuple[str, ...]
) -> None:
    folder = tmp_path / "federation"
    shutil.copytree(template, folder)
    federation, output = folder / "federation.toml", folder / "run"
    with pytest.raises(Killed):
        LocalEngine(federation, output, resume=False, observer=BackingUp(folder)).run()
    assert charges(folder) == [1, 2]
    place = FOLDERS[party][0]
    for name in files:
        for old in (folder / place).glob(f"*{name}.sqlite*"):
            if not old.name.endswith(".made"):
                old.unlink()
        for old in (tmp_path / "backup" / place).glob(f"*{name}.sqlite*"):
            if name != "anchors" or "anchors" in old.name:
                shutil.copy(old, folder / place)

    with suppress(FmflError, AggregationError):  # the run, or the party, may not go on
        LocalEngine(federation, output, resume=True, observer=Quiet()).run()

    record = build_record(RunStore(output))
    digests = [r.release_digest for r in record.rounds if r.status == "released"]
    assert len(set(digests)) == len(digests)
    forgot = {"ledger", "journal"} & set(files)
    if party == "site" and not forgot:
        assert [r.cohort for r in record.rounds] == [SITES] * 3
        assert charges(folder) == [1, 2, 3]
    elif party == "site":
        assert record.rounds[-1].round == 3
        assert record.rounds[-1].cohort == ("site-1", "site-3", "site-4")
        # An older ledger is not charged for more: it does not know what was spent.
        assert charges(folder) == ([1] if "ledger" in forgot else [1, 2])
    else:
        assert len(set(charges(folder))) == len(charges(folder))
