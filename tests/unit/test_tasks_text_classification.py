"""Text classification: losses of one record each, exact metrics, and data of any length."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support import write_rows
from test_models_adapters import make_task, randomise
from transformers import BatchEncoding

from fmfl_secure.data import DataError
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.settings.toml_file import convert_config
from fmfl_secure.tasks import TaskData, TextClassification
from privacy.mechanism.admission import check_admission


def write_csv(path: Path, *rows: tuple[str, str]) -> Path:
    path.write_text("text,label\n" + "".join(f"{t},{label}\n" for t, label in rows), "utf-8")
    return path


@pytest.mark.parametrize("kind", ["ffa-lora", "lora", "head"])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_the_admission_gate_lets_every_kind_of_adapter_pass(
    tiny_model: Path, kind: str, cache_bytes: int
) -> None:
    task = make_task(tiny_model, kind, last_layers=1, cache_bytes=cache_bytes)
    model = task.build_model(seed=1)
    data = task.synthetic()
    check_admission(
        model,
        loss=task.per_record_loss,
        collate=data.collate,
        records=data.records,
        physical_batch_size=8,
    )


def test_a_loss_is_that_of_one_record_alone(tiny_model: Path) -> None:
    task = make_task(tiny_model)
    model = task.build_model(seed=1).eval()
    randomise(model)
    data = task.synthetic()
    with torch.no_grad():
        together = task.per_record_loss(model, data.collate(np.arange(data.records)))
        assert together.shape == (data.records,)
        for record in range(data.records):
            for others in ([], [0, 7], [3]):
                batch = data.collate(np.array([record, *others], dtype=np.int64))
                alone = task.per_record_loss(model, batch)[0]
                assert alone.item() == pytest.approx(together[record].item(), abs=1e-5)
    assert together.std() > 1e-3


def test_a_label_weighs_in_the_loss_what_is_declared_and_in_no_figure(tiny_model: Path) -> None:
    """Per record, so that clipping bounds it as before, and the gate lets it pass."""
    plain = make_task(tiny_model, labels=("a", "b"))
    weights = msgspec.structs.replace(plain.settings, label_weights=(0.5, 4.0))
    weighted = replace(plain, settings=weights)
    model = plain.build_model(seed=1).eval()
    randomise(model)
    data = plain.synthetic()
    batch = data.collate(np.arange(data.records))
    with torch.no_grad():
        before, after = plain.per_record_loss(model, batch), weighted.per_record_loss(model, batch)
    factor = torch.tensor([0.5, 4.0])[torch.from_numpy(data.labels)]
    assert torch.allclose(after, before * factor)
    assert weighted.evaluate(model, data, batch_size=8) == plain.evaluate(model, data, batch_size=8)
    own, others = (each.outcomes(model, data, batch_size=8).losses for each in (weighted, plain))
    assert (own == others).all()
    check_admission(
        weighted.build_model(seed=1),
        loss=weighted.per_record_loss,
        collate=data.collate,
        records=data.records,
        physical_batch_size=8,
    )


@pytest.mark.parametrize(
    ("weights", "why"),
    [([1.0], "1 numbers, expected one for each of the 2"), ([1.0, 0.0], "above 0")],
    ids=["too-few", "zero"],
)
def test_weights_that_are_none_are_refused(weights: list[float], why: str) -> None:
    text = {"kind": "text-classification", "text_columns": ["t"], "label_column": "l"}
    section = {**text, "labels": ["a", "b"], "label_weights": weights}
    with pytest.raises(ConfigError, match=why):
        convert_config(section, TextClassificationSection, source="task")


def test_a_loss_is_the_cross_entropy(tiny_model: Path) -> None:
    task = make_task(tiny_model, labels=("a", "b", "c"))
    model = task.build_model(seed=1)
    data = task.synthetic()
    losses = task.per_record_loss(model, data.collate(np.arange(data.records)))
    assert losses.tolist() == pytest.approx([math.log(3)] * data.records)  # the head is zero


class Lookup(torch.nn.Module):
    """Answers with logits written down for each record."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, batch) -> torch.Tensor:
        return self.logits[batch.records]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_metrics_are_those_worked_out_by_hand(
    tiny_model: Path, tmp_path: Path, batch_size: int
) -> None:
    task = make_task(tiny_model, labels=("a", "b", "c", "never"))
    path = write_csv(
        tmp_path / "x.csv",
        ("alpha beta gamma delta", "a"),  # -> a
        ("alpha", "a"),  # -> b
        ("beta beta", "a"),  # -> a
        ("beta gamma nu", "b"),  # -> b
        ("rho", "b"),  # -> c
        ("xi xi xi xi xi xi", "c"),  # -> never
    )
    data = task.load(path, unit="record")
    answers = [0, 1, 0, 1, 2, 3]
    logits = [[4.0 if label == answer else 0.0 for label in range(4)] for answer in answers]
    metrics = task.evaluate(Lookup(logits), data, batch_size=batch_size)
    assert list(metrics) == ["accuracy", "macro_f1", "loss"]
    assert metrics["accuracy"] == pytest.approx(3 / 6)
    # a: precision 2/2, recall 2/3, F1 4/5.  b: 1/2 and 1/2, F1 1/2.  c: nothing right, F1 0.
    # The label that does not occur counts for nothing.
    assert metrics["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)
    total = math.exp(4) + 3
    right, wrong = math.log(total) - 4, math.log(total)
    assert metrics["loss"] == pytest.approx((3 * right + 3 * wrong) / 6, rel=1e-5)


def test_evaluation_turns_training_off_and_leaves_no_gradients(tiny_model: Path) -> None:
    task = make_task(tiny_model)
    model = task.build_model(seed=1).train()
    task.evaluate(model, task.synthetic(), batch_size=3)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("max_length", [2, 16, 64])
def test_synthetic_records_reach_from_one_word_to_the_limit(
    tiny_model: Path, max_length: int
) -> None:
    task = make_task(tiny_model, max_length=max_length)
    data = task.synthetic()
    assert data.records == 8
    cost = data.record_cost.tolist()
    assert cost[-1] == max_length, "the longest is cut"
    assert min(cost) <= 3
    assert max(cost) == max_length
    assert set(data.labels.tolist()) == {0, 1}
    assert sorted(int(i) for unit in data.units for i in unit) == list(range(8))
    again = task.synthetic()
    everyone = np.arange(8)
    assert torch.equal(data.collate(everyone).input_ids, again.collate(everyone).input_ids)


def test_a_batch_pads_masks_and_knows_its_records(tiny_model: Path, tmp_path: Path) -> None:
    task = make_task(tiny_model)
    data = task.load(
        write_csv(tmp_path / "x.csv", ("alpha beta gamma", "yes"), ("rho", "no")), unit="record"
    )
    batch = data.collate(np.array([1, 0]))
    assert batch.input_ids.tolist() == [[2, 19, 3, 0, 0], [2, 4, 5, 6, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.labels.tolist() == [0, 1]
    assert batch.records == [1, 0]
    assert data.record_cost.tolist() == [5, 3]


def test_units_are_records_or_the_values_of_a_column(tiny_model: Path, tmp_path: Path) -> None:
    task = make_task(tiny_model)
    path = tmp_path / "x.csv"
    path.write_text("text,label,who\nalpha,no,p\nbeta,yes,q\ngamma,no,p\n")
    assert [u.tolist() for u in task.load(path, unit="record").units] == [[0], [1], [2]]
    assert sorted(u.tolist() for u in task.load(path, unit="who").units) == [[0, 2], [1]]


def test_the_data_have_no_useful_repr(tiny_model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "x.csv", 5, seed=1)
    data = make_task(tiny_model).load(tmp_path / "x.csv", unit="record")
    assert isinstance(data, TaskData)
    assert repr(data) == "TaskData(<private>)"


def test_texts_that_look_empty_are_records_like_others(tiny_model: Path, tmp_path: Path) -> None:
    """Something can be seen, so the reader lets them pass; the tokenizer may see nothing."""
    task = make_task(tiny_model)
    texts = ["\u0301", "\u2063?", "\U0001f600", "?", "alpha"]
    data = task.load(write_csv(tmp_path / "x.csv", *((t, "no") for t in texts)), unit="record")
    assert data.records == len(texts)
    model = task.build_model(seed=1).eval()
    randomise(model)
    with torch.no_grad():
        losses = task.per_record_loss(model, data.collate(np.arange(data.records)))
    assert torch.isfinite(losses).all()


def test_a_text_of_no_tokens_at_all_is_a_record_like_others(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = make_task(tiny_model, last_layers=1)
    tokenizer = task.base.load_tokenizer()

    class Bare:
        all_special_tokens = all_special_ids = ()
        unk_token_id = None
        pad_token_id = tokenizer.pad_token_id

        def __call__(self, texts, **_):
            return BatchEncoding({"input_ids": [[] if t == "" else [5, 6] for t in texts]})

    model = task.build_model(seed=1)
    monkeypatch.setattr(type(task.base), "load_tokenizer", lambda _: Bare())
    units = [np.array([0]), np.array([1])]
    data = task._prepare(["", "x"], np.array([0, 1]), units)
    randomise(model)
    for records in ([0], [0, 1], [0]):
        losses = task.per_record_loss(model, data.collate(np.array(records)))
        assert torch.isfinite(losses).all()
    assert data.record_cost.tolist() == [1, 2]


def test_unusable_rows_stop_or_are_skipped(tiny_model: Path, tmp_path: Path) -> None:
    task = make_task(tiny_model)
    path = write_csv(tmp_path / "x.csv", ("alpha", "no"), ("beta", "perhaps"), ("rho", "yes"))
    with pytest.raises(DataError, match="row 2") as refusal:
        task.load(path, unit="record")
    assert refusal.value.code == "failed"
    assert "perhaps" not in str(refusal.value)
    assert task.load(path, unit="record", on_bad_row="skip").records == 2


def test_the_adapter_of_another_task_is_not_saved(tiny_model: Path, tmp_path: Path) -> None:
    task: TextClassification = make_task(tiny_model)
    with pytest.raises(ModelError, match="another task"):
        task.save_adapter(torch.nn.Linear(2, 2), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
