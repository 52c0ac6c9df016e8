"""A run whose learning curve is what its sites answer of the people whom they set apart."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from asked import silence
from rich.console import Console
from support import WORDS, Quiet, make_federation
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.cli.progress import TerminalProgress
from fmfl_secure.models.adapters import load_adapter_bytes, set_adapter_tensors
from fmfl_secure.parties.site_data import SiteSource
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.planning.terms import foresee
from fmfl_secure.run.record import RunRecord, decode_record
from fmfl_secure.settings.federation import load_federation, load_site
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter import adapter_digest
from privacy import Ledger

PEOPLE = 40
EVALUATION = """holdout = 0.5
data = "sites"
epsilon = 6.0
measures = ["accuracy", "subgroups"]
subgroup_column = "sex"
subgroups = ["f", "m"]"""


def write(path: Path, *, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = []
    for n, who in enumerate([f"p{n}" for n in range(PEOPLE)] * 2):
        lean = WORDS[:8] if n % 2 else WORDS[8:]
        words = " ".join(str(generator.choice(lean)) for _ in range(5))
        rows.append((words, "yes" if n % 2 else "no", who, "f" if n % 4 < 2 else "m"))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "patient_id", "sex"), *rows])


def prepare(folder: Path, model: Path, evaluation: str = EVALUATION, **more) -> Path:
    federation = make_federation(
        folder, model, evaluation=False, task='unit = "patient_id"',
        **({"rounds": 2, "grant": 30.0} | more),
    )  # fmt: skip
    text = federation.read_text().replace('data = ""\n', "")
    federation.write_text(text.replace('visibility = "public"', evaluation))
    for number in (1, 2, 3):
        write(folder / f"data/site-{number}.csv", seed=number)
    return federation


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, RunRecord]:
    folder = tmp_path_factory.mktemp("asked")
    federation = prepare(folder, tiny_model)
    told = io.StringIO()
    terminal = TerminalProgress(Console(file=told), load_federation(federation))
    record = LocalEngine(federation, folder / "run", resume=False, observer=terminal).run()
    (folder / "said.txt").write_text(" ".join(told.getvalue().split()))
    return folder, record


def test_every_round_of_training_is_followed_by_an_answer(finished) -> None:
    folder, record = finished
    assert [len(one.metrics) for one in record.rounds] == [0, 0, 0, 0]
    assert record.mechanism.target_epsilon == 8.0 + 6.0, "what the report says that was planned"
    assert [answer.trained for answer in record.answers] == [1, 2]
    assert [answer.round for answer in record.answers] == [2, 4]
    for answer in record.answers:
        assert set(answer.figures) == {"accuracy", "subgroups"}
        assert 0 < answer.epsilon < 6.0
    assert decode_record((folder / "run/report.json").read_bytes()) == record


def test_answers_and_training_are_each_reserved_and_charged(finished) -> None:
    folder, record = finished
    budget = Ledger(folder / "sites/site-1/ledger.sqlite").budget()
    assert set(budget.reservations) == {record.run, f"{record.run}.answers"}
    assert [n for n, _ in budget.reservations[f"{record.run}.answers"].commits] == [2, 4]
    assert [n for n, _ in budget.reservations[record.run].commits] == [1, 3]


def test_everybody_sees_figures_with_both_intervals_and_their_price(finished) -> None:
    folder, record = finished
    first = record.answers[-1].figures["accuracy"]["accuracy"]
    metrics = json.loads((folder / "run/metrics.json").read_text())
    kept = metrics["answers"][-1]
    assert kept["figures"]["accuracy"]["accuracy"]["value"] == first.value
    assert set(kept["figures"]["accuracy"]["accuracy"]) == {"value", "noise", "sampling"}
    page = (folder / "run/report.html").read_text()
    for text in (first.text, "accuracy, sex f", "One dishonest site can move any answer"):
        assert text in page
    assert "No utility figures may be shown" not in page
    assert "A share of 0.5 of each site" in page
    said = (folder / "said.txt").read_text()
    assert f"after 2 of training: accuracy {first.text} for epsilon" in said
    card = (folder / "run/adapter/README.md").read_text()
    assert (
        f"After 2 rounds of training, by 3 sites' own held-out units: accuracy {first.text}" in card
    )


def test_without_noise_an_answer_is_the_exact_accuracy_of_who_is_set_apart(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    silence(monkeypatch)
    federation = prepare(tmp_path, tiny_model, rounds=1)
    engine = LocalEngine(federation, tmp_path / "run", resume=False, observer=Quiet())
    record = engine.run()
    store = RunStore(tmp_path / "run")
    task, model = engine._task, engine._model
    adapter = store.last_adapter()
    assert adapter_digest(adapter) == record.rounds[-1].adapter_digest
    set_adapter_tensors(model, load_adapter_bytes(adapter))
    right = []
    for number in (1, 2, 3):
        folder = tmp_path / f"sites/site-{number}"
        site = load_site(folder / "site.toml")
        data = SiteSource(folder, site, load_federation(federation), task).read()
        for unit in np.flatnonzero(data.held_out):
            own = task.evaluate(model, data.only(data.units[unit]), batch_size=8)
            right.append(own["accuracy"])
    assert record.answers[-1].figures["accuracy"]["accuracy"].value == pytest.approx(
        np.mean(right), abs=0.01
    )


def test_a_first_grant_is_for_training_and_answers(tmp_path: Path, tiny_model: Path) -> None:
    """What settings propose is enough for both, whichever noise."""
    for noise in ("local", "distributed"):
        folder = tmp_path / noise
        shares = 'noise = "distributed"\ninsider_epsilon = 30.0\n' if noise != "local" else ""
        federation = prepare(
            folder,
            tiny_model,
            EVALUATION + ("\ninsider_epsilon = 20.0" if shares else ""),
            grant=None,
            steps=1,
            privacy=shares + "delta = 1e-4\n",
        )
        # `prepare` grants by settings that do not ask yet; begin again with those that do.
        for made in folder.iterdir():
            if made.is_dir() and made.name != "data":
                shutil.rmtree(made)
        initialise(folder, epsilon=None, delta=None, simulated=True)
        (grant,) = Ledger(folder / "sites/site-1/ledger.sqlite").budget().grants
        assert grant.epsilon == 8.0 + 6.0
        config, site = load_federation(federation), load_federation(federation).sites[0]
        held = Ledger(folder / "sites/site-1/ledger.sqlite").budget()
        found = foresee(config, site, 200, held, dataset=None)
        assert found.reserved <= grant.epsilon


def test_a_finished_run_is_asked_again_for_its_own_price(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `evaluate --sites`; the same question a second time costs nothing."""
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    federation = prepare(tmp_path, tiny_model, EVALUATION.partition("\n")[0], rounds=1)
    LocalEngine(federation, tmp_path / "run", resume=False, observer=Quiet()).run()
    command = ["evaluate", str(tmp_path / "run"), "--sites", "--measures", "accuracy,recall"]
    first = CliRunner().invoke(app, [*command, "--epsilon", "4"])
    assert first.exit_code == 0, first.output
    for text in ("recall of yes", "epsilon 4 at delta", "One dishonest site"):
        assert text in " ".join(first.output.split())
    ledger = Ledger(tmp_path / "sites/site-2/ledger.sqlite")
    held = {name: len(r.commits) for name, r in ledger.budget().reservations.items()}
    assert sorted(held.values()) == [1, 1]
    again = CliRunner().invoke(app, [*command, "--epsilon", "4"])
    assert "charged nothing" in " ".join(again.output.replace("│", " ").split())
    assert len(ledger.budget().reservations) == 2
    # The adapter that is asked about is the run's own, by digest.
    (answered,) = (tmp_path / "answers").iterdir()
    adapter = RunStore(tmp_path / "run").last_adapter()
    assert RunStore(answered).state.config.question.adapter == adapter_digest(adapter)
    federation.write_text(federation.read_text().replace("holdout = 0.5", "holdout = 0.6"))
    changed = CliRunner().invoke(app, [*command, "--epsilon", "4"])
    assert "it has seen people whom" in str(changed.exception)
