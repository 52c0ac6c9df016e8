"""Whoever tells of a run that trains and asks tells of both: what it costs, and what it did."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import msgspec
import pytest
from support import WORDS, Quiet, make_federation
from typer.testing import CliRunner

from aggregation import Identity
from fmfl_secure import Federation, Run
from fmfl_secure.cli import app
from fmfl_secure.parties.ledger_recovery import lost_runs
from fmfl_secure.planning.warm_start import line_epsilon
from fmfl_secure.report import rounding
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter_line import LINE_FILE, decode_line
from privacy import BudgetExhausted, Ledger, PoissonSampledGaussian, Reservation

ASKED = 'data = "sites"\nholdout = 0.3\nevery = 2\nepsilon = 6.0'
PRIVACY = "delta = 1e-4\nmax_records_per_unit = 2"


def write(path: Path) -> None:
    rows = [
        (" ".join(WORDS[(n * 7 + k) % 16] for k in range(3 + n % 5)), "yes" if n % 3 else "no", who)
        for n, who in enumerate([f"p{n}" for n in range(20)] * 2)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "patient_id"), *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A federation before and after a run of two answers beside four rounds of training."""
    folder = tmp_path_factory.mktemp("counted") / "pilot"
    federation = make_federation(
        folder, tiny_model, rounds=4, steps=1, epsilon=1.0, grant=30.0, evaluation=False,
        task='unit = "patient_id"', privacy=PRIVACY,
    )  # fmt: skip
    text = federation.read_text().replace('data = ""', "").replace('visibility = "public"', ASKED)
    federation.write_text(text)
    for number in (1, 2, 3):
        write(folder / f"data/site-{number}.csv")
    shutil.copytree(folder, folder.parent / "before")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("transports.local.engine", "parties.site", "training.admission"):
            patch.setattr(f"fmfl_secure.{module}.check_admission", lambda *_, **__: None)
        LocalEngine(federation, folder / "run", resume=False, observer=Quiet()).run()
    return folder


def spoken(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_what_is_planned_is_what_the_ledger_shows_answers_included(folder: Path) -> None:
    planned = Federation(folder.parent / "before").predict()
    (foreseen,) = {site.forecast for site in planned.sites}
    assert foreseen is not None
    statement = Run(folder / "run").record.sites[0].statement
    assert statement is not None
    assert statement.epsilon_by_round == foreseen.by_round == planned.epsilon_by_round
    assert len(statement.epsilon_by_round) == 6
    assert statement.pld_epsilon_run == pytest.approx(planned.pld_epsilon, rel=1e-6)
    said = spoken("plan", folder.parent / "before/federation.toml", "--no-advice")
    assert (
        f"{rounding.spent_fine(statement.epsilon_by_round[-1])} after all rounds and answers"
        in said
    )


def test_so_many_runs_like_it_fit_and_not_one_more(folder: Path, tmp_path: Path) -> None:
    """Of training alone many more would fit: what a run asks costs more than what it trains."""
    statement = Run(folder / "run").record.sites[0].statement
    assert statement is not None
    shutil.copytree(folder / "sites/site-1", tmp_path / "site-1")
    signer = Identity.load(tmp_path / "site-1/identity.pem", "site-1")
    ledger = Ledger(tmp_path / "site-1/ledger.sqlite", signer=signer)
    parts = list(ledger.budget().reservations.values())
    assert len(parts) == 2
    assert isinstance(statement.runs_left, int)
    alone = ledger.budget().headroom(population_size=40).runs([(parts[0].event, parts[0].rounds)])
    assert statement.runs_left < alone
    for number in range(statement.runs_left):
        reserve(ledger, number, parts)
    with pytest.raises(BudgetExhausted):
        reserve(ledger, statement.runs_left, parts)


def reserve(ledger: Ledger, number: int, parts: list[Reservation]) -> None:
    for part in parts:
        more = {"event": part.event, "rounds": part.rounds, "plan": part.plan}
        ledger.reserve(run=f"{number}-{part.run}", population_size=40, **more)


def test_a_lost_run_is_charged_with_its_answers(folder: Path) -> None:
    parts = Ledger(folder / "sites/site-1/ledger.sqlite").budget().reservations.values()
    assert lost_runs([folder / "run/report.json"]) == [(each.event, each.rounds) for each in parts]


def test_an_exported_adapter_s_line_counts_answers_too(folder: Path, tmp_path: Path) -> None:
    spoken("export", folder / "run", "--output", tmp_path / "out")
    (only,) = decode_line((tmp_path / "out" / LINE_FILE).read_bytes())
    parts = Ledger(folder / "sites/site-1/ledger.sqlite").budget().reservations.values()
    assert [used for used, _ in only.uses] == [each.event.canonical() for each in parts]
    assert [times for _, times in only.uses] == [4, 2]
    alone = msgspec.structs.replace(only, answers=msgspec.UNSET, answer_event=msgspec.UNSET)
    assert line_epsilon([only], 1e-4) > 1.5 * line_epsilon([alone], 1e-4)
    public = msgspec.structs.replace(alone, event=None)
    assert public.uses == ()


def test_the_noise_of_answers_stands_on_the_page(folder: Path) -> None:
    record = Run(folder / "run").record
    answers = Ledger(folder / "sites/site-1/ledger.sqlite").budget().reservations
    found = answers[f"{record.run}.answers"].event
    assert isinstance(found, PoissonSampledGaussian)
    assert record.mechanism.answers_noise_multiplier == found.noise_multiplier
    page = (folder / "run/report.html").read_text()
    row = '<th scope="row">Noise multiplier of answers</th><td>'
    assert f"{row}{found.noise_multiplier:.5g} (" in page
    assert "Each site's update or answer (" in page


def test_no_page_says_that_nothing_was_asked(folder: Path, tmp_path: Path) -> None:
    spoken("dpia", folder / "run", "--output", tmp_path / "dpia.md")
    pages = (folder / "run/report.html").read_text(), (tmp_path / "dpia.md").read_text()
    for page in pages:
        assert "2 answers planned, to accuracy, for at most epsilon 6 together" in page
    assert "nothing: no evaluation data were declared public" not in pages[1]
    assert "computed on data declared public, or not at all" not in pages[1]


def test_a_run_that_asks_alone_is_not_said_to_train(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "pilot")
    settings = tmp_path / "pilot/federation.toml"
    spoken("ask", settings, "--what", "units,labels", "--epsilon", "0.5")
    (kept,) = (tmp_path / "pilot/answers").iterdir()
    spoken("dpia", kept, "--output", tmp_path / "dpia.md")
    page, draft = (kept / "report.html").read_text(), (tmp_path / "dpia.md").read_text()
    assert "Noised sums of bounded vectors: nothing is trained." in page
    assert "DP-SGD at each site" not in page
    assert "Questions to the sites, and no training, on about 120 declared units" in page
    assert "| What is trained | nothing: the sites are asked |" in draft
    encrypted = page[page.index('id="encryption"') : page.index('id="utility"')]
    assert "Each site's answer (" in encrypted
    for word in ("update", "sum and the adapter", "beside training"):
        assert word not in page.partition('id="settings"')[0], word
    assert "adapter" not in encrypted
    for text in (page, draft):
        assert "1 answer planned, to labels and units, for at most epsilon 0.5 together" in text


def test_a_dataset_report_tells_answers_from_trainings(folder: Path, tmp_path: Path) -> None:
    words = ("report", "dataset", folder / "sites/site-1", "--run", folder / "run")
    spoken(*words, "--output", tmp_path / "told")
    page = (tmp_path / "told/dataset.html").read_text()
    assert "by 4 trainings and 2 answers in 1 run." in page
    assert "1 head that others kept of it is in it." in page
    assert ">nswers<" not in page, "the end of a reservation's name is no run's"
    assert f">{Run(folder / 'run').record.run[-6:]}<" in page
