"""A ledger put back from a backup, in a federation across processes: its site takes no part."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from processes import Federation
from support import make_kits

from fmfl_secure.run.record import RunRecord, decode_record
from privacy import Ledger

pytestmark = pytest.mark.slow  # two runs by processes of their own

SITES = ("site-1", "site-2", "site-3", "site-4")


def run(folder: Path, number: int) -> RunRecord:
    federation = Federation(folder)
    federation.output = folder / f"run-{number}"
    try:
        for name in ("server", "decryptor", *SITES):
            federation.start(name)
        federation.wait()
    finally:
        federation.close()
    return decode_record((federation.output / "report.json").read_bytes())


@pytest.mark.parametrize("forgot", ["server", "sites"])
def test_a_restored_ledger_is_locked_over_the_service(
    tmp_path: Path, tiny_model: Path, forgot: str
) -> None:
    folder = tmp_path / "federation"
    kits = make_kits(folder, tiny_model, sites=4, rounds=1, epsilon=3.0, evaluation=False)
    path = kits / "site-1/ledger.sqlite"
    Ledger(path).records()  # which leaves nothing in the write-ahead log
    shutil.copy(path, folder / "backup")
    assert run(folder, 1).rounds[0].cohort == SITES
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.copy(folder / "backup", path)
    # Whoever else remembers is enough.
    forgotten = "server/coordinator/anchors.sqlite*" if forgot == "server" else "site-*/anchors.*"
    files = list(kits.glob(forgotten))
    assert files
    for file in files:
        file.unlink()
    # The others can afford a second run.
    from aggregation import Identity

    for name in SITES[1:]:
        signer = Identity.load(kits / name / "identity.pem")
        Ledger(kits / name / "ledger.sqlite", signer=signer).grant(
            epsilon=3.0, delta=1e-5, population_size=1000, purpose="a second run"
        )
    record = run(folder, 2)
    assert record.status == "finished"
    assert record.rounds[0].cohort == SITES[1:]
    assert record.rounds[0].refusals == {"site-1": "ledger-locked"}
    kinds = [entry.kind for entry in Ledger(path).records()]
    assert "commit" not in kinds, "nothing was charged, and so nothing trained"
    assert (kits / "site-1/lost-heads.jsonl").exists()
