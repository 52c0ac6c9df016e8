"""Causal language modelling: a loss on the response alone, perplexity, and generation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import TASKS, randomise, task_on

from fmfl_secure.data import DataError
from fmfl_secure.tasks.texts import IGNORED

END = 256  # of the byte tokenizer


def write(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("prompt,response\n" + "".join(f"{p},{r}\n" for p, r in rows), "utf-8")
    return path


@pytest.fixture
def task(tiny_models):
    return task_on(tiny_models("gpt2"), "causal-lm")


def test_only_the_response_is_learned(task, tmp_path: Path) -> None:
    data = task.load(write(tmp_path / "x.csv", ("ab", "xyz"), ("abcdefg", "q")), unit="record")
    batch = data.collate(np.array([0, 1]))
    lengths = batch.attention_mask.sum(dim=1).tolist()
    assert lengths == [2 + 1 + 3 + 1, 7 + 1 + 1 + 1]  # template's line break, end of text
    learned = [row[row != IGNORED].tolist() for row in batch.labels]
    tokenizer = task.base.load_tokenizer()
    assert [tokenizer.decode(ids[:-1]) for ids in learned] == ["xyz", "q"]
    assert all(ids[-1] == END for ids in learned)
    for row, length, ids in zip(batch.input_ids, lengths, learned, strict=True):
        assert row[length - len(ids) : length].tolist() == ids


def test_a_long_record_keeps_its_response_and_loses_the_prompts_beginning(task) -> None:
    data = task._prepare(["p" * 99 + "Z", "a"], ["rs", "r" * 99], [np.array([0]), np.array([1])])
    assert data.record_cost.tolist() == [24, 24]
    batch = data.collate(np.array([0, 1]))
    tokenizer = task.base.load_tokenizer()
    assert tokenizer.decode(batch.input_ids[0].tolist()) == "p" * 19 + "Z\nrs<|end|>"
    assert int((batch.labels[1] != IGNORED).sum()) == 23, "one token of the prompt is left"


def test_the_loss_is_what_the_model_library_computes(task) -> None:
    """Per sequence, on the response, by transformers' own shift."""
    model = task.build_model(seed=1).eval()
    randomise(model)
    data = task.synthetic()
    everyone = np.arange(data.records)
    with torch.no_grad():
        together = task.per_record_loss(model, data.collate(everyone))
        for record in everyone:
            batch = data.collate(np.array([record]))
            reference = model.encoder(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
            ).loss
            assert together[record].item() == pytest.approx(reference.item(), rel=1e-4)
    assert together.std() > 1e-3


def test_perplexity_is_over_all_tokens_and_accuracy_of_the_next(task, tmp_path: Path) -> None:
    data = task.load(write(tmp_path / "x.csv", ("ab", "xyz"), ("c", "q")), unit="record")

    class Constant(torch.nn.Module):
        """Says token 87 ('x') with twice the odds of any other."""

        def forward(self, batch, *, last_positions: int) -> torch.Tensor:
            logits = torch.zeros(*batch.input_ids.shape, 265)
            logits[..., x] = math.log(2)
            return logits[:, -last_positions:]

    x = task.base.load_tokenizer()("x")["input_ids"][0]
    metrics = task.evaluate(Constant(), data, batch_size=2)
    assert list(metrics) == ["token_accuracy", "perplexity", "loss"]
    assert metrics["token_accuracy"] == pytest.approx(1 / 6)  # x y z end q end
    nll = 6 * math.log(266) - math.log(2)
    assert metrics["perplexity"] == pytest.approx(math.exp(nll / 6), rel=1e-5)
    first, second = (4 * math.log(266) - math.log(2)) / 4, math.log(266)
    assert metrics["loss"] == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("adapter", ["lora", "prompt", "prefix"])
def test_generation_is_greedy_and_the_same_alone_or_in_a_batch(tiny_models, adapter: str) -> None:
    task = task_on(tiny_models("llama"), "causal-lm", adapter, cache_bytes=0)
    model = task.build_model(seed=1).eval()
    randomise(model, scale=0.3)
    prompts = ["alpha", "beta gamma delta"]
    inputs = task._prepare(prompts, None, [np.array([0]), np.array([1])])
    together = task.predict(model, inputs, batch_size=2)
    assert together == task.predict(model, inputs, batch_size=1)
    row = inputs.collate(np.array([0])).input_ids
    expected: list[int] = []
    with torch.no_grad():
        for _ in range(TASKS["causal-lm"].max_new_tokens):
            ids = torch.cat([row, torch.tensor([expected], dtype=torch.int64)], dim=1)
            output = model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
            expected.append(int(output.logits[0, -1].argmax()))
            if expected[-1] == END:
                break
    text = task.base.load_tokenizer().decode(expected, skip_special_tokens=True).strip()
    assert together[0] == {"response": text}


def test_rows_without_a_response_are_bad_rows(task, tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ("ab", "xyz"), ("c", ""))
    with pytest.raises(DataError, match="row 2"):
        task.load(path, unit="record")
    assert task.load(path, unit="record", on_bad_row="skip").records == 1
    assert task.load_inputs(path).records == 2
