"""One epsilon on every page: what is planned is what the run shows and its report prints."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Quiet, make_federation
from typer.testing import CliRunner

from fmfl_secure import Federation, cli
from fmfl_secure.planning.plans import predict
from fmfl_secure.report import rounding
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.transports.local.engine import LocalEngine


class Watching(Quiet):
    """Keeps the epsilons that a terminal shows."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[dict[str, float]] = []

    def round_finished(self, record, epsilon, upload_bytes) -> None:
        super().round_finished(record, epsilon, upload_bytes)
        self.shown.append(epsilon)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out most of a tiny run's time: the admission gate has tests of its own."""
    for module in ("transports.local.engine", "parties.site", "training.admission"):
        monkeypatch.setattr(f"fmfl_secure.{module}.check_admission", lambda *_, **__: None)


def test_a_run_of_epsilon_3_under_a_grant_of_8_shows_what_was_planned(
    tmp_path: Path, tiny_model: Path
) -> None:
    """By the run's own orders it is 3 to its end; by the grant's, more from its first round on."""
    folder = tmp_path / "pilot"
    make_federation(folder, tiny_model, rounds=2, steps=1, epsilon=3.0, grant=8.0, evaluation=False)
    for number in (1, 2):  # a second run begins where the first one ended
        pilot = Federation(folder)
        planned = pilot.predict()
        said = CliRunner().invoke(cli.app, ["plan", str(folder / "federation.toml")]).output
        assert f"{rounding.spent_fine(planned.epsilon_by_round[-1])} after all rounds" in said
        assert f"{rounding.spent_fine(planned.epsilon_worst_case)} reserved" in said
        assert f"grant 1 at {planned.charged}, epsilon 8" in said
        observer = Watching()
        engine = LocalEngine(
            folder / "federation.toml", folder / f"run-{number}", resume=False, observer=observer
        )
        record = engine.run()
        foreseen = {site.name: site.forecast for site in planned.sites}
        for site in record.sites:
            found = foreseen[site.name]
            assert found is not None
            assert site.statement is not None
            assert site.statement.epsilon_by_round == found.by_round == planned.epsilon_by_round
            assert site.statement.epsilon_before == found.before
            # One repeat was held and came back; so one more of these may fit than was foreseen.
            assert found.runs_left <= site.statement.runs_left <= found.runs_left + 1
            assert [shown[site.name] for shown in observer.shown] == list(found.by_round)
            assert site.statement.grants[0].epsilon_spent == found.by_round[-1]
    page = (folder / "run-2/report.html").read_text()
    assert "Of runs like this one, " in page
    first = (folder / "run-1/report.html").read_text()  # which no reader may take for a mistake
    assert "By itself this run was planned to cost each site at most epsilon 3." in first
    assert "A grant counts a run at orders of its own" in first
    spent = record.sites[0].statement.grants[0].epsilon_spent
    left = record.sites[0].statement.grants[0].epsilon_left
    pages = {"report": page, **every_other_page(folder)}
    for name, text in pages.items():
        assert rounding.spent(spent) in text or rounding.spent_fine(spent) in text, name
    for name in ("report", "ledger", "dataset"):
        assert rounding.left(left) in pages[name] or rounding.left_fine(left) in pages[name], name
    # What a run comes to by the orders of a grant of its own, which is not what it was charged to.
    of_a_run = predict(load_federation(folder / "federation.toml"), size=1)
    assert of_a_run.forecast is None
    wrong = of_a_run.epsilon_by_round[-1]
    assert abs(wrong - foreseen["site-1"].by_round[-1]) > 0.01
    for name, text in pages.items():
        assert rounding.spent(wrong) not in text, name
        assert f"{wrong:.4f}" not in text, name


def every_other_page(folder: Path) -> dict[str, str]:
    """What other commands write of the second run, and of the first site's ledger."""
    site, run = folder / "sites/site-1", folder / "run-2"
    for command in (
        ["dpia", run, "--output", folder / "dpia.md"],
        ["export", run, "--output", folder / "model"],
        ["report", "dataset", site, "--output", folder / "dataset", "--run", run],
    ):
        done = CliRunner().invoke(cli.app, [str(word) for word in command])
        assert done.exit_code == 0, (command, done.output, done.exception)
    shown = CliRunner().invoke(
        cli.app, ["ledger", "show", str(site / "ledger.sqlite")], env={"COLUMNS": "200"}
    )
    return {
        "dpia": (folder / "dpia.md").read_text(),
        "card": (folder / "model/README.md").read_text(),
        "dataset": (folder / "dataset/dataset.html").read_text(),
        "ledger": shown.output,
    }


def test_a_ledger_that_refuses_says_so_before_the_run(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "pilot"
    make_federation(folder, tiny_model, rounds=1, steps=1, epsilon=3.0, grant=1.0, evaluation=False)
    said = CliRunner().invoke(cli.app, ["plan", str(folder / "federation.toml")]).output
    assert "site-1 will refuse: population 'site-1' cannot afford 2 rounds" in said
    assert "a fresh grant of epsilon 3" in said
    assert Federation(folder).predict().forecast is None
