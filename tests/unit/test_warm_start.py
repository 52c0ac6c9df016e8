"""Going on from an earlier adapter: where training starts, and what the whole line cost."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import Quiet, make_federation, settings, write_rows
from task_cases import randomise, task_on

from fmfl_secure.attacks import attack_run
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.models.adapters import ADAPTERS, adapter_bytes, load_adapter_bytes
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.planning.plans import predict
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.planning.warm_start import find_initial, line_epsilon, line_of_run
from fmfl_secure.report.export import export_run
from fmfl_secure.run.record import decode_record
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.tasks.adapter_task import InitialAdapter
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter_line import EARLIER_FILE, LINE_FILE, decode_line
from privacy import NonPrivate


def going_on(task: Any, folder: Path) -> Any:
    """The same task, which starts from an adapter in a folder."""
    return dataclasses.replace(task, initial=InitialAdapter(folder, "[]"))


@pytest.fixture(scope="module")
def line(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three sites, and one that goes on from it with a fourth."""
    folder = tmp_path_factory.mktemp("line")
    federation = make_federation(folder, tiny_model, rounds=1, steps=1, grant=100.0)
    LocalEngine(federation, folder / "run-1", resume=False, observer=Quiet()).run()
    write_rows(folder / "data" / "site-4.csv", 40, seed=4)
    federation.write_text(
        settings(
            tiny_model, sites=4, rounds=1, steps=1, adapter='last_layers = 1\ninitial = "run-1"'
        )
    )
    initialise(folder, epsilon=100.0, delta=None, simulated=True)
    LocalEngine(federation, folder / "run-2", resume=False, observer=Quiet()).run()
    return folder


def test_a_run_starts_where_the_earlier_one_ended(line: Path) -> None:
    first = decode_record((line / "run-1/report.json").read_bytes())
    second = decode_record((line / "run-2/report.json").read_bytes())
    assert first.line is msgspec.UNSET
    assert second.line is not msgspec.UNSET
    (before,) = second.line.ancestors
    assert before.run == first.run
    assert before.adapter_digest == first.rounds[-1].adapter_digest == second.line.initial_digest
    assert second.initial_metrics == first.rounds[-1].metrics
    assert len(second.rounds[0].cohort) == 4


def test_the_report_says_what_the_whole_line_cost(line: Path) -> None:
    runs = line_of_run(line / "run-2")
    assert [each.trainings for each in runs] == [1, 1]
    config = load_federation(line / "federation.toml")
    one, both = line_epsilon(runs[:1], 1e-5), line_epsilon(runs, 1e-5)
    assert one < both < 2 * one
    page = (line / "run-2/report.html").read_text(encoding="utf-8")
    assert "continues 1 earlier run" in page
    assert f"{math.ceil(both * 100) / 100:.2f}" in page
    # As a run of so many rounds costs, where both do the same.
    task = build_task(config, relative_to=line)
    size = largest_layout(task, task.build_model(seed=1)).size
    assert one == pytest.approx(predict(config, size).epsilon_by_round[0], rel=0.2)
    card = (line / "run-2/adapter/README.md").read_text(encoding="utf-8")
    assert "continues 1 earlier run" in card


def test_an_exported_adapter_carries_its_line(line: Path, tmp_path: Path) -> None:
    export_run(line / "run-2", tmp_path / "out")
    found = decode_line((tmp_path / "out" / LINE_FILE).read_bytes())
    assert [each.run for each in found] == [each.run for each in line_of_run(line / "run-2")]
    config = load_federation(line / "federation.toml")
    adapter = msgspec.structs.replace(config.adapter, initial=str(tmp_path / "out"))
    task = build_task(msgspec.structs.replace(config, adapter=adapter), relative_to=line)
    task.save_adapter(task.build_model(seed=1), tmp_path / "again")
    # A run's own folder says by its name that the run itself is not in the line yet.
    assert decode_line((tmp_path / "again" / EARLIER_FILE).read_bytes()) == found
    assert not (tmp_path / "again" / LINE_FILE).exists()
    (tmp_path / "out" / LINE_FILE).unlink()
    with pytest.raises(ModelError, match="does not say what its adapter cost"):
        build_task(msgspec.structs.replace(config, adapter=adapter), relative_to=line)
    with pytest.raises(ConfigError, match="neither a finished run nor"):
        build_task(config, relative_to=tmp_path)


def test_a_run_s_own_adapter_folder_leaves_no_run_out(line: Path, tmp_path: Path) -> None:
    """The folder knows what came before the run; what the run cost itself, its report says."""
    config = load_federation(line / "federation.toml")
    runs = line_of_run(line / "run-2")

    def initial(folder: Path) -> InitialAdapter | None:
        adapter = msgspec.structs.replace(config.adapter, initial=str(folder))
        return find_initial(msgspec.structs.replace(config, adapter=adapter), relative_to=line)

    for place in (line / "run-2", line / "run-2/adapter"):
        found = initial(place)
        assert found is not None
        assert decode_line(found.line) == runs
    shutil.copytree(line / "run-2/adapter", tmp_path / "copied")
    with pytest.raises(ModelError, match="does not say what its adapter cost"):
        initial(tmp_path / "copied")


def test_an_attack_is_held_to_what_the_whole_line_allows(line: Path) -> None:
    """Somebody who was in both runs may be told by what both cost, and no claim is broken."""
    write_rows(line / "like.csv", 40, seed=77)
    first, second = (
        attack_run(
            line / run, line / "like.csv", sites=[line / "sites/site-1"], references=1
        ).record
        for run in ("run-1", "run-2")
    )
    assert first.epsilon is not None
    assert second.epsilon is not None
    assert second.epsilon >= line_epsilon(line_of_run(line / "run-2"), second.delta)
    assert second.epsilon > 1.1 * first.epsilon
    assert second.allowed_auc > first.allowed_auc


def test_private_data_without_noise_leave_no_bound(line: Path) -> None:
    runs = line_of_run(line / "run-2")
    without = msgspec.structs.replace(runs[0], event=NonPrivate("no noise").canonical())
    assert line_epsilon([without, runs[1]], 1e-5) == math.inf
    public = msgspec.structs.replace(runs[0], event=None)
    assert line_epsilon([public, runs[1]], 1e-5) == line_epsilon(runs[1:], 1e-5)


def test_a_report_that_plans_noise_otherwise_is_refused(line: Path, tmp_path: Path) -> None:
    shutil.copytree(line / "run-1", tmp_path / "run")
    path = tmp_path / "run/report.json"
    report = json.loads(path.read_text())
    report["mechanism"]["noise_multiplier"] *= 0.5
    path.write_text(json.dumps(report))
    with pytest.raises(ModelError, match="planned noise otherwise"):
        line_of_run(tmp_path / "run")


@pytest.mark.parametrize("kind", ADAPTERS.names)
def test_every_kind_of_adapter_is_gone_on_from(tiny_models, tmp_path: Path, kind: str) -> None:
    base = tiny_models("llama" if kind == "prefix" else "bert")
    on = "causal-lm" if kind == "prefix" else "text-classification"
    task = task_on(base, on, kind)
    model = task.build_model(seed=1)
    for round_number in task.distinct_rounds:
        task.begin_round(model, round_number)
        randomise(model, seed=round_number)
    task.begin_round(model, 1)
    task.save_adapter(model, tmp_path / "first")
    continued = going_on(task, tmp_path / "first").build_model(seed=2)
    expected = load_adapter_bytes(adapter_bytes(model))
    found = load_adapter_bytes(adapter_bytes(continued))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)


def test_another_scaling_is_refused(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("bert"), "text-classification")
    model = task.build_model(seed=1)
    randomise(model)
    task.save_adapter(model, tmp_path / "first")
    for change, said in (({"alpha": 16.0}, "answers otherwise"), ({"rank": 3}, "does not match")):
        other = task_on(tiny_models("bert"), "text-classification", **change)
        with pytest.raises(ModelError, match=said):
            going_on(other, tmp_path / "first").build_model(seed=1)
