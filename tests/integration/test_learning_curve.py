"""Figures of a run whose server had no base model: computed afterwards, the same as during it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from support import Quiet, make_federation
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError, ModelError, RunError
from fmfl_secure.report.learning_curve import fill_curve
from fmfl_secure.run.record import decode_record
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine


def forget(store: RunStore) -> None:
    """As a server leaves it."""
    for number in range(len(store.rounds()) + 1):
        store.evaluated(number, {})


def figures(run: Path) -> list[dict[str, float]]:
    record = decode_record((run / "report.json").read_bytes())
    return [record.initial_metrics, *(one.metrics for one in record.rounds)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run of the embedded engine, which evaluates while it goes on."""
    folder = tmp_path_factory.mktemp("curve")
    federation = make_federation(folder, tiny_model, rounds=3)
    federation.write_text(
        federation.read_text().replace("[evaluation]\n", "[evaluation]\nevery = 2\n")
    )
    LocalEngine(federation, folder / "run", resume=False, observer=Quiet()).run()
    return folder / "run"


def test_the_curve_afterwards_is_that_of_during_the_run(finished: Path) -> None:
    during, store = figures(finished), RunStore(finished)
    assert [bool(each) for each in during] == [True, False, True, True], (
        "every second, and the last"
    )
    records = store.rounds()
    forget(store)
    found = fill_curve(finished)
    assert found == {0: during[0], 2: during[2], 3: during[3]}
    assert figures(finished) == during
    assert store.rounds() == records, "nothing else of a round's record changed"
    written = json.loads((finished / "metrics.json").read_bytes())
    assert written["initial"] == during[0]
    assert written["rounds"][1] == {"round": 2, "status": "released", **during[2]}


def test_the_command_takes_rounds_and_the_place_of_the_public_set(
    finished: Path, tmp_path: Path
) -> None:
    during, store = figures(finished), RunStore(finished)
    forget(store)
    elsewhere = tmp_path / "holdout.csv"
    elsewhere.write_bytes((finished.parent / "data/holdout.csv").read_bytes())
    command = ["evaluate", str(finished), "--rounds", "0,1", "--data", str(elsewhere)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    first, second, *_ = done.output.splitlines()
    name, value = next(iter(during[0].items()))
    assert first.startswith("round 0")
    assert f"{name} {value:.4f}" in first
    assert second.startswith("round 1")
    assert [bool(each) for each in figures(finished)] == [True, True, False, False]
    fill_curve(finished)
    store.evaluated(1, {})
    assert CliRunner().invoke(app, ["evaluate", str(finished)]).exit_code != 0
    assert isinstance(
        CliRunner().invoke(app, ["evaluate", str(finished), "--rounds", "some"]).exception,
        ConfigError,
    )


def test_private_figures_get_into_no_report(finished: Path) -> None:
    before, state = figures(finished), (finished / "state.sqlite").read_bytes()
    private = finished.parent / "data/site-1.csv"
    with pytest.raises(ConfigError, match=r"is not holdout\.csv"):
        fill_curve(finished, data=private)
    assert figures(finished) == before
    assert (finished / "state.sqlite").read_bytes() == state


def test_a_run_without_a_public_set_has_no_curve(tmp_path: Path, tiny_model: Path) -> None:
    federation = make_federation(tmp_path, tiny_model, rounds=1, evaluation=False)
    LocalEngine(federation, tmp_path / "run", resume=False, observer=Quiet()).run()
    with pytest.raises(ConfigError, match="declare no public evaluation set"):
        fill_curve(tmp_path / "run", data=tmp_path / "data/holdout.csv")


def test_a_round_that_has_no_adapter_is_named(finished: Path) -> None:
    with pytest.raises(RunError, match=r"round 4 has no adapter .* 0, 1, 2, 3"):
        fill_curve(finished, rounds=[4])


def test_another_base_model_is_refused(finished: Path, tiny_models) -> None:
    with pytest.raises(ModelError, match="is not the base model of the run"):
        fill_curve(finished, base=tiny_models("bert"))


def test_the_report_looks_closer_at_the_last_adapter_with_figures(finished: Path) -> None:
    fill_curve(finished)
    record = decode_record((finished / "report.json").read_bytes())
    look = record.looked_at
    assert look is not msgspec.UNSET
    assert (look.round, look.public, look.data) == (3, True, "holdout.csv")
    assert look.metrics == record.rounds[2].metrics
    right = sum(row[place] for place, row in enumerate(look.confusion))
    assert right / look.records == pytest.approx(look.metrics["accuracy"])
    assert [each.round for each in look.curve] == [0, 2, 3]
    assert all(each.low <= each.value <= each.high for each in look.curve)
    page = (finished / "report.html").read_text()
    assert "By label, after round 3" in page
    assert 'id="confusion-title"' in page


def test_a_run_that_evaluates_looks_closer_by_itself(finished: Path) -> None:
    """As the engine left it, before anybody asked."""
    kept = (finished / "evaluation.json").read_bytes()
    (finished / "evaluation.json").unlink()
    fill_curve(finished)
    assert (finished / "evaluation.json").read_bytes() == kept


def test_every_round_is_evaluated_at_home_and_nothing_of_it_is_reported(
    finished: Path, tmp_path: Path
) -> None:
    before, report = figures(finished), (finished / "report.json").read_bytes()
    private = finished.parent / "data/site-1.csv"
    command = ["evaluate", str(finished), "--data", str(private), "--json"]
    closely = ["--round", "1", "--curve", "--details", str(tmp_path / "closely")]
    done = CliRunner().invoke(app, [*command, *closely])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["round"], list(answer["curve"])) == (1, ["0", "1", "2", "3"])
    assert answer["metrics"] == answer["curve"]["1"]
    last = json.loads(CliRunner().invoke(app, command).stdout)
    assert last["metrics"] == answer["curve"]["3"], "the adapter that the run left"
    written = json.loads((tmp_path / "closely/evaluation.json").read_bytes())
    assert (written["public"], written["round"], len(written["curve"])) == (False, 1, 4)
    assert written["metrics"] == answer["metrics"]
    hits = sum(row[place] for place, row in enumerate(written["confusion"]))
    assert hits / written["records"] == pytest.approx(answer["metrics"]["accuracy"])
    assert (figures(finished), (finished / "report.json").read_bytes()) == (before, report)


def test_a_site_evaluates_a_round_at_home_from_two_files_of_the_run(
    finished: Path, tmp_path: Path, tiny_model: Path
) -> None:
    home = tmp_path / "run"
    shutil.copytree(finished / "adapter", home / "adapter")
    shutil.copy(finished / "state.sqlite", home)
    private = str(finished.parent / "data/site-1.csv")
    words = ("--data", private, "--round", "2", "--json")
    there = CliRunner().invoke(app, ["evaluate", str(finished), *words])
    here = CliRunner().invoke(app, ["evaluate", str(home), *words, "--base", str(tiny_model)])
    assert here.exit_code == 0, here.output
    assert json.loads(here.stdout) == json.loads(there.stdout)
    assert sorted(each.name for each in home.iterdir()) == ["adapter", "state.sqlite"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        pytest.param(("--round", "1"), "--round alone", id="no-data"),
        pytest.param(("--data", "DATA", "--round", "9"), "round 9 has no adapter", id="no-round"),
    ],
)
def test_a_closer_look_at_nothing_is_refused(
    finished: Path, words: tuple[str, ...], complaint: str
) -> None:
    data = str(finished.parent / "data/site-1.csv")
    words = tuple(data if word == "DATA" else word for word in words)
    done = CliRunner().invoke(app, ["evaluate", str(finished), *words])
    assert done.exit_code == 1
    assert complaint in str(done.exception)
