"""The same job, calibrated to epsilon 3, three times, each in a process of its own.

Costs add up as Renyi divergences and not as epsilons, so that three runs of epsilon 3 come to
less than 9: against a grant of 8 all three fit. Against one of 5 two do.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from killer import REFUSED, run_apart
from support import make_federation

from fmfl_secure.report.dataset import open_source, record_of, wording
from fmfl_secure.report.results import build_record
from fmfl_secure.storage.run_store import RunStore
from privacy import Ledger
from privacy.ledger.export import export_json, read_export

SITES = ("site-1", "site-2", "site-3")
JOB = {"rounds": 2, "epsilon": 3.0, "privacy": "repeats = 0", "evaluation": False}


def ledger(folder: Path, site: str) -> Ledger:
    return Ledger(folder / f"sites/{site}/ledger.sqlite")


def run(folder: Path, number: int) -> tuple[int, str]:
    return run_apart(folder / "federation.toml", folder / f"run-{number}", watched=folder / "data")


@pytest.fixture
def granted(tmp_path: Path, tiny_model: Path):
    def make(epsilon: float) -> Path:
        federation = make_federation(tmp_path, tiny_model, grant=epsilon, **JOB)
        text = federation.read_text()
        assert "sample_rate = 0.25" in text
        # With few steps at a low rate, costs fall so fast with the order that 5 would take more.
        federation.write_text(text.replace("sample_rate = 0.25", "sample_rate = 0.5"))
        return tmp_path

    return make


def test_against_a_grant_of_8_all_three_fit_and_the_ledger_shows_why(granted) -> None:
    folder = granted(8.0)
    spent = []
    for number in (1, 2, 3):
        code, opened = run(folder, number)
        assert code == 0
        assert "site-1.csv" in opened  # the watch works: this is what the other test must not see
        spent.append(ledger(folder, "site-1").status()[0].epsilon_committed)
    assert spent == sorted(spent)
    for site in SITES:
        kept = ledger(folder, site)
        text = export_json(kept.records())
        assert read_export(text) == kept.records()
        document = json.loads(text)
        assert [run["rounds_charged"] for run in document["runs"]] == [2, 2, 2]
        assert {run["purpose"] for run in document["runs"]} == {"tiny"}
        charges = document["charges"]
        assert [charge["round"] for charge in charges] == [1, 2, 1, 2, 1, 2]
        so_far = [charge["epsilon_so_far"] for charge in charges]
        # Why they fit: the sum of the runs' costs, exact, is below the bound at some order...
        (grant,) = document["grants"]
        for order, sums in grant["orders"].items():
            assert sums["spent"] == sums["charged"] == sum(c["cost"][order] for c in charges)
        assert any(sums["spent"] <= sums["bound"] for sums in grant["orders"].values())
        # ... which is an epsilon within the grant, though three epsilons of 3 add up to more.
        assert spent[0] == so_far[1]
        assert so_far[-1] == grant["epsilon_spent"] <= 8.0 < 3 * 3.0
        assert so_far == sorted(so_far)
        report = of_dataset(folder, site)
        assert (report.site, len(report.runs)) == (site, 3)
        assert [training.epsilon_after for training in report.trainings] == so_far
        assert all(run.outcome and run.outcome.status == "finished" for run in report.runs)
        assert (report.heads_checked, report.heads_missing) == (3, ())


def of_dataset(folder: Path, site: str):
    """The dataset report of a site, from its folder and the three runs' reports."""
    reports = [build_record(RunStore(folder / f"run-{number}")) for number in (1, 2, 3)]
    return record_of(open_source(str(folder / "sites" / site)), reports=reports)


def test_against_a_grant_of_5_the_third_is_refused_before_data_are_read(granted) -> None:
    folder = granted(5.0)
    for number in (1, 2):
        code, opened = run(folder, number)
        assert code == 0
        assert all(f"{site}.csv" in opened for site in SITES)
    heads = {site: ledger(folder, site).head() for site in SITES}
    code, opened = run(folder, 3)
    assert code == REFUSED
    assert opened == ""  # no file of data was opened, nor its folder listed
    record = build_record(RunStore(folder / "run-3"))
    assert record.status == "stopped"
    assert record.rounds == ()
    assert {site.refusal for site in record.sites} == {"budget"}
    for site in SITES:
        kept = ledger(folder, site)
        assert kept.head() == heads[site]  # a refusal charges nothing
        document = json.loads(export_json(kept.records()))
        (grant,) = document["grants"]
        for order, sums in grant["orders"].items():  # why: one more is too much at every order
            job = sums["charged"] // 2
            assert sums["charged"] + job > sums["bound"], order
        assert grant["epsilon_spent"] <= 5.0
        report = of_dataset(folder, site)
        assert [run.grant for run in report.runs] == [1, 1, 0]
        ((refused, _),) = wording.refusals(report.runs)
        assert wording.state(refused) == "refused (budget), charged nothing"
        assert report.grants[0].epsilon_spent == grant["epsilon_spent"]
