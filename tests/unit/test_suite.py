"""Benchmarks that a user brings: files in their common forms, and scores as the field has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from task_cases import TASKS, randomise, task_on

from fmfl_secure.data import DataError
from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks.causal_lm import CausalLM
from fmfl_secure.training.finished_run import FinishedRun
from fmfl_secure.training.suite import Suite, evaluate_suite, load_suite
from fmfl_secure.training.suite import run as suite_run
from fmfl_secure.training.suite.plan import Benchmark
from fmfl_secure.training.suite.rows import read_questions
from fmfl_secure.training.suite.scores import calibration_error, exact_match, rouge_l

CHOICE = {
    "name": "x", "kind": "multiple-choice", "data": "x", "question": "{question}",
    "choices_column": "choices", "answer_column": "answer",
}  # fmt: skip


def benchmark(**more: Any) -> Benchmark:
    return msgspec.convert({**CHOICE, **more}, Benchmark)


@pytest.mark.parametrize(
    ("answer", "truth", "score"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 1.0),
        # The pairs of Lin 2004, section 3.
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("", "a", 0.0),
        ("B a b", "a c b", 2 / 3),
    ],
)
def test_rouge_l_is_the_longest_common_subsequence(answer: str, truth: str, score: float) -> None:
    assert rouge_l(answer, truth) == pytest.approx(score)


def test_an_exact_match_looks_past_case_blanks_and_a_full_stop() -> None:
    assert exact_match(" Positive.\n", "positive") == 1.0
    assert exact_match("not positive", "positive") == 0.0


def test_calibration_is_the_gap_between_being_sure_and_being_right() -> None:
    sure = [np.array([0.95, 0.05])] * 10
    assert calibration_error(sure, [0] * 10) == pytest.approx(0.05)
    assert calibration_error(sure, [1] * 10) == pytest.approx(0.95)
    assert calibration_error([*sure, np.array([0.4, 0.3, 0.3])], [0] * 10 + [1]) == pytest.approx(
        (10 * 0.05 + 0.4) / 11
    )


@pytest.mark.parametrize(
    ("row", "more"),
    [
        ({"question": "q", "choices": ["a", "b"], "answer": 1}, {}),  # MMLU
        (
            {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answer": "B"},
            {},
        ),
        ({"question": "q", "choices": ["a", "b"], "answer": "b"}, {}),
        (
            {"ctx": "q", "endings": ["a", "b"], "label": "1"},  # HellaSwag
            {"question": "{ctx}", "choices_column": "endings", "answer_column": "label"},
        ),
        (
            {"question": "q", "answer": "b"},
            {"choices_column": "", "choices": ["a", "b"]},
        ),
    ],
    ids=["mmlu", "arc", "text", "hellaswag", "fixed"],
)
@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_rows_of_public_benchmarks_are_read(
    tmp_path: Path, row: dict[str, Any], more: dict[str, Any], form: str
) -> None:
    path = tmp_path / f"x.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row if form == "jsonl" else [row]))
    (found,) = read_questions(path, benchmark(**more))
    assert found.asked == "q"
    assert found.choices == ("a", "b")
    assert found.right == 1


@pytest.mark.parametrize(
    ("written", "said", "hint"),
    [
        ("limit = -1", "benchmarks[1].limit = -1 has to be at least 0", "at least 0"),
        ("shots = []", "benchmarks[1].shots = [] has to have at least 1 value", "leave"),
        ('kinds = "x"', '"kinds" is no setting of benchmarks[1]', 'mean "kind"?'),
        ('examples = "x.csv"\nshots = [2]', "examples and shots are for every kind but", ""),
        (f"limit = {'9' * 5000}", "too many digits", "stands once"),
        ('data = "a\\u0000.csv"', "benchmarks[1].data has a NUL character", "anew"),
    ],
)
def test_a_suite_is_refused_as_settings_are(
    tmp_path: Path, written: str, said: str, hint: str
) -> None:
    path = tmp_path / "suite.toml"
    data = "" if written.startswith("data") else 'data = "x.csv"\n'
    path.write_text(f'[[benchmarks]]\nname = "own"\nkind = "task"\n{data}{written}\n')
    with pytest.raises(ConfigError) as refused:
        load_suite(path)
    assert said in str(refused.value)
    assert hint in refused.value.hint
    assert "$" not in str(refused.value)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "choices": ["a", "b"], "answer": "1" * 5000},
        {"question": "q", "choices": "[" * 100_000, "answer": 0},
        {"question": "q", "choices": ["a", "b"], "answer": "C"},
        {"question": "q", "choices": ["a", "b"], "answer": 2},
        {"question": "q", "choices": ["a", "a"], "answer": 0},
        {"question": "q", "choices": ["a"], "answer": 0},
        {"question": " ", "choices": ["a", "b"], "answer": 0},
        {"question": "q", "choices": None, "answer": 0},
    ],
)
def test_a_row_without_a_right_answer_is_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    good = {"question": "q", "choices": ["a", "b"], "answer": 0}
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(row)}\n")
    with pytest.raises(DataError, match="row 2"):
        read_questions(tmp_path / "x.jsonl", benchmark())
    assert len(read_questions(tmp_path / "x.jsonl", benchmark(), limit=1)) == 1
    with pytest.raises(DataError, match="no column 'other'"):
        read_questions(tmp_path / "x.jsonl", benchmark(question="{other}"))


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "task"},
        {"kind": "answers"},
        {"choices": ["a", "b"]},
        {"shots": [0, 2]},
        {"examples": "y"},
        {"question": ""},
        {"metric": "f1"},
    ],
)
def test_a_suite_that_contradicts_itself_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    entry = {**CHOICE, **more}
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    (tmp_path / "suite.toml").write_text("[[benchmarks]]\n" + "\n".join(lines))
    with pytest.raises(ConfigError):
        load_suite(tmp_path / "suite.toml")


@pytest.fixture
def finished(
    tiny_models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[CausalLM, Any, Path]:
    """A run of a small decoder whose adapter was moved, as far as a suite looks at one."""
    task: Any = task_on(tiny_models("llama"), "causal-lm")
    model = task.build_model(seed=1)
    randomise(model, scale=0.5)
    task.save_adapter(model, tmp_path / "adapter")
    training = type("Training", (), {"physical_batch_size": 3})()
    config: Any = type("Config", (), {"training": training})()
    monkeypatch.setattr(FinishedRun, "checked", lambda _, opened: opened)  # no run released it
    opened = FinishedRun(tmp_path, config, task)
    monkeypatch.setattr(suite_run, "open_run", lambda *_, **__: opened)
    return task, model.eval(), tmp_path


def test_the_likeliest_choice_is_the_librarys_own(finished: tuple[CausalLM, Any, Path]) -> None:
    task, model, folder = finished
    rows = [
        {"question": f"q{n}", "choices": ["ab", "xyz w", "c" * (n + 1)], "answer": n % 3}
        for n in range(7)
    ]
    (folder / "x.json").write_text(json.dumps(rows))
    suite = Suite(benchmarks=(benchmark(data="x.json", examples="x.json", shots=[0, 2]),))
    found = list(evaluate_suite(folder, suite, relative_to=folder))
    assert [(row.arm, row.shots) for row in found] == [
        ("base model", 0), ("base model", 2), ("adapter", 0), ("adapter", 2),
    ]  # fmt: skip
    tokenizer = task.base.load_tokenizer()
    # Of what is generated by transformers' own loss, with its sum over the response.
    for row, arm in ((found[0], task.bare_model()), (found[2], model)):
        right = []
        for each in rows:
            scores = []
            for choice in each["choices"]:
                prompt = tokenizer(f"{each['question']}\n")["input_ids"]
                answer = [*tokenizer(choice)["input_ids"], tokenizer.eos_token_id]
                ids = torch.tensor([prompt + answer])
                labels = torch.tensor([[-100] * len(prompt) + answer])
                with torch.no_grad():
                    loss = arm.encoder(input_ids=ids, labels=labels).loss
                scores.append(-float(loss) * len(answer))
            right.append(int(np.argmax(scores)) == each["answer"])
        assert row.metrics["accuracy"] == pytest.approx(np.mean(right))
    assert found[0].metrics != found[2].metrics


def test_answers_are_generated_and_compared(finished: tuple[CausalLM, Any, Path]) -> None:
    task, model, folder = finished
    said = [each["response"] for each in task.predict(
        model, task.prepare([(("user", "ab"),), (("user", "xyz"),)]), batch_size=2
    )]  # fmt: skip
    rows = [{"q": "ab", "a": said[0] or "-"}, {"q": "xyz", "a": "no such answer"}]
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = msgspec.convert(
        {
            "name": "a",
            "kind": "answers",
            "data": "x.jsonl",
            "question": "{q}",
            "answer_column": "a",
        },
        Benchmark,
    )
    found = list(evaluate_suite(folder, Suite(benchmarks=(entry,)), relative_to=folder))
    assert found[1].arm == "adapter"
    assert found[1].metrics["exact_match"] == 0.5
    assert found[1].errors["exact_match"] == pytest.approx(0.5)


def test_a_classifier_is_not_asked_questions(
    finished: tuple[CausalLM, Any, Path], tiny_models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finished[2]
    other = FinishedRun(
        folder, FederationConfig, task_on(tiny_models("bert"), TASKS["text-classification"])
    )
    monkeypatch.setattr(suite_run, "open_run", lambda *_, **__: other)
    with pytest.raises(ConfigError, match="no language model to ask"):
        list(evaluate_suite(folder, Suite(benchmarks=(benchmark(),)), relative_to=folder))


def test_the_runs_own_task_is_scored_beside_the_most_frequent_label(
    tiny_models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Any = task_on(tiny_models("bert"), "text-classification")
    model = task.build_model(seed=1)
    randomise(model, scale=0.5)
    task.save_adapter(model, tmp_path / "adapter")
    training = type("Training", (), {"physical_batch_size": 3})()
    config: Any = type("Config", (), {"training": training})()
    monkeypatch.setattr(FinishedRun, "checked", lambda _, opened: opened)  # no run released it
    monkeypatch.setattr(suite_run, "open_run", lambda *_, **__: FinishedRun(tmp_path, config, task))
    rows = [("alpha", "no"), ("beta xi", "no"), ("gamma", "yes"), ("xi", "no")]
    (tmp_path / "x.csv").write_text("text,label\n" + "".join(f"{t},{k}\n" for t, k in rows))
    entry = Benchmark(name="own", kind="task", data="x.csv")
    frequent, own = evaluate_suite(tmp_path, Suite(benchmarks=(entry,)), relative_to=tmp_path)
    assert frequent.metrics == {"accuracy": 0.75}
    data = task.load(tmp_path / "x.csv", unit="record")
    expected = task.evaluate(model.eval(), data, batch_size=3)
    assert own.metrics == pytest.approx(
        {**expected, "calibration_error": own.metrics["calibration_error"]}, rel=1e-5
    )
    assert 0.0 <= own.metrics["calibration_error"] <= 1.0
