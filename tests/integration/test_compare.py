"""`compare`: every arm trains as the product does, on public data, and no ledger is opened."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
from answered import read_answer
from support import make_federation
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.cli._console import console
from fmfl_secure.comparison import ARMS, OWN, compare, read_rows, summarise
from fmfl_secure.comparison.compare import START, UNTRAINED
from fmfl_secure.comparison.partitions import accuracy_on_mix, label_mix
from fmfl_secure.comparison.rows import Comparison
from fmfl_secure.comparison.simulate import simulate
from fmfl_secure.comparison.sources import Sources, with_populations
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.noise import NONE
from fmfl_secure.training.non_private import poisson_steps
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
    output = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    compare(federation, adapters=["head"], epsilons=(1.0, 8.0), seeds=1, output=output)
    return compare(federation, adapters=["ffa-lora"], seeds=1, output=output)


def test_every_arm_has_a_row_for_every_target(compared: Comparison) -> None:
    private = {name for name, arm in ARMS.items() if arm.private}
    names = {
        (adapter, name)
        for adapter in ("head", "ffa-lora")
        for name in ARMS
        if (adapter, name) != ("head", "personal")  # all that it has would stay at the sites
    }
    expected = {(OWN, "", UNTRAINED, None, 0)}
    expected |= {(OWN, adapter, name, None, 1) for adapter, name in names if name not in private}
    expected |= {
        (OWN, adapter, name, epsilon, 1)
        for adapter, name in names
        if name in private
        for epsilon in ((1.0, 8.0) if adapter == "head" else (8.0,))
    }
    assert {row.key for row in compared.rows} == expected
    assert {(each.adapter, each.arm) for each in compared.refused} == {("head", "personal")}
    for row in compared.rows:
        assert 0.0 <= row.metrics["accuracy"] <= 1.0
        of_each_site = row.arm in {"alone", "personal"}
        assert set(row.by_site) == ({"site-1", "site-2", "site-3"} if of_each_site else set())
        assert row.size == {"": 0, "head": 34, "ffa-lora": 98}[row.adapter] - 34 * (
            row.arm == "personal"
        )


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
    rows = [row for row in compared.rows if row.adapter == "head"]
    noise = {(row.arm, row.epsilon): row.noise_multiplier for row in rows}
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
    with pytest.raises(ConfigError, match="no adapter is called 'other_package:mine'"):
        compare(path, adapters=["other_package:mine"])
    for name in ("dirichlet:0", "dirichlet:much", "dirichlet:inf", "column:x", ""):
        with pytest.raises(ConfigError, match="no partition is called"):
            compare(path, partitions=[name])


def test_it_goes_on_where_it_stopped_and_only_with_the_same_settings(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "rows.jsonl"
    chosen = {"adapters": ["head"], "arms": ["federated", "personal"], "output": output}
    first = compare(federation, seeds=1, **chosen)
    written = output.read_bytes()
    again = compare(federation, seeds=1, **chosen)
    assert again == first == read_rows(output)
    assert output.read_bytes() == written
    more = compare(federation, seeds=2, **chosen)
    assert more.rows[: len(first.rows)] == first.rows
    assert [row.seed for row in more.rows] == [0, 1, 2]
    assert output.read_bytes().startswith(written)
    # Killed between two rows: what is there stays, what is not is made.
    header, *lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(header + lines[0])
    assert [row.seed for row in compare(federation, seeds=2, **chosen).rows] == [0, 1, 2]
    # Another machine goes on: its rows come after a header of its own.
    monkeypatch.setattr("platform.machine", lambda: "z80")
    elsewhere = compare(federation, seeds=3, **chosen)
    assert elsewhere.header.machine["processor"] == "z80"
    assert output.read_bytes().count(b'"kind":"comparison"') == 2
    assert read_rows(output) == elsewhere
    other = header.replace(msgspec.json.decode(header)["settings_digest"].encode(), b"other")
    output.write_bytes(other)
    with pytest.raises(RunError, match="other settings"):
        compare(federation, seeds=1, output=output)
    for torn in (b"", b"{}", header + lines[0][:-1], header + lines[0][:-9], lines[0], b"\xff\n"):
        output.write_bytes(torn)
        with pytest.raises(RunError, match="not a comparison"):
            compare(federation, seeds=1, output=output)
    output.write_bytes(header + other)
    with pytest.raises(RunError, match="several settings"):
        compare(federation, seeds=1, output=output)


def test_an_arm_that_cannot_be_is_left_out_with_its_reason(
    tmp_path: Path, tiny_model: Path
) -> None:
    # Pooled, 120 units: delta has to be below 1/1200, and this one is above.
    path = make_federation(tmp_path, tiny_model, privacy="delta = 2e-3")
    for file in tmp_path.glob("sites/*/site.toml"):
        declare(file, "public")
    found = compare(path, adapters=["head"], arms=["pooled"], seeds=1)
    assert [row.arm for row in found.rows] == [UNTRAINED]
    (refusal,) = found.refused
    assert refusal.arm == "pooled"
    assert "privacy.delta" in refusal.reason


def test_data_are_shared_out_anew_by_label_and_scored_as_sites_see_them(
    federation: Path, compared: Comparison
) -> None:
    arms = ["federated", "local", "fedprox", "personal", "pooled"]
    found = compare(
        federation, adapters=["ffa-lora"], arms=arms, partitions=["dirichlet:0.3"], seeds=1
    )
    assert {(row.arm, row.partition) for row in found.rows if row.adapter} == {
        (arm, OWN if arm == "pooled" else "dirichlet:0.3") for arm in arms
    }
    config = load_federation(federation)
    sources = Sources(federation, config)
    pooled, own = sources.pooled(config), sources.shares(config, OWN, 1)
    assert [len(units) for units in own.values()] == [40, 40, 40]
    drawn = sources.shares(config, "dirichlet:0.3", 1)
    assert sorted(np.concatenate(list(drawn.values()))) == list(range(120))
    assert sources.shares(config, "dirichlet:0.3", 2)["site-1"].tolist() != drawn["site-1"].tolist()
    assert [s.population for s in with_populations(config, drawn).sites] == [
        len(units) for units in drawn.values()
    ]
    spread = [float(np.std(label_mix(pooled, units))) for units in drawn.values()]
    assert max(spread) > 0.2 > max(float(np.std(label_mix(pooled, u))) for u in own.values())
    # One model says the same whoever asks, and a mean of weighted accuracies lies between them.
    right, labels = np.array([True, False, False, True]), np.array([0, 0, 1, 1])
    assert accuracy_on_mix(right, labels, np.array([1.0, 0.0])) == 0.5
    assert accuracy_on_mix(np.array([True, True, False, False]), labels, np.array([0.9, 0.1])) == (
        pytest.approx(0.9)
    )
    # What no held-out record has says nothing.
    assert accuracy_on_mix(right, labels, np.array([0.5, 0.0, 0.5])) == 0.5
    for row in compared.rows:
        if row.arm == "federated":  # equal shares of two labels: the same to the last of 30 records
            assert abs(row.metrics["site_accuracy"] - row.metrics["accuracy"]) < 0.05


def test_answers_that_are_labels_are_compared_as_labels_are(tmp_path: Path, tiny_models) -> None:
    """Beside classification on the same rows: the same majority class, partitions and figures."""
    path = make_federation(tmp_path, tiny_models("llama"), rounds=1, steps=1, privacy=DELTA)
    before, after = path.read_text().split("[task]")
    rest = after.split("[adapter]")[1].replace('target_modules = ["query", "value"]\n', "")
    task = 'kind = "causal-lm"\nprompt_column = "text"\nresponse_column = "label"\n'
    asked = f'{before}[task]\n{task}responses = ["no", "yes"]\n[adapter]{rest}'
    path.write_text(asked)
    for file in tmp_path.glob("sites/*/site.toml"):
        declare(file, "public")
    chosen = {"adapters": ["lora"], "arms": ["federated"], "partitions": ["dirichlet:0.3"]}
    rows = compare(path, seeds=1, **chosen).rows
    assert [row.arm for row in rows] == [UNTRAINED, START, "federated"]
    assert rows[0].metrics == {
        "accuracy": 0.5,
        "macro_f1": pytest.approx(1 / 3),
        "site_accuracy": pytest.approx(0.5, abs=0.05),
    }
    for row in rows[1:]:
        assert list(row.metrics)[:3] == ["accuracy", "macro_f1", "token_accuracy"]
        assert {"exact_match", "loss", "site_accuracy"} < set(row.metrics)
    # Of some other response the rows have no labels: no majority, nothing to share out by.
    path.write_text(asked.replace('["no", "yes"]', '["no", "perhaps"]'))
    with pytest.raises(ConfigError, match="have none"):
        compare(path, seeds=1, **chosen)
    found = compare(path, seeds=1, adapters=["lora"], arms=[])
    assert [row.arm for row in found.rows] == [UNTRAINED]
    assert "loss" in found.rows[0].metrics
    assert "site_accuracy" not in found.rows[0].metrics


def test_a_site_trains_on_its_own_units_alone(
    federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_federation(federation)
    sources = Sources(federation, config)
    shares = sources.shares(config, "dirichlet:0.3", 1)
    (parties,) = sources.parties(ARMS["local"], config, shares)
    for name, data in parties.items():
        steps = poisson_steps(data, steps=1, sample_rate=1.0, physical_batch_size=8)
        seen = np.concatenate(next(steps))
        assert sorted(seen) == sorted(np.concatenate(data.units)) == sorted(shares[name])


def test_outputs_of_frozen_layers_are_kept_for_all_that_freeze_the_same(federation: Path) -> None:
    config = load_federation(federation)
    sources = Sources(federation, config)
    replace = msgspec.structs.replace
    of = {
        kind: replace(config, adapter=replace(config.adapter, kind=kind))
        for kind in ("head", "ffa-lora", "lora")
    }
    assert sources.pooled(of["lora"]) is sources.pooled(of["ffa-lora"])
    assert sources.pooled(of["lora"]) is not sources.pooled(of["head"])


def test_the_shares_of_the_distributed_arm_add_up_to_less_noise(federation: Path) -> None:
    config = load_federation(federation)
    changed = {
        name: ARMS[name].settings(config, steps_per_round=2, epsilon=1.0, seed=1)
        for name in ("local", "local-site", "distributed", "pooled")
    }
    prox = ARMS["fedprox"].settings(config, steps_per_round=2, epsilon=1.0, seed=1)
    assert prox.training.proximal == 0.1
    assert changed["local-site"].training.proximal == 0.0
    slower = ARMS["slower"].settings(config, steps_per_round=2, epsilon=1.0, seed=1)
    plain = ARMS["federated"].settings(config, steps_per_round=2, epsilon=1.0, seed=1)
    rates = [(c.training.learning_rate, c.training.head_learning_rate) for c in (plain, slower)]
    assert rates[0] == (config.training.learning_rate, config.training.head_learning_rate)
    assert rates[1] == pytest.approx([rate / 3 for rate in rates[0]])
    assert msgspec.structs.replace(slower, training=plain.training) == plain
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
    layout = task.begin_round(together.model, 1)
    left, right = layout.flatten(together.model), layout.flatten(pooled.model)
    assert np.abs(left).max() > 1e-3
    assert np.abs(left - right).max() < 1e-5


def test_the_command_prints_one_table(federation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A console keeps the width of the environment that it was first imported in.
    monkeypatch.setattr(console, "_width", 160)
    arguments = ["compare", str(federation), "--seeds", "1", "--only", "federated"]
    arguments += ["--adapter", "head,lora"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "majority class" in done.output
    assert done.output.count("federated, not private") == 2
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0
    rows = read_answer("compare", done.stdout)["rows"]
    assert [row["arm"] for row in rows].count("federated") == 2


def test_a_summary_has_mean_and_spread(compared: Comparison) -> None:
    row = next(row for row in compared.rows if row.arm == "local" and row.adapter == "ffa-lora")
    other = msgspec.structs.replace(row, seed=2, metrics={**row.metrics, "accuracy": 1.0})
    lines = summarise(compared.adding(other))
    assert [(x.adapter, x.arm) for x in lines[:4]] == [
        ("", UNTRAINED),
        ("head", "federated"),
        ("head", "slower"),
        ("ffa-lora", "federated"),
    ]
    keys = [(x.adapter, x.arm, x.epsilon) for x in lines]
    line = lines[keys.index(("ffa-lora", "local", row.epsilon))]
    assert line.seeds == 2
    values = [row.metrics["accuracy"], 1.0]
    assert line.mean["accuracy"] == pytest.approx(np.mean(values))
    assert line.stdev["accuracy"] == pytest.approx(np.std(values, ddof=1))
