"""Advice before spending: what rises above its noise, and what would change the verdict."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from support import make_federation
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.comparison import OWN, read_rows, summarise
from fmfl_secure.planning.advice import CANDIDATES, MEASURED, advise
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.planning.readings import Signal, share_above
from fmfl_secure.planning.signal import expected_signals, head_signal, length_of_mean, topics
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.sections import AdapterSection
from fmfl_secure.tasks import Task, TaskData
from privacy import DistributedPlan
from privacy.training import public_clipped_means

ROOT = Path(__file__).parents[2]
SIGNALS = {
    "head": Signal(0.06, 0.0, 770, 0),
    "ffa-lora": Signal(0.06, 0.05, 770, 6144),
    "lora": Signal(0.06, 0.05, 770, 12288),
}
BETTER = 0.02  # of accuracy: above what changes the mean of so many seeds
ENOUGH_SEEDS = 3
replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def config() -> FederationConfig:
    return load_federation(ROOT / "examples/sst2/federation.toml")


def changed(
    config: FederationConfig, *, sites: int = 0, units: float = 1.0, noise: str = "", **privacy
) -> FederationConfig:
    if noise == "distributed":
        privacy |= {"noise": noise, "insider_epsilon": 1e9}
    one = replace(config.sites[0], population=round(config.sites[0].population * units))
    entries = tuple(
        replace(one, name=f"site-{n}") for n in range(1, (sites or len(config.sites)) + 1)
    )
    least = math.ceil(config.federation.min_sites * len(entries) / len(config.sites))
    return replace(
        config,
        sites=entries,
        federation=replace(config.federation, min_sites=least),
        privacy=replace(config.privacy, **privacy),
    )


def test_what_blocks_have_in_common_is_measured_and_chance_is_not() -> None:
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(400, 8, 1000))
    found = [length_of_mean(blocks) for blocks in noise]
    assert np.sqrt(np.mean(np.square(found))) < 0.2 * math.sqrt(1000 / 8)  # what a mean would show
    common = np.full(1000, 2.0 / math.sqrt(1000))
    found = [length_of_mean(blocks / 10 + common) for blocks in noise]
    assert np.mean(found) == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_the_share_above_its_noise_is_what_normal_numbers_have(ratio: float) -> None:
    numbers = np.random.default_rng(2).normal(size=200_000)
    signal = ratio * numbers  # noise of deviation 1 on each
    assert share_above(ratio) == pytest.approx(float((np.abs(signal) > 1.0).mean()), abs=0.004)
    assert share_above(0.0) == 0.0


def test_an_adapter_is_advised_where_it_rises_above_its_noise_and_not_before(
    config: FederationConfig,
) -> None:
    assert advise(config, SIGNALS).verdict == "head"
    assert advise(changed(config, units=40.0, delta=1e-7), SIGNALS).verdict == "ffa-lora"
    for reading in advise(config, SIGNALS).readings:
        plan = site_plan(config, config.sites[0], reading.numbers)
        assert plan is not None
        one = plan.noise_multiplier / (0.2 * 1250 * math.sqrt(8))
        assert reading.noise.deviation == pytest.approx(one, rel=0.02)
        assert reading.head == pytest.approx(0.06 / (one * math.sqrt(770)), rel=0.02)
        assert reading.head_in_run == pytest.approx(reading.head * math.sqrt(40))


def test_an_adapter_just_above_its_noise_is_one_to_compare_and_not_the_verdict(
    config: FederationConfig,
) -> None:
    few = SIGNALS | {"lora-xs": Signal(0.06, 0.05, 770, 128)}
    found = advise(config, few)
    assert 1.0 < found.of("lora-xs").adapter < 3.0
    assert found.verdict == "head"
    (sentence,) = [s for s in found.sentences() if s.startswith("above their noise: ")]
    assert sentence.startswith("above their noise: lora-xs. ")
    assert not any(s.startswith("above their noise") for s in advise(config, SIGNALS).sentences())
    assert advise(changed(config, noise="distributed", units=2.0), few).verdict == "lora-xs"


@pytest.mark.parametrize("noise", ["local", "distributed"])
def test_so_many_more_sites_or_units_do_change_the_verdict(
    config: FederationConfig, noise: str
) -> None:
    # Of more sites with shares each adds less noise, which the others may know: so more units here.
    here = changed(config, noise=noise, delta=1e-7, units=4.0)
    before = advise(here, SIGNALS)
    assert before.verdict == "head"
    (sentence,) = [s for s in before.sentences() if s.startswith("no adapter pays yet")]
    words = sentence.replace(",", "").split()
    sites, times = (
        int(words[words.index("sites") - 1]),
        float(words[words.index("times", words.index("sites")) - 1]),
    )
    assert advise(changed(here, sites=sites + 1), SIGNALS).verdict == "ffa-lora"
    assert advise(changed(here, sites=round(0.8 * sites)), SIGNALS).verdict == "head"
    assert advise(changed(here, units=1.02 * (times + 0.05)), SIGNALS).verdict == "ffa-lora"
    assert advise(changed(here, units=0.97 * (times - 0.05)), SIGNALS).verdict == "head"


def test_a_change_that_is_named_brings_what_is_said(config: FederationConfig) -> None:
    head = replace(config, adapter=replace(config.adapter, kind="head"))
    found = advise(head, SIGNALS)
    named = {change.setting.split(" =")[0]: change for change in found.changes}
    assert len(found.changes) == 3
    assert found.changes[0].setting.startswith("privacy.noise = 'distributed'")
    shares = advise(changed(head, noise="distributed"), SIGNALS)
    gain = shares.of("head").head_in_run / found.of("head").head_in_run
    assert named["privacy.noise"].gain == pytest.approx(gain)
    assert found.other == pytest.approx(shares.of("head").head_in_run)
    assert shares.other == pytest.approx(found.of("head").head_in_run)
    exact = advise(changed(head, accounting="exact"), SIGNALS)
    gain = exact.of("head").head_in_run / found.of("head").head_in_run
    assert 1.08 < gain < 1.16
    assert named["privacy.accounting"].gain == pytest.approx(gain)
    # What is done already is not named again, and the adapter is named where another is set.
    assert all("accounting" not in change.setting for change in exact.changes)
    assert all("noise" not in change.setting for change in shares.changes)
    assert advise(config, SIGNALS).changes[0].setting == "adapter.kind = 'head'"


def test_settings_that_the_custodians_just_allow_are_read(
    config: FederationConfig,
) -> None:
    free = changed(config, noise="distributed")
    plan = site_plan(free, free.sites[0], SIGNALS["ffa-lora"].adapter_size + 770)
    assert isinstance(plan, DistributedPlan)
    just = replace(free, privacy=replace(free.privacy, insider_epsilon=plan.insider_epsilon()))
    assert advise(just, SIGNALS) == advise(free, SIGNALS)


def test_a_head_below_its_noise_is_said_and_labels_are_named(config: FederationConfig) -> None:
    few = changed(config, units=0.05, epsilon=0.5)
    found = advise(few, SIGNALS)
    assert found.verdict == "head"
    assert any("even the head is below its noise" in s for s in found.sentences())
    assert any(change.setting == "task.label_texts" for change in found.changes)


def test_steps_at_the_sites_are_advised_against_and_read_as_if_at_the_server(
    config: FederationConfig,
) -> None:
    at_sites = replace(
        config,
        federation=replace(config.federation, rounds=10),
        privacy=replace(config.privacy, steps_per_round=4),
        training=replace(config.training, steps_at="site"),
    )
    found = advise(at_sites, SIGNALS)
    assert any("steps_at = 'server'" in change.setting for change in found.changes)
    assert found.of("head").head_in_run == advise(config, SIGNALS).of("head").head_in_run


def test_plan_ends_in_a_verdict_from_no_data(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_federation(tmp_path, tiny_model)
    for file in tmp_path.glob("data/*"):
        file.unlink()  # nothing of it may be needed
    monkeypatch.setattr("fmfl_secure.planning.signal.RECORDS", 32)
    done = CliRunner().invoke(app, ["plan", str(path)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "verdict     train " in done.output
    assert "signal over noise" in done.output
    assert "change      1. " in done.output
    without = CliRunner().invoke(app, ["plan", str(path), "--no-advice"])
    assert "verdict" not in without.output
    monkeypatch.setattr("fmfl_secure.planning.signal.topics", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))  # nothing is kept there
    unknown = CliRunner().invoke(app, ["plan", str(path)])
    assert "verdict     none" in unknown.output


def test_records_made_up_can_be_told_apart_if_labels_have_words_and_else_not(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_federation(tmp_path, tiny_model)
    config = replace(load_federation(path), adapter=AdapterSection(kind="head"))
    task = build_task(config, relative_to=tmp_path)
    monkeypatch.setattr("fmfl_secure.tasks.text_classification._WORDS_OF_A_LABEL", 2)

    def length() -> float:
        data = topics(task)
        assert data is not None
        return head_signal(config, task, task.build_model(seed=1), data).length

    told = length()
    monkeypatch.setattr("fmfl_secure.tasks.text_classification.OWN_WORDS", 0.0)
    assert told > 0.02
    assert length() < 0.4 * told


def test_images_made_up_can_be_told_apart_by_their_labels_own_patches(
    tmp_path: Path, tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_federation(tmp_path, tiny_models("vit"))
    before, after = path.read_text().split("[task]")
    rest = after.split("[adapter]")[1].replace('target_modules = ["query", "value"]', "")
    task = '[task]\nkind = "image-classification"\nlabels = ["dark", "bright"]\n'
    path.write_text(f"{before}{task}[adapter]{rest}")
    config = replace(load_federation(path), adapter=AdapterSection(kind="head"))
    made = build_task(config, relative_to=tmp_path)

    def length() -> float:
        data = topics(made)
        assert data is not None
        assert data.labels.tolist() == [0, 1] * 32
        return head_signal(config, made, made.build_model(seed=1), data).length

    monkeypatch.setattr("fmfl_secure.planning.signal.RECORDS", 64)
    told = length()
    monkeypatch.setattr("fmfl_secure.tasks.pictures.OWN_PATCHES", 0.0)
    assert told > 2.0 * length()
    monkeypatch.undo()
    monkeypatch.setattr("fmfl_secure.planning.signal.RECORDS", 32)
    done = CliRunner().invoke(app, ["plan", str(path)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "verdict     train " in done.output
    assert "on the two sets of images that were measured" in done.output


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_verdict_on_images_is_what_was_measured(name: str) -> None:
    """With the lengths that images made up gave on DINOv2-small (`tasks.pictures`)."""
    config = load_federation(ROOT / f"benchmarks/published/{name}.toml")
    signals = {"head": Signal(0.011, 0.0, 3850, 0), "ffa-lora": Signal(0.011, 0.48, 3850, 27648)}
    signals["lora-xs"] = Signal(0.011, 0.39, 3850, 192)  # which nobody measured there
    lines = summarise(read_rows(ROOT / f"docs/results/{name}_dinov2.jsonl"))
    for line in (line for line in lines if line.adapter == "ffa-lora" and line.epsilon):
        (head,) = (
            each.mean["accuracy"]
            for each in lines
            if each.adapter == "head" and (each.arm, each.epsilon) == (line.arm, line.epsilon)
        )
        noise = "distributed" if line.arm == "distributed" else ""
        advice = advise(changed(config, noise=noise, epsilon=line.epsilon), signals)
        assert advice.verdict == "ffa-lora"
        assert line.mean["accuracy"] > head + BETTER
        assert not any("measured on an encoder" in sentence for sentence in advice.sentences())
    weaker = signals | {"ffa-lora": Signal(0.011, 0.01, 3850, 27648)}
    assert advise(config, weaker).verdict == "head"


def test_every_block_of_records_made_up_has_each_label_as_often(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One label more would hide all else, where a model's outputs are much alike."""
    path = make_federation(tmp_path, tiny_model)
    config = replace(load_federation(path), adapter=AdapterSection(kind="head"))
    task = build_task(config, relative_to=tmp_path)
    data, met = topics(task), []
    assert data is not None

    def seen(*given: Any, **told: Any) -> NDArray[np.float64]:
        met.extend(told["blocks"])
        return public_clipped_means(*given, **told)

    monkeypatch.setattr("fmfl_secure.planning.signal.public_clipped_means", seen)
    head_signal(config, task, task.build_model(seed=1), data)
    labels = len(config.task.labels)
    for block in met:
        counts = np.bincount(block % labels, minlength=labels)  # made up in turns
        assert counts.min() == counts.max() > 0
    assert sorted(np.concatenate(met[:8])) == list(range(data.records // labels * labels))


def test_kinds_that_freeze_the_same_layers_share_their_outputs(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_federation(tmp_path, tiny_model)
    made = []

    def counted(task: Task) -> TaskData | None:
        made.append(task)
        return topics(task)

    monkeypatch.setattr("fmfl_secure.planning.signal.RECORDS", 32)
    monkeypatch.setattr("fmfl_secure.planning.signal.topics", counted)
    found = expected_signals(load_federation(path), relative_to=tmp_path)
    assert found is not None
    assert tuple(found) == CANDIDATES
    assert len(made) == 2, "the head's, which freezes all layers, and everybody else's"
    for kind, signal in found.items():
        assert (signal.adapter_size > 0) == (kind != "head")
        assert signal.head == found["head"].head


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "labelled", "files"),
    [
        ("sst2", False, ("sst2", "earlier/sst2")),
        ("medical_abstracts", True, ("medical_abstracts",)),
        (
            "medical_abstracts",
            False,
            ("earlier/medical_abstracts", "earlier/medical_abstracts_probe"),
        ),
    ],
    ids=["sst2", "abstracts", "abstracts-from-zero"],
)
def test_the_verdict_is_what_was_measured(
    example: str, labelled: bool, files: tuple[str, ...]
) -> None:
    """By the rows that docs/results.md is made from: an adapter where one was better, else none."""
    folder = ROOT / "examples" / example
    config = load_federation(folder / "federation.toml")
    if not labelled:
        config = replace(config, task=replace(config.task, label_texts=()))
    signals = expected_signals(config, relative_to=folder)
    assert signals is not None
    found: dict[tuple[str, float | None], dict[str, float]] = {}
    for file in files:
        for line in summarise(read_rows(ROOT / f"docs/results/{file}.jsonl")):
            private = line.arm in {"local", "distributed"}
            if line.partition == OWN and private and line.seeds >= ENOUGH_SEEDS:
                accuracy = found.setdefault((line.arm, line.epsilon), {})
                accuracy[line.adapter] = line.mean["accuracy"]
    both = {setting: by for setting, by in found.items() if "head" in by and len(by) > 1}
    assert both
    ratios = []
    for (arm, epsilon), accuracy in both.items():
        here = changed(config, noise="distributed" if arm == "distributed" else "", epsilon=epsilon)
        better = {kind for kind in accuracy if accuracy[kind] >= accuracy["head"] + BETTER}
        advice = advise(here, signals)
        assert advice.verdict in (better or {"head"}), (arm, epsilon, accuracy)
        known = [reading for reading in advice.readings if reading.kind in accuracy]
        ratios.append(max(reading.adapter for reading in known))
    assert max(ratios) <= MEASURED
    if example == "medical_abstracts" and labelled:  # where the strongest was measured
        assert max(ratios) > MEASURED - 0.1
