"""An exact grant, from settings to report: for one run, at a tenth less noise."""

from __future__ import annotations

from pathlib import Path

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from support import Quiet, settings, write_rows
from typer.testing import CliRunner

from fmfl_secure import Federation, cli
from fmfl_secure.asking import write_settings as write_question
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.planning.answers import answer_plan
from fmfl_secure.report.overview import guarantee
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.settings.written import with_question
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger, LedgerError

EXACT = 'accounting = "exact"'
SITES = ("site-1", "site-2", "site-3")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out most of a tiny run's time: the admission gate has tests of its own."""
    for module in ("transports.local.engine", "parties.site"):
        monkeypatch.setattr(f"fmfl_secure.{module}.check_admission", lambda *_, **__: None)


def invoke(*arguments: object):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def run(folder: Path, number: int, settings: str = "federation.toml"):
    engine = LocalEngine(
        folder / settings, folder / f"run-{number}", resume=False, observer=Quiet()
    )
    return engine.run()


def test_a_run_is_granted_exactly_and_no_other_is(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "pilot"
    for number, name in enumerate(SITES, 1):
        write_rows(folder / f"data/{name}.csv", 40, seed=number)
    file = folder / "federation.toml"
    text = settings(tiny_model, rounds=1, steps=1, epsilon=3.0, evaluation=False)
    file.write_text(text)
    by_filter = Federation(folder).predict().noise_multiplier
    file.write_text(text.replace("[training]", 'accounting = "exact"\n[training]'))
    digest = load_federation(file).digest
    initialise(folder, epsilon=None, delta=None)
    for name in SITES:
        shown = invoke("ledger", "grant", folder / "sites" / name)
        assert "for the one run of these settings, and no other (exact)" in shown.output
        done = invoke("ledger", "grant", folder / "sites" / name, "--accept")
        assert done.exit_code == 0, done.output
    prediction = Federation(folder).predict()
    assert prediction.noise_multiplier < 0.97 * by_filter
    assert prediction.epsilon_worst_case == 3.0

    record = run(folder, 1)
    assert record.status == "finished"
    for site in record.sites:
        assert site.statement is not None
        (grant,) = site.statement.grants
        assert (grant.exact, grant.is_used, grant.cap) == (True, True, (3.0, 1e-5))
        assert site.statement.epsilon_by_round == prediction.epsilon_by_round
        assert guarantee(site.statement) == (3.0, 1e-5)
        budget = Ledger(folder / f"sites/{site.name}/ledger.sqlite").budget()
        assert budget.guarantee() == (3.0, 1e-5)
        assert budget.reservations[record.run].plan == digest
    assert (
        "Exact: for one run as it was fixed beforehand"
        in (folder / "run-1/report.html").read_text()
    )
    with pytest.raises(RunError, match="nothing was charged"):
        run(folder, 2)

    # Another run: by the cap that the first one fixed, there is no room for its grant.
    later = folder / "later.toml"
    later.write_text(file.read_text().replace("epsilon = 3.0", "epsilon = 1.0"))
    asked = ("ledger", "grant", folder / "sites/site-1", "--for", later, "--purpose", "later")
    refused = invoke(*asked)
    assert isinstance(refused.exception, LedgerError)
    assert "which was fixed with the first of them" in str(refused.exception)


def test_with_constant_work_a_run_costs_what_dp_accounting_says(
    tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "pilot"
    for name in SITES:
        path = folder / f"data/{name}.csv"
        write_rows(path, 40, seed=1)
        first, *rows = path.read_text().splitlines()
        lines = [f"{first},patient", *(f"{row},p{n % 20}" for n, row in enumerate(rows))]
        path.write_text("\n".join(lines) + "\n")
    text = settings(
        tiny_model, rounds=2, steps=1, epsilon=3.0, evaluation=False, task='unit = "patient"',
        privacy='accounting = "exact"\nconstant_time = true\nmax_records_per_unit = 2\nrepeats = 1',
    )  # fmt: skip
    file = folder / "federation.toml"
    file.write_text(text.replace("population = 40", "population = 20"))
    config = load_federation(file)
    assert config.constant_work
    initialise(folder, epsilon=None, delta=None, simulated=True)
    prediction = Federation(folder).predict()
    apart = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    step = dp_accounting.GaussianDpEvent(prediction.noise_multiplier)
    apart.compose(dp_accounting.PoissonSampledDpEvent(0.25, step), 3)  # two rounds and a repeat
    assert apart.get_epsilon(1e-5) == pytest.approx(3.0, rel=2e-3)

    record = run(folder, 1)
    assert record.status == "finished"
    for site in record.sites:
        assert site.statement is not None
        (grant,) = site.statement.grants
        assert (grant.exact, grant.is_used) == (True, True)
        assert guarantee(site.statement) == (3.0, 1e-5)
    with pytest.raises(RunError, match="nothing was charged"):
        run(folder, 2)


def test_answers_have_an_exact_grant_beside_that_of_their_training(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Two rounds, each followed by an answer; then a question alone, of settings of its own."""
    folder = tmp_path / "pilot"
    for number, name in enumerate(SITES, 1):
        write_rows(folder / f"data/{name}.csv", 40, seed=number)
    file = folder / "federation.toml"
    text = settings(tiny_model, rounds=2, steps=1, epsilon=3.0, evaluation=False)
    asked = QuestionSection(what=("labels",), epsilon=1.0, every=1)
    file.write_text(with_question(text, asked))
    by_filter = answer_plan(load_federation(file)).noise.noise_multiplier
    file.write_text(with_question(text, asked).replace("[training]", f"{EXACT}\n[training]"))
    config = load_federation(file)
    noise = answer_plan(config).noise.noise_multiplier
    assert noise < 0.93 * by_filter
    apart = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    apart.compose(dp_accounting.GaussianDpEvent(noise), 2)
    assert apart.get_epsilon(1e-5) == pytest.approx(1.0, rel=2e-3)

    initialise(folder, epsilon=None, delta=None, simulated=True)
    (training, answers) = Ledger(folder / "sites/site-1/ledger.sqlite").budget().grants
    assert (training.epsilon, answers.epsilon) == (3.0, 1.0)
    assert (training.cap, answers.cap) == ((4.0, 2e-5), None)
    record = run(folder, 1)
    assert record.status == "finished"
    for site in record.sites:
        budget = Ledger(folder / f"sites/{site.name}/ledger.sqlite").budget()
        assert [s.is_used for s in budget.status()] == [True, True]
        assert budget.guarantee() == guarantee(site.statement) == (4.0, 2e-5)
        held = {r.grant: [n for n, _ in r.commits] for r in budget.reservations.values()}
        assert held == {1: [1, 3], 2: [2, 4]}
        # What is shown as spent is both, and never more than both grants.
        spent = [s.epsilon_committed for s in budget.status()]
        assert site.statement.epsilon_by_round[-1] == pytest.approx(sum(spent))
        assert list(site.statement.epsilon_by_round) == sorted(site.statement.epsilon_by_round)
        assert spent[1] > 0.9
        assert site.statement.epsilon_by_round[-1] <= 4.0
        assert record.answers[0].epsilon < 1.0
    with pytest.raises(RunError, match="nothing was charged"):
        run(folder, 2)


def test_a_question_alone_is_granted_exactly_and_half_a_grant_is_made_whole(
    tmp_path: Path, tiny_model: Path
) -> None:
    folder = tmp_path / "pilot"
    for number, name in enumerate(SITES, 1):
        write_rows(folder / f"data/{name}.csv", 40, seed=number)
    file = folder / "federation.toml"
    text = settings(tiny_model, rounds=1, steps=1, epsilon=3.0, evaluation=False)
    file.write_text(text.replace("[training]", f"{EXACT}\n[training]"))
    initialise(folder, epsilon=None, delta=None)
    asks, both = folder / "asks.toml", folder / "both.toml"
    write_question(file, QuestionSection(what=("labels",), epsilon=0.5), asks)
    both.write_text(
        with_question(file.read_text(), QuestionSection(what=("labels",), epsilon=0.5, every=1))
    )
    cap = ("--cap-epsilon", 9, "--cap-delta", 5e-5)
    for name in SITES:
        granted = ("ledger", "grant", folder / "sites" / name, "--purpose", "a study", "--for")
        done = invoke(*granted, asks, *cap)
        assert "for 1 rounds of one run as its settings fix it, and no other" in done.output
    assert run(folder, 1, "asks.toml").answers[0].epsilon == pytest.approx(0.5, rel=2e-3)
    with pytest.raises(RunError, match="nothing was charged"):
        run(folder, 2, "asks.toml")

    ledger = Ledger(folder / "sites/site-1/ledger.sqlite")
    granted = ("ledger", "grant", folder / "sites/site-1", "--purpose", "a study", "--for", both)
    with pytest.MonkeyPatch.context() as patch:
        make = Ledger.grant_exact
        patch.setattr(Ledger, "grant_exact", lambda self, **k: made(make, self, k))
        assert isinstance(invoke(*granted).exception, Killed)
    assert [grant.epsilon for grant in ledger.budget().grants] == [0.5, 3.0], "half of it"
    assert invoke(*granted).exit_code == 0
    assert [grant.epsilon for grant in ledger.budget().grants] == [0.5, 3.0, 0.5]


class Killed(Exception):
    """The process is no more."""


def made(make, ledger: Ledger, named: dict):
    """Make the grant of a training; the process dies before that of its answers."""
    if named["event"].sample_rate == 1.0:
        raise Killed
    return make(ledger, **named)


def test_exact_grants_are_made_for_plans_under_a_cap(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "pilot"
    folder.mkdir()
    file = folder / "federation.toml"
    text = settings(tiny_model, rounds=1, steps=1, epsilon=1.0, evaluation=False)
    file.write_text(text)
    initialise(folder, epsilon=None, delta=None)
    site = folder / "sites/site-1"
    asked = ("ledger", "grant", site, "--for", file, "--purpose", "a study")
    assert isinstance(invoke(*asked).exception, ConfigError), "these settings use the filter"
    file.write_text(text.replace("[training]", 'accounting = "exact"\n[training]'))
    assert isinstance(invoke(*asked, "--cap-epsilon", 2).exception, LedgerError)
    assert isinstance(invoke(*asked, "--accept").exception, LedgerError)
    done = invoke(*asked, "--cap-epsilon", 2, "--cap-delta", 2e-5)
    assert done.exit_code == 0, done.output
    assert "come to epsilon 2 at delta 2e-05 at most" in done.output
    assert invoke(*asked).exit_code == 0
    assert isinstance(invoke(*asked).exception, LedgerError)
    shown = invoke("ledger", "show", site / "ledger.sqlite").output
    assert "grant 2 is exact" in shown
    assert Ledger(site / "ledger.sqlite").budget().guarantee() == (2.0, 2e-5)


@pytest.mark.parametrize(
    "more", ['noise = "none"', 'noise = "distributed"'], ids=["none", "shares"]
)
def test_settings_that_have_no_exact_price_are_refused(tmp_path: Path, more: str) -> None:
    file = tmp_path / "federation.toml"
    privacy = f'{more}\naccounting = "exact"\ninsider_epsilon = 30.0\n'
    file.write_text(settings(Path("none"), steps=1, evaluation=False, privacy=privacy))
    with pytest.raises(ConfigError, match="accounting"):
        load_federation(file)
