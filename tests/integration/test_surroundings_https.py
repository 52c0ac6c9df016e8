"""Processes over HTTPS, with a network, disks and kills that are drawn from a seed."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import pytest
from processes import Federation
from proxy import KINDS, Proxy
from support import make_kits

from fmfl_secure.run.record import decode_record
from fmfl_secure.transports.https.ports import free_port
from privacy import Ledger

pytestmark = pytest.mark.slow  # processes of their own

SITES = ("site-1", "site-2", "site-3")
PARTIES = ("server", "decryptor", *SITES)
# Where a kill costs no site a training that it had not stored: those are `test_service_kills`'.
KILLS = {
    "server": ["before:accept:2", "after:accept:5", "after:accept:9", "after:cohort:1",
               "after:list:1", "after:apply:1", "after:finish:1"],
    "decryptor": ["after:announce:1", "after:confirm:1", "after:release:1"],
    "site-2": ["after:store:1", "after:ready:1", "after:exchange:1", "after:upload:1"],
}  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_kits(folder, tiny_model, rounds=2, steps=1, evaluation=False, time="gather_s = 60")
    return folder


def through(folder: Path) -> tuple[int, int]:
    """Have parties connect to another port than the server's; both of them."""
    port = free_port()
    for name in ("decryptor", *SITES):
        file = folder / "kits" / name / "service.toml"
        text = file.read_text()
        listens = int(re.search(r"localhost:(\d+)", text)[1])  # type: ignore[index]
        text = text.replace(f":{listens}", f":{port}")
        file.write_text(text.replace("retry_s = 0.5", "retry_s = 0.5\npoll_s = 2\ntimeout_s = 2"))
    return port, listens


@pytest.mark.parametrize("seed", range(20))
def test_a_run_comes_to_its_end(tmp_path: Path, template: Path, seed: int) -> None:
    drawn = random.Random(seed)
    folder = tmp_path / "federation"
    shutil.copytree(template, folder)
    victim = drawn.choice([*KILLS, ""])
    points = dict.fromkeys(PARTIES, f"faulty:{seed}")
    if victim:
        points[victim] += f"+{drawn.choice(KILLS[victim])}"
    federation = Federation(folder)
    port, listens = through(folder)
    with Proxy(port, listens, seed=seed) as proxy:
        try:
            for name in PARTIES:
                federation.start(name, points[name])
            killed = federation.wait(restart=True)
            state = federation.state()
        finally:
            federation.close()
    assert set(killed) <= {victim}, state
    assert set(proxy.met) <= set(KINDS)
    assert proxy.met.total() > 0
    record = decode_record((folder / "run/report.json").read_bytes())
    assert (record.status, record.stop_reason) == ("finished", ""), state
    assert all(not r.refusals for r in record.rounds), state
    assert sum(r.status == "lost" for r in record.rounds) <= len(killed), state
    for name in SITES:
        budget = Ledger(folder / f"kits/{name}/ledger.sqlite").budget()
        (held,) = budget.reservations.values()
        numbers = [number for number, _ in held.commits]
        assert numbers == sorted(set(numbers)), state
