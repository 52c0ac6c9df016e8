"""Two federations over the same people: one population, one ledger, an identity of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Quiet, make_federation

from aggregation import Identity
from fmfl_secure.errors import RunError
from fmfl_secure.run.ledger_statement import ELSEWHERE
from fmfl_secure.run.record import RunRecord
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out most of a tiny run's time: the admission gate has tests of its own."""
    monkeypatch.setattr("fmfl_secure.report.write.render_html", lambda *_: "<html></html>")
    for module in ("transports.local.engine", "parties.site"):
        monkeypatch.setattr(f"fmfl_secure.{module}.check_admission", lambda *_, **__: None)


def run(folder: Path, number: int = 1) -> tuple[RunRecord, Quiet]:
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / f"run-{number}", resume=False, observer=observer
    )
    return engine.run(), observer


def signed(folder: Path) -> Ledger:
    site = folder / "sites/site-1"
    return Ledger(site / "ledger.sqlite", signer=Identity.load(site / "identity.pem"))


def test_two_federations_charge_the_one_budget_of_their_people(
    tmp_path: Path, tiny_model: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        make_federation(
            folder, tiny_model, rounds=1, steps=1, epsilon=3.0, grant=4.0, evaluation=False
        )
    # The second one's site names the ledger that its people have already.
    file = second / "sites/site-1/site.toml"
    text = file.read_text()
    assert 'ledger = "ledger.sqlite"' in text
    shared = first / "sites/site-1/ledger.sqlite"
    file.write_text(text.replace('ledger = "ledger.sqlite"', f'ledger = "{shared}"'))

    with pytest.raises(RunError) as refusal:
        run(second)
    assert "site-1: configuration" in refusal.value.hint
    other = Identity.load(second / "sites/site-1/identity.pem").public
    signed(first).admit(other.key, name="the second federation")

    one, _ = run(first)
    spent = Ledger(shared).status()[0].epsilon_charged
    two, told = run(second, 2)
    assert told.refused == {}
    budget = Ledger(shared).budget()
    assert [(h.run, h.signer) for h in budget.reservations.values()] == [
        (one.run, ""),
        (two.run, other.key.hex()),
    ]
    assert spent < budget.status()[0].epsilon_charged < 2 * spent, "costs add up, epsilons do not"
    event = budget.reservations[two.run].event
    alone = Ledger(second / "sites/site-2/ledger.sqlite").budget()
    assert budget.headroom().rounds(event) == alone.headroom().rounds(event) - 1

    # What the second federation hears: all that is spent, and not who else spends it.
    (stated,) = (site.statement for site in two.sites if site.name == "site-1")
    assert stated is not None
    assert [(charge.run, charge.purpose) for charge in stated.runs] == [
        (ELSEWHERE, ""),
        (two.run, "tiny"),
    ]
    assert stated.grants[0].epsilon_charged == budget.status()[0].epsilon_charged
    assert one.run not in (second / "run-2/report.json").read_text()
