"""`compare`: every arm trains as the product does, on public data, and no ledger is opened."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support import make_federation
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.comparison import ARMS, compare, summarise
from fmfl_secure.comparison.compare import UNTRAINED
from fmfl_secure.comparison.rows import Comparison
from fmfl_secure.comparison.simulate import simulate
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.noise import NONE
from fmfl_secure.training.server_step import ServerStep
from privacy.mechanism.distributed import DistributedPlan

DELTA = "delta = 1e-4"


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    path = make_federation(folder, tiny_model, privacy=DELTA)
    for file in folder.glob("sites/*/site.toml"):
        declare(file, "public")
    return path


def declare(site_file: Path, visibility: str) -> None:
    text = site_file.read_text()
    for old in ("public", "private"):
        text = text.replace(f'visibility = "{old}"', f'visibility = "{visibility}"')
    site_file.write_text(text)


@pytest.fixture(scope="module")
def compared(federation: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    output = tmp_path_factory.mktemp("rows") / "rows.json"
    return compare(federation, epsilons=(1.0, 8.0), seeds=1, output=output)


def test_every_arm_has_a_row_for_every_target(compared: Comparison) -> None:
    assert compared.refused == {}
    private = {name for name, arm in ARMS.items() if arm.private}
    expected = {(UNTRAINED, None, 0)}
    expected |= {(name, None, 1) for name in set(ARMS) - private}
    expected |= {(name, epsilon, 1) for name in private for epsilon in (1.0, 8.0)}
    assert {row.key for row in compared.rows} == expected
    for row in compared.rows:
        assert 0.0 <= row.metrics["accuracy"] <= 1.0
        assert set(row.by_site) == ({"site-1", "site-2", "site-3"} if row.arm == "alone" else set())


def test_private_arms_take_as_many_steps_and_cost_what_they_claim(compared: Comparison) -> None:
    for row in compared.rows:
        if row.arm == UNTRAINED:
            continue
        assert row.steps == 4
        if row.epsilon is None:
            assert row.noise_multiplier == 0.0
            assert row.pld_epsilon is None
        else:
            assert row.noise_multiplier > 0.3
            assert row.pld_epsilon is not None
            assert 0.0 < row.pld_epsilon <= row.epsilon
        assert (row.insider_epsilon is not None) == (row.arm == "distributed")
    noise = {(row.arm, row.epsilon): row.noise_multiplier for row in compared.rows}
    assert noise["local", 1.0] > noise["local", 8.0]
    assert noise["pooled", 1.0] == pytest.approx(noise["local", 1.0], rel=0.02)


def test_no_ledger_is_opened(federation: Path, compared: Comparison) -> None:
    from privacy import Ledger

    for file in federation.parent.glob("sites/*/ledger.sqlite"):
        budget = Ledger(file).budget()
        assert not budget.reservations
        assert not budget.non_private


def test_private_data_are_refused_before_any_is_read(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_federation(tmp_path, tiny_model, privacy=DELTA)
    for file in tmp_path.glob("sites/*/site.toml"):
        declare(file, "public")
    declare(tmp_path / "sites/site-3/site.toml", "private")
    monkeypatch.setattr("fmfl_secure.data.fields.open_source", _must_not_be_called)
    with pytest.raises(ConfigError, match="site-3's data are not declared public"):
        compare(path)


def _must_not_be_called(*_: object) -> None:
    raise AssertionError("data were read")


def test_without_evaluation_data_there_is_nothing_to_compare(
    tmp_path: Path, tiny_model: Path
) -> None:
    path = make_federation(tmp_path, tiny_model, privacy=DELTA, evaluation=False)
    with pytest.raises(ConfigError, match="nothing to compare on"):
        compare(path)
    with pytest.raises(ConfigError, match="no arm is called 'flower'"):
        compare(path, arms=["flower"])


def test_it_goes_on_where_it_stopped_and_only_with_the_same_settings(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "rows.json"
    first = compare(federation, arms=["federated"], seeds=1, output=output)
    again = compare(federation, arms=["federated"], seeds=1, output=output)
    assert again == first
    more = compare(federation, arms=["federated"], seeds=2, output=output)
    assert more.rows[: len(first.rows)] == first.rows
    assert [row.seed for row in more.rows] == [0, 1, 2]
    kept = msgspec.json.decode(output.read_bytes())
    kept["settings_digest"] = "sha256:" + "0" * 64
    output.write_bytes(msgspec.json.encode(kept))
    with pytest.raises(RunError, match="other settings"):
        compare(federation, seeds=1, output=output)
    output.write_text("{}")
    with pytest.raises(RunError, match="not a comparison"):
        compare(federation, seeds=1, output=output)


def test_an_arm_that_cannot_be_is_left_out_with_its_reason(
    tmp_path: Path, tiny_model: Path
) -> None:
    # Pooled, 120 units: delta has to be below 1/1200, and this one is above.
    path = make_federation(tmp_path, tiny_model, privacy="delta = 2e-3")
    for file in tmp_path.glob("sites/*/site.toml"):
        declare(file, "public")
    found = compare(path, arms=["pooled"], seeds=1)
    assert [row.arm for row in found.rows] == [UNTRAINED]
    assert "privacy.delta" in found.refused["pooled"]


def test_the_shares_of_the_distributed_arm_add_up_to_less_noise(federation: Path) -> None:
    config = load_federation(federation)
    changed = {
        name: ARMS[name].settings(config, steps_per_round=2, epsilon=1.0, seed=1)
        for name in ("local", "local-site", "distributed", "pooled")
    }
    assert [c.federation.rounds for c in changed.values()] == [4, 2, 4, 4]
    assert [c.privacy.steps_per_round for c in changed.values()] == [1, 2, 1, 1]
    # One optimizer with one memory for all but the arm that is there to show the other way.
    assert [c.steps_at_server for c in changed.values()] == [True, False, True, True]
    assert len({ServerStep(c).optimizer for n, c in changed.items() if n != "local-site"}) == 1
    assert all(c.privacy.repeats == 0 for c in changed.values())
    assert sum(site.population for site in changed["pooled"].sites) == 120
    task = build_task(changed["distributed"], relative_to=federation.parent)
    size = largest_layout(task, task.build_model(seed=1)).size
    plan = site_plan(changed["distributed"], changed["distributed"].sites[0], size)
    assert isinstance(plan, DistributedPlan)
    assert plan.insider_epsilon() > 1.0


def test_without_noise_and_sampling_pooled_and_federated_agree_and_as_the_engine_does(
    federation: Path,
) -> None:
    """Rate 1, one SGD step a round, no noise: the mean of the sites' steps is the pooled step."""
    config = load_federation(federation)
    replace = msgspec.structs.replace
    plain = replace(
        config,
        privacy=replace(config.privacy, noise="none", sample_rate=1.0, steps_per_round=1),
        training=replace(config.training, optimizer="sgd"),
        aggregation=replace(config.aggregation, bits=24),
    )
    task = build_task(plain, relative_to=federation.parent)
    paths = [federation.parent / f"data/site-{n}.csv" for n in (1, 2, 3)]
    sites = {f"site-{n}": task.load(paths[n - 1], unit="record") for n in (1, 2, 3)}
    together = simulate(plain, task, sites)
    pooled_settings = dataclasses.replace(ARMS["pooled"], noise=NONE).settings(
        plain, steps_per_round=1, epsilon=1.0, seed=plain.federation.seed
    )
    pooled_settings = replace(
        pooled_settings,
        federation=replace(pooled_settings.federation, rounds=plain.federation.rounds),
        privacy=replace(pooled_settings.privacy, steps_per_round=1),
    )
    pooled = simulate(pooled_settings, task, {"pooled": task.load_pooled(paths, unit="record")})
    layout = task.begin_round(together, 1)
    left, right = layout.flatten(together), layout.flatten(pooled)
    assert np.abs(left).max() > 1e-3
    assert np.abs(left - right).max() < 1e-5


def test_the_command_prints_one_table(federation: Path, tmp_path: Path) -> None:
    arguments = ["compare", str(federation), "--seeds", "1", "--only", "probe"]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "majority class" in done.output
    assert "probe, not private" in done.output
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0
    assert '"arm": "probe"' in done.output


def test_a_summary_has_mean_and_spread(compared: Comparison) -> None:
    row = next(row for row in compared.rows if row.arm == "local")
    other = msgspec.structs.replace(row, seed=2, metrics={**row.metrics, "accuracy": 1.0})
    lines = summarise(compared.with_row(other))
    assert [line.arm for line in lines[:3]] == [UNTRAINED, "probe", "federated"]
    line = next(x for x in lines if x.arm == "local" and x.epsilon == row.epsilon)
    assert line.seeds == 2
    values = [row.metrics["accuracy"], 1.0]
    assert line.mean["accuracy"] == pytest.approx(np.mean(values))
    assert line.stdev["accuracy"] == pytest.approx(np.std(values, ddof=1))
