"""Questions over HTTPS: real processes, mutual TLS, a server without PyTorch, and kill -9."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from asked import PRIVACY, question
from processes import Federation
from support import Quiet, make_federation, make_kits, write_rows

from fmfl_secure import choosing
from fmfl_secure.planning.answers import answer_plan, figures_of
from fmfl_secure.run.record import decode_record
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.written import with_question
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

pytestmark = pytest.mark.slow
SITES = ("site-1", "site-2", "site-3", "site-4")


@pytest.mark.parametrize(
    ("noise", "point", "commits"),
    [("local", "", 1), ("distributed", "after:commit:1", 2)],
    ids=["all-come", "one-is-killed"],
)
def test_sites_answer_over_https_with_their_own_ledgers(
    tmp_path: Path, tiny_model: Path, noise: str, point: str, commits: int
) -> None:
    asked = question("units", "labels", repeats=1)
    text = with_question("", asked).strip()
    make_kits(
        tmp_path, tiny_model, sites=4, rounds=1, steps=1 if noise == "distributed" else 2,
        privacy=PRIVACY[noise], evaluation=False, aggregation=f"bits = 16\n\n{text}",
    )  # fmt: skip
    federation = Federation(tmp_path)
    try:
        for name in ("server", "decryptor", *SITES):
            federation.start(name, point if name == "site-2" else "")
        federation.wait(restart=True)
    finally:
        federation.close()
    record = decode_record((tmp_path / "run/report.json").read_bytes())
    config = load_federation(tmp_path / "federation.toml")
    (only,) = record.rounds
    assert record.status == "finished"
    assert only.cohort == SITES
    plan = answer_plan(config)
    said = figures_of(config, only.answer, 4)
    units, labels = plan.release.queries
    for query, truth in ((units, 40.0), (labels, 80.0)):
        for cell in query.cells:
            assert abs(said[query.name][cell].value - truth) < 7 * plan.answer_stddev(query, 4)
    for name in SITES:
        budget = Ledger(tmp_path / f"kits/{name}/ledger.sqlite").budget()
        ((reservation, held),) = budget.reservations.items()
        assert reservation == f"{record.run}.answers"
        assert len(held.commits) == (commits if name == "site-2" else 1)
        assert not held.open


def test_sites_choose_over_https_among_the_rounds_of_a_run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rounds and an exported adapter, by what `choose --settings` wrote, in real processes."""
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    common = {"sites": 4, "rounds": 2, "privacy": PRIVACY["local"], "evaluation": False}
    trained = make_federation(tmp_path / "trained", tiny_model, **common)
    LocalEngine(trained, tmp_path / "trained/run", resume=False, observer=Quiet()).run()
    run = tmp_path / "trained/run"
    candidates = choosing.candidates_of(run, [1, 2], [run / "adapter"])
    asked = choosing.question_among(candidates, epsilon=4.0, repeats=1)
    settings = tmp_path / "choice.toml"
    start = choosing.write_question(run, *asked, settings)
    kits = make_kits(tmp_path, tiny_model, **common)
    for kit in kits.glob("*/federation.toml"):
        shutil.copy(settings, kit)
    shutil.copy(start, kits / "server/start.safetensors")
    for number, name in enumerate(SITES):
        write_rows(kits / name / "holdout.csv", 40, seed=20 + number)
        own = kits / name / "site.toml"
        own.write_text(
            own.read_text().replace("[budget]", 'holdout = "holdout.csv"\n\n[budget]', 1)
        )
    federation = Federation(tmp_path)
    try:
        for name in ("server", "decryptor", *SITES):
            federation.start(name, "after:commit:1" if name == "site-3" else "")
        federation.wait(restart=True)
    finally:
        federation.close()
    chosen = choosing.read_choice(tmp_path / "run")
    assert chosen.winner in candidates
    assert chosen.answer.cohort == SITES
    assert set(chosen.answer.figures["choice"]) == set(candidates)
    held = {n: Ledger(kits / n / "ledger.sqlite").budget().reservations for n in SITES}
    spent = {n: [len(r.commits) for r in each.values()] for n, each in held.items()}
    assert spent == {n: [2 if n == "site-3" else 1] for n in SITES}, "one died, paid twice"
