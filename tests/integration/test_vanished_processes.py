"""kill -9 for good of sites that have uploaded, over HTTPS: the round has their updates in it.

Whoever is killed is so once it is asked to open. That the sum has its update in it the others have
verified, each by the MAC, or they would not have ended so.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import Federation
from support import make_kits

from fmfl_secure.run.record import decode_record
from privacy import Ledger

pytestmark = pytest.mark.slow  # processes of their own, and waiting for their time limits


@pytest.mark.parametrize(
    ("sites", "vanished", "killed", "restart"),
    [
        (4, 1, ("site-2",), False),
        (8, 2, ("site-1", "site-6"), False),
        (4, 1, ("site-2", "site-3"), True),
    ],
    ids=["one of four", "two of eight", "two of four come back"],
)
def test_killed_after_the_upload_the_round_has_them(
    tmp_path: Path,
    tiny_model: Path,
    sites: int,
    vanished: int,
    killed: tuple[str, ...],
    restart: bool,
) -> None:
    more = {
        "sites": sites, "rounds": 1, "steps": 1, "evaluation": False,
        "federation": f"vanished_sites = {vanished}",
    }  # fmt: skip
    folder, names = tmp_path / "federation", [f"site-{n}" for n in range(1, sites + 1)]
    # Who was killed is waited for as long as that; who was started again says at once what it lost.
    wait_s = 180.0 if restart else 10.0
    make_kits(
        folder, tiny_model, time=f"open_s = {wait_s}\nverify_s = {wait_s}\nend_s = 20.0\n", **more
    )
    federation = Federation(folder)
    try:
        for name in ("server", "decryptor", *names):
            federation.start(name, "before:open:1" if name in killed else "")
        died = federation.wait(restart=restart)
        state = federation.state()
    finally:
        federation.close()
    assert died == (dict.fromkeys(killed, 1) if restart else {}), state
    assert all(federation.processes[name].exitcode == (0 if restart else -9) for name in killed)
    record = decode_record((folder / "run/report.json").read_bytes())
    (released,) = record.rounds
    assert (record.status, released.status) == ("finished", "released"), state
    assert released.cohort == tuple(names), state
    if not restart:
        assert released.vanished == killed, state
        assert released.attempts == 1
    for name in names:
        budget = Ledger(folder / f"kits/{name}/ledger.sqlite").budget()
        (held,) = budget.reservations.values()
        assert [number for number, _ in held.commits] == [1], "trained and charged once"
