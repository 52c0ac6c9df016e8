"""Across machines, a server and a decryptor in league: every site sees for itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from invented import INVENTED
from processes import Federation
from support import make_kits

from aggregation import Identity
from fmfl_secure.run.record import decode_record
from privacy import Ledger

CREDULOUS = "site-4"  # keeps 0.1.0's rule, by which a site reserved for any run it heard of
SITES = tuple(f"site-{n}" for n in range(1, 5))
PRIVACY = 'noise = "distributed"\ninsider_epsilon = 30.0\ndelta = 1e-4\n'


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Shares for sums of four; a coordinator that signs three; sites whose own rule is three."""
    folder = tmp_path_factory.mktemp("lies")
    kits = make_kits(
        folder, tiny_model, sites=4, rounds=1, steps=1, privacy=PRIVACY,
        federation="min_sites = 4", evaluation=False,
    )  # fmt: skip
    for name in SITES:
        file = kits / name / "site.toml"
        text = file.read_text()
        assert "min_sites = 4" in text
        file.write_text(text.replace("min_sites = 4", "min_sites = 3"))
    ledger = kits / CREDULOUS / "ledger.sqlite"
    more = Ledger(ledger, signer=Identity.load(kits / CREDULOUS / "identity.pem"))
    more.grant(epsilon=8.0, delta=1e-4, insider_epsilon=30.0, delta_reason="two runs are held")
    federation = Federation(folder)
    try:
        federation.start("server", "signs:3+invents")
        federation.start("decryptor", "careless")
        for name in SITES:
            federation.start(name, "credulous" if name == CREDULOUS else "")
        federation.wait()
    finally:
        federation.close()
    return folder


def test_every_site_refuses_a_plan_for_a_smaller_cohort_and_is_charged_nothing(
    ended: Path,
) -> None:
    record = decode_record((ended / "run/report.json").read_bytes())
    assert record.status == "stopped"
    assert record.rounds == ()
    assert {site.name: site.refusal for site in record.sites} == dict.fromkeys(SITES, "run")
    for name in SITES:
        log = (ended / f"logs/{name}.log").read_text()
        assert f"{name}: the plan's smallest cohort is not the one agreed here" in log
        held = Ledger(ended / f"kits/{name}/ledger.sqlite").budget().reservations[record.run]
        assert held.commits == [], "reserved when it joined, and nothing of it spent"
        assert not held.open, "the end of the run gave all of it back"


def test_no_site_reserves_for_a_run_that_the_server_invents(ended: Path) -> None:
    record = decode_record((ended / "run/report.json").read_bytes())
    for name in SITES:
        reservations = Ledger(ended / f"kits/{name}/ledger.sqlite").budget().reservations
        if name == CREDULOUS:
            assert set(reservations) == {INVENTED, record.run}
            assert reservations[INVENTED].open, "held, and nobody will ever end it"
            continue
        assert set(reservations) == {record.run}
        log = (ended / f"logs/{name}.log").read_text()
        assert log.count(f"nobody has called this site to run {INVENTED}") == 2, "join and ready"
