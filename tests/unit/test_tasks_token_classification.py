"""Token classification: words and tags, entities as CoNLL counts them, losses of one record."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import randomise, task_on

from fmfl_secure.data import DataError
from fmfl_secure.models.batches import IGNORED
from fmfl_secure.tasks.entities import entity_scores, find_entities

GOOD = [
    {"tokens": ["alpha", "beta", "zeta"], "tags": ["B-NAME", "I-NAME", "O"]},
    {"tokens": ["qwerty", "nu"], "tags": ["B-DATE", "O"]},
]


def write(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ([], set()),
        (["O", "O"], set()),
        (["B-X", "I-X", "O", "B-Y"], {("X", 0, 2), ("Y", 3, 4)}),
        (["B-X", "B-X"], {("X", 0, 1), ("X", 1, 2)}),
        (["B-X", "I-Y", "I-Y"], {("X", 0, 1), ("Y", 1, 3)}),  # an I of another type begins one
        (["I-X", "I-X", "O"], {("X", 0, 2)}),
        (["B-X-RAY", "I-X-RAY"], {("X-RAY", 0, 2)}),
    ],
)
def test_entities_are_those_of_conll(tags: list[str], entities: set) -> None:
    assert find_entities(tags) == entities


def test_an_entity_counts_only_whole_and_of_its_type() -> None:
    truth = [["B-X", "I-X", "O", "B-Y"], ["O", "B-X"]]
    guess = [["B-X", "O", "O", "B-Y"], ["B-Y", "B-X"]]
    # Found: (X,0,1) wrong, Y right, Y wrong, X right: 2 of 4 claimed, 2 of 3 wanted.
    scores = entity_scores(truth, guess)
    assert scores["entity_precision"] == pytest.approx(2 / 4)
    assert scores["entity_recall"] == pytest.approx(2 / 3)
    assert scores["entity_f1"] == pytest.approx(4 / 7)
    assert entity_scores([["O"]], [["O"]])["entity_f1"] == 1.0


def test_a_word_is_judged_by_its_first_token(tiny_models, tmp_path: Path) -> None:
    for model_type in ("bert", "gpt2"):
        task = task_on(tiny_models(model_type), "token-classification")
        data = task.load(write(tmp_path / "x.jsonl", GOOD), unit="record")
        batch = data.collate(np.array([1, 0]))
        labels = [row[row != IGNORED].tolist() for row in batch.labels]
        assert labels == [[3, 0], [1, 2, 0]]  # O, B-NAME, I-NAME, B-DATE, I-DATE
        assert batch.labels.shape == batch.input_ids.shape
        assert [len(words) for words in data.words] == [3, 2]
        # "qwerty" is several tokens in both vocabularies, and "nu" begins after the last of them.
        first, second = (batch.labels[0] != IGNORED).nonzero().flatten().tolist()
        # A byte tokenizer has the space as a token of its own, which belongs to no word.
        assert second - first == {"bert": 6, "gpt2": 7}[model_type]


def test_a_word_that_the_tokenizer_drops_has_no_tag_and_moves_no_other(
    tiny_models, tmp_path: Path
) -> None:
    from fmfl_secure.tasks.token_classification import _first_tokens

    spans = [(0, 0), (0, 5), (8, 9), (9, 10), (0, 0)]  # "alpha ? zz": nothing is left of "?"
    assert _first_tokens(["alpha", "?", "zz"], spans).tolist() == [1, -1, 2]
    spans = [(0, 5), (5, 7), (7, 10)]  # " ?" and " zz" with the space as their own
    assert _first_tokens(["alpha", "?", "zz"], spans).tolist() == [0, 1, 2]


def test_a_loss_is_the_mean_over_own_words_whatever_stands_beside(tiny_models) -> None:
    task = task_on(tiny_models("bert"), "token-classification")
    model = task.build_model(seed=1).eval()
    data = task.synthetic()
    everyone = np.arange(data.records)
    with torch.no_grad():
        start = task.per_record_loss(model, data.collate(everyone))
        assert start.tolist() == pytest.approx([math.log(5)] * data.records)  # the head is zero
        randomise(model)
        together = task.per_record_loss(model, data.collate(everyone))
        for record in (0, 4, 7):
            alone = task.per_record_loss(model, data.collate(np.array([record, 6])))[0]
            assert alone.item() == pytest.approx(together[record].item(), abs=1e-5)


def test_words_beyond_the_limit_count_as_missed(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("bert"), "token-classification", max_length=4)
    row = {"tokens": ["alpha", "beta", "zeta", "eta"], "tags": ["O", "O", "B-NAME", "B-DATE"]}
    data = task.load(write(tmp_path / "x.jsonl", [row]), unit="record")
    answers = {0: 0, 1: 0}  # the two words that fit

    class Answer(torch.nn.Module):
        def forward(self, batch) -> torch.Tensor:
            logits = torch.zeros(*batch.input_ids.shape, 5)
            for word, tag in answers.items():
                logits[0, 1 + word, tag] = 9.0
            return logits

    metrics = task.evaluate(Answer(), data, batch_size=1)
    assert next(iter(metrics)) == "entity_f1"
    assert metrics["entity_f1"] == 0.0
    assert metrics["accuracy"] == pytest.approx(2 / 4)
    assert task.predict(Answer(), data, batch_size=1) == [{"tags": ["O"] * 4}]


@pytest.mark.parametrize(
    "bad",
    [
        {"tokens": ["a", "b"], "tags": ["O"]},
        {"tokens": [], "tags": []},
        {"tokens": ["a", " "], "tags": ["O", "O"]},
        {"tokens": ["a"], "tags": ["B-PLACE"]},
        {"tokens": "a", "tags": ["O"]},
        {"tokens": ["a"]},
        {"tokens": [1], "tags": ["O"]},
    ],
)
def test_a_bad_row_is_named_and_not_quoted_or_skipped(
    tiny_models, tmp_path: Path, bad: dict
) -> None:
    task = task_on(tiny_models("bert"), "token-classification")
    path = write(tmp_path / "x.jsonl", [GOOD[0], bad, GOOD[1]])
    with pytest.raises(DataError, match="row 2") as refusal:
        task.load(path, unit="record")
    assert refusal.value.code == "failed"
    assert "PLACE" not in str(refusal.value)
    assert task.load(path, unit="record", on_bad_row="skip").records == 2
