"""An exact grant, from settings to report: for one run, at a tenth less noise."""

from __future__ import annotations

from pathlib import Path

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from support import Quiet, settings, write_rows
from typer.testing import CliRunner

from fmfl_secure import Federation, cli
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.report.overview import guarantee
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger, LedgerError

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
    with pytest.raises(RunError, match="no data was read"):
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
    with pytest.raises(RunError, match="no data was read"):
        run(folder, 2)


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
