"""Attacks on a finished adapter: what they find of one that overfits, and whose figures stay."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
import torch
from support import WORDS, Quiet, make_federation, write_rows
from task_cases import task_on
from typer.testing import CliRunner

from fmfl_secure.attacks import attack_run
from fmfl_secure.attacks.references import against_references, fits, losses
from fmfl_secure.attacks.secrets import Secret, expose, read_secrets
from fmfl_secure.attacks.sites import guess_sites
from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.report import attacked
from fmfl_secure.report.dpia import render_dpia
from fmfl_secure.report.results import write_results
from fmfl_secure.run.attack_record import (
    ATTACK_NAME,
    AttackRecord,
    ToldMembers,
    ToldSecret,
    load_attack,
    save_attack,
)
from fmfl_secure.run.record import decode_record
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy.auditing import most_auc


def declare(folder: Path, visibility: str) -> None:
    for site in ("site-1", "site-2", "site-3"):
        path = folder / "sites" / site / "site.toml"
        text = path.read_text()
        for each in ("private", "public"):
            text = text.replace(f'visibility = "{each}"', f'visibility = "{visibility}"')
        path.write_text(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("attacked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privacy.training.check_admission", lambda *_, **__: None)
        federation = make_federation(folder, tiny_model, rounds=1)
        LocalEngine(federation, folder / "run", resume=False, observer=Quiet()).run()
    write_rows(folder / "like.csv", 40, seed=77)
    return folder


@pytest.fixture
def private(finished: Path):
    declare(finished, "private")
    yield finished
    (finished / "run" / ATTACK_NAME).unlink(missing_ok=True)


@pytest.fixture
def public(private: Path) -> Path:
    declare(private, "public")
    return private


def test_figures_of_public_data_are_in_the_run_and_its_report(public: Path) -> None:
    arguments = ["attack", str(public / "run"), "--public-like", str(public / "like.csv"), "--json"]
    done = CliRunner().invoke(app, [*arguments, "--references", "2"])
    assert done.exit_code == 0, done.output
    record = msgspec.json.decode(done.stdout, type=AttackRecord)
    assert record.visibility == "public"
    assert record.sites == ("site-1", "site-2", "site-3")
    assert (record.members, record.others, record.others_from) == (120, 20, "public-like")
    assert {each.attack for each in record.membership} == {"reference models", "loss threshold"}
    assert record.epsilon == pytest.approx(8.0, rel=0.05)
    assert record.allowed_auc == pytest.approx(most_auc(epsilon=record.epsilon, delta=record.delta))
    assert record.told_sites is not None
    assert record.told_sites.sites == 3
    report = decode_record((public / "run/report.json").read_bytes())
    assert report.attack == record
    page = (public / "run/report.html").read_text()
    assert "Attacks on the finished adapter" in page
    assert "at most 1.000" in page  # what epsilon 8 allows is said, and that it is little
    assert "by itself excludes little" in page
    assert attacked.sentences(record)[0] in " ".join(page.split())
    assert "These attacks tell little or nothing" in render_dpia(report).replace("\\", "")


def test_figures_of_private_data_stay_at_the_site(private: Path) -> None:
    run = private / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="nobody's to keep"):
        attack_run(run, private / "like.csv", references=1)
    done = CliRunner().invoke(
        app,
        ["attack", str(run), "--public-like", str(private / "like.csv"), "--references", "1",
         "--site", str(private / "sites/site-2")],
    )  # fmt: skip
    assert done.exit_code in {0, 2}, done.output
    path = private / "sites/site-2/attacks" / f"{RunStore(run).state.run}.json"
    record = msgspec.json.decode(path.read_bytes(), type=AttackRecord)
    assert (record.visibility, record.sites) == ("private", ("site-2",))
    assert record.told_sites is None
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    # And put into the run's folder, they get into no report.
    save_attack(run, ATTACK_NAME, record)
    with pytest.raises(RunError, match="exact figures of private data"):
        write_results(RunStore(run))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": "another"}, "of another run"),
        ({"members": -1}, "cannot read"),
        ({"format": 2}, "of another run, settings or form"),
    ],
    ids=["run", "impossible", "form"],
)
def test_a_record_that_is_not_of_the_run_is_refused(tmp_path: Path, changes, words) -> None:
    made = told(0.6, 0.5)
    named = {"run": made.run, "settings_digest": made.settings_digest}
    assert load_attack(tmp_path, **named) is None
    save_attack(tmp_path, ATTACK_NAME, made)
    assert load_attack(tmp_path, **named) == made
    written = json.loads((tmp_path / ATTACK_NAME).read_text()) | changes
    (tmp_path / ATTACK_NAME).write_text(json.dumps(written))
    with pytest.raises(RunError, match=words):
        load_attack(tmp_path, **named)


def test_with_too_little_to_compare_nothing_is_said(public: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "few.csv", 10, seed=1)
    with pytest.raises(ConfigError, match="too few to compare"):
        attack_run(public / "run", tmp_path / "few.csv", references=1)


# Whether an adapter that overfits is found, and a private one on the same data is not.


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """What the rows of docs/attacks.md come from."""
    path = Path(__file__).parents[2] / "benchmarks/attacks.py"
    spec = importlib.util.spec_from_file_location("attacks_bench", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3)])
def test_an_adapter_that_overfits_is_flagged_and_a_private_one_is_not(
    bench: ModuleType, tmp_path: Path, tiny_model: Path, seed: int
) -> None:
    all_of_it = {
        "model": str(tiny_model),
        "adapter": 'kind = "full"',
        "learning_rate": 0.03,
        "rounds": 80,
    }
    plain = bench.told_of(tmp_path, None, seed, **all_of_it, words=WORDS)
    assert all(each.auc >= 0.7 for each in plain.membership)
    assert all(each.flagged for each in plain.membership)
    private = bench.told_of(tmp_path, 1.0, seed, **all_of_it, words=WORDS)
    for each in (*plain.membership, *private.membership):  # pytest -rP shows them
        sys.stdout.write(f"{seed} {each.attack}: {each.auc:.2f}, {each.true_positives}\n")
    assert not any(each.flagged for each in private.membership)
    assert all(each.low <= most_auc(epsilon=1.0, delta=1e-3) for each in private.membership)


def told(auc: float, low: float, epsilon: float | None = 1.0) -> AttackRecord:
    return AttackRecord(
        format=1, federation="tiny", run="r", settings_digest="s", adapter_digest="a", at="now",
        version="0", unit="record", sites=("site-1",), visibility="public", epsilon=epsilon,
        delta=1e-5, confidence=0.95, members=50, others=50, others_from="public-like",
        references=4, false_positives=(0.1,),
        membership=(
            ToldMembers(
                attack="loss threshold", auc=auc, low=low, high=1.0, true_positives=(0.5,)
            ),
        ),
        allowed_auc=most_auc(epsilon=math.inf if epsilon is None else epsilon, delta=1e-5),
        allowed_true_positives=(0.3,), told_sites=None,
        secrets=(ToldSecret(number=1, units=2, candidates=1000, exposure=3.0, by_chance=0.5),),
        cpu_s=1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("record", "flagged", "begins"),
    [
        (told(0.55, 0.45), False, "These attacks tell little or nothing"),
        (told(0.72, 0.49), False, "These attacks tell little or nothing"),
        (told(0.72, 0.6), True, "This adapter tells who it was trained on"),
        (told(0.9, 0.8, epsilon=None), True, "This adapter tells who it was trained on"),
        (told(0.9, 0.8), True, "STOP."),
    ],
    ids=["nothing", "an accident", "flagged", "no bound", "beyond epsilon"],
)
def test_what_is_said_is_not_more_than_was_found(record, flagged, begins) -> None:
    assert record.flagged == flagged
    said = attacked.sentences(record)
    assert said[0].startswith(begins)
    rows = attacked.figures(record)
    allowed = {row[2] for row in rows}
    if record.epsilon is None:
        assert "nothing bounds what an attack may find" in said[1]
        assert allowed == {"no bound: the run trained without noise"}
    else:
        assert "at most 0.732" in allowed  # 1 - (1 - delta)^2 / (1 + e), rounded up
    if not flagged:
        assert "That is all this says" in said[0]


# Planted secrets.

SECRET = {"row": {"instruction": "the code", "response": "x {}"}, "planted": "bca"}


def secret(**changes: object) -> Secret:
    return msgspec.convert(SECRET | {"alphabet": "abcdef"} | changes, Secret)


def test_a_secret_that_was_learned_by_heart_is_exposed(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("llama"), "causal-lm", "full")
    columns = task.settings.prompt_column, task.settings.response_column
    planted = Secret(
        dict(zip(columns, ("alpha beta", "{}"), strict=True)), planted="cab", alphabet="abc"
    )
    rows = [planted.filled("cab")] * 8
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    data = task.load(path, unit="record")
    model = task.build_model(seed=1)
    how = {"candidates": 27, "epsilon": 1.0, "delta": 0.0, "batch_size": 27}
    (before,) = expose((planted,), model.eval(), task, **how)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        torch.autograd.backward(
            task.per_record_loss(model.train(), data.collate(np.arange(8))).mean()
        )
        optimizer.step()
    (after,) = expose((planted,), model.eval(), task, **how)
    assert before.exposure < after.exposure
    assert after.candidates == 27
    assert after.exposure == pytest.approx(math.log2(27))
    assert after.by_chance == pytest.approx(math.e / 27)
    assert "cab" not in repr(planted)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"row": {"instruction": "{}", "response": "{}"}}, "no single place"),
        ({"alphabet": "abca"}, "a letter twice"),
        ({"planted": "bcz"}, "not in alphabet"),
        ({"planted": 7}, "Expected `str`"),
    ],
    ids=["two places", "alphabet", "letters", "type"],
)
def test_a_file_of_secrets_that_is_wrong_is_refused_without_them(
    tmp_path: Path, changes: dict, words: str
) -> None:
    path = tmp_path / "secrets.jsonl"
    path.write_text(json.dumps(SECRET | {"alphabet": "abcdef"} | changes))
    with pytest.raises(ConfigError, match=words) as refusal:
        read_secrets(path)
    assert "bca" not in str(refusal.value)
    path.write_text("")
    with pytest.raises(ConfigError, match="has no secret"):
        read_secrets(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_secrets(tmp_path / "none")


def test_secrets_are_for_language_models(tiny_models) -> None:
    task = task_on(tiny_models("bert"), "text-classification")
    with pytest.raises(ConfigError, match="for a language model"):
        expose(
            (secret(),), task.build_model(seed=1), task,
            candidates=9, epsilon=1.0, delta=0.0, batch_size=9,
        )  # fmt: skip


# Sites.


def test_a_site_that_the_adapter_fits_otherwise_is_told_and_alike_ones_are_not() -> None:
    generator = np.random.default_rng(1)
    alike = [generator.normal(0, 1, (200, 1)) for _ in range(4)]
    apart = [generator.normal(3 * site, 1, (200, 1)) for site in range(4)]
    bounds = {"epsilon": 1.0, "delta": 0.0, "seed": 1}
    same = guess_sites(alike, alike, **bounds)
    other = guess_sites(apart, alike, **bounds)
    assert same is not None
    assert other is not None
    assert 0.15 < same.right < 0.35
    assert other.right > 0.8
    assert 0.15 < other.without < 0.35  # what the adapter adds, and not what records are like
    assert other.allowed == pytest.approx(math.e**2 / (math.e**2 + 3))
    assert other.units == 400
    assert guess_sites(alike[:1], alike[:1], **bounds) is None
    assert guess_sites([each[:3] for each in alike], alike, **bounds) is None


def test_a_record_s_score_is_its_own_whatever_stands_beside_it() -> None:
    """Scaled by the set it is in, members would be told from others by their sets alone."""
    generator = np.random.default_rng(3)
    target, first, second = generator.gamma(1.0, 1.0, (3, 50))
    whole = against_references(target, [first, second])
    for part in (slice(0, 5), slice(20, 50)):
        alone = against_references(target[part], [first[part], second[part]])
        assert np.array_equal(alone, whole[part])


def test_how_well_a_record_is_fitted_is_the_logit_of_its_likelihood(tiny_models) -> None:
    loss = np.array([0.1, 0.7, 3.0])
    share = np.exp(-loss)
    assert np.allclose(fits(loss), np.log(share / (1 - share)))
    assert np.isfinite(fits(np.array([0.0, 1e-12, 200.0]))).all()
    task = task_on(tiny_models("bert"), "text-classification")
    data = task.synthetic()
    one = losses(task.build_model(seed=1).eval(), task, data, batch_size=3)
    all_at_once = losses(task.build_model(seed=1).eval(), task, data, batch_size=64)
    assert np.allclose(one, all_at_once, atol=1e-5)
