"""A server that hands sites adapters of its choice, over HTTPS: made up, earlier, another run's."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import Federation
from support import make_kits

from aggregation import Identity
from fmfl_secure.run.record import decode_record
from privacy import Ledger

pytestmark = pytest.mark.slow  # two runs of seven processes
HONEST = tuple(f"site-{n}" for n in range(1, 5))
FORGETFUL = "site-5"  # keeps 0.1.0's rule, by which a site believed the adapter that it was handed
SITES = (*HONEST, FORGETFUL)


def carried(folder: Path, output: str, *, server: str = "", forgetful: str = "") -> None:
    federation = Federation(folder)
    federation.output = folder / output
    try:
        federation.start("server", server)
        federation.start("decryptor")
        for name in SITES:
            federation.start(name, forgetful if name == FORGETFUL else "")
        federation.wait()
    finally:
        federation.close()


@pytest.fixture(scope="module")
def lied(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run that ends well, and a second one whose server lies about every adapter of round 2."""
    folder = tmp_path_factory.mktemp("adapters")
    kits = make_kits(folder, tiny_model, sites=5, rounds=2, steps=1, evaluation=False)
    for name in SITES:
        identity = Identity.load(kits / name / "identity.pem")
        ledger = Ledger(kits / name / "ledger.sqlite", signer=identity)
        ledger.grant(epsilon=50.0, delta=1e-4, delta_reason="two runs are held")
    carried(folder, "first")
    assert decode_record((folder / "first/report.json").read_bytes()).status == "finished"
    for log in (folder / "logs").glob("*.log"):
        log.unlink()
    carried(folder, "run", server=f"hands:{folder / 'first'}", forgetful="forgetful")
    return folder


def started(folder: Path, name: str) -> list[int]:
    """Rounds of the second run that a site's ledger was charged for."""
    run = decode_record((folder / "run/report.json").read_bytes()).run
    ledger = Ledger(folder / f"kits/{name}/ledger.sqlite")
    return [number for number, _ in ledger.budget().reservations[run].commits]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("site-1", "the adapter is not the one the last sum gives", id="made up"),
        pytest.param("site-2", "the adapter is not the one the last sum gives", id="earlier"),
        pytest.param("site-3", "the plan's adapter is not the one agreed here", id="unsigned"),
        pytest.param("site-4", "the adapter is not the one the last sum gives", id="another run's"),
    ],
)
def test_a_site_refuses_it_by_name_and_spends_nothing(lied: Path, name: str, why: str) -> None:
    assert f"{name}: {why}" in (lied / f"logs/{name}.log").read_text()
    assert started(lied, name) == [1]
    record = decode_record((lied / "run/report.json").read_bytes())
    assert record.status == "stopped"
    assert [one.round for one in record.rounds] == [1]
    assert {site.name: site.refusal for site in record.sites}[name] == "run"


def test_one_that_remembers_nothing_trains_on_it(lied: Path) -> None:
    """As all did in 0.1.0: the arm in which the attack works, over the same wire."""
    assert started(lied, FORGETFUL) == [1, 2]
