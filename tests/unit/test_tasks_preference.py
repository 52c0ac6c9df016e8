"""Preferences: a loss on two answers of one record, beside what the model was before training."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from task_cases import TASKS, randomise, task_on
from tiny_models import CHATML, write_tiny_chat
from transformers import AutoModelForCausalLM

from fmfl_secure.data import DataError
from fmfl_secure.data.preferences import Preference
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.models.adapters import ADAPTERS
from fmfl_secure.models.batches import IGNORED
from fmfl_secure.models.referenced import ReferencedModel
from fmfl_secure.settings.tasks import PreferenceSection
from fmfl_secure.settings.toml_file import convert_config
from fmfl_secure.tasks.adapter_task import InitialAdapter
from fmfl_secure.tasks.prompts import exchange
from fmfl_secure.training.non_private import train_plain
from privacy import AdmissionError
from privacy.mechanism.admission import check_admission

PAIRS = [("ab", "good", "bad"), ("c", "yes", "no, never"), ("def", "x", "yz")]
CHAT = PreferenceSection(chat=True, max_new_tokens=5)
WHOLE = msgspec.structs.replace(CHAT, prompt_column="")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def write(path: Path, *rows: Any) -> Path:
    names = ("prompt", "chosen", "rejected")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=False))) + "\n" for row in rows))
    return path


@pytest.fixture
def task(tiny_models):
    return task_on(tiny_models("gpt2"), "preference")


@pytest.fixture(scope="module")
def chat_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_chat(tmp_path_factory.mktemp("chat") / "base", CHATML)


def texts(task: Any, data: Any) -> list[tuple[str, str, str]]:
    """Of each record what both answers stand behind, and what is learned of each."""
    tokenizer, found = task.base.load_tokenizer(), []
    chosen, rejected = data.collate(np.arange(data.records)).answers(range(data.records))
    for row in range(data.records):
        parts = []
        for side in (chosen, rejected):
            own = side.attention_mask[row] == 1
            ids, learned = side.input_ids[row][own], side.labels[row][own] != IGNORED
            assert (side.labels[row][own][learned] == ids[learned]).all()
            first = int(learned.nonzero().min())
            assert learned[first:].all(), "what is learned is the end of a row"
            parts.append([tokenizer.decode(ids[:first]), tokenizer.decode(ids[first:])])
        assert parts[0][0] == parts[1][0]
        found.append((parts[0][0], parts[0][1], parts[1][1]))
    return found


def losses(task: Any, model: Any, data: Any, records: list[int]) -> torch.Tensor:
    found: torch.Tensor = task.per_record_loss(model, data.collate(np.array(records)))
    return found


def test_only_the_two_answers_are_learned(task, tmp_path: Path) -> None:
    data = task.load(write(tmp_path / "x.jsonl", *PAIRS), unit="record")
    assert texts(task, data) == [(f"{p}\n", f"{c}<|end|>", f"{r}<|end|>") for p, c, r in PAIRS]
    assert data.record_cost.tolist() == [len(p) + 2 + max(len(c), len(r)) for p, c, r in PAIRS]


def by_hand(base: Path, adapted: Any, batch: Any, row: int, beta: float) -> float:
    """Equation 7, token by token, with a second copy of the model for the reference."""

    def likelihood(model: Any, side: Any) -> float:
        own = side.attention_mask[row] == 1
        ids, labels = side.input_ids[row][own], side.labels[row][own]
        with torch.no_grad():
            logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits
        steps = logits[0].log_softmax(dim=-1)
        return sum(float(steps[n - 1, ids[n]]) for n in range(len(ids)) if labels[n] != IGNORED)

    bare = AutoModelForCausalLM.from_pretrained(base).eval()
    chosen, rejected = batch.answers(range(len(batch.records)))
    margin = [likelihood(m, chosen) - likelihood(m, rejected) for m in (adapted, bare)]
    return math.log1p(math.exp(-beta * (margin[0] - margin[1])))


@pytest.mark.parametrize("adapter", ["lora", "vera", "bitfit", "prompt", "prefix"])
def test_the_loss_is_the_paper_s_with_the_base_model_for_reference(
    tiny_models, adapter: str
) -> None:
    base = tiny_models("gpt2")
    task = task_on(base, "preference", adapter)
    model = task.build_model(seed=1).eval()
    randomise(model)
    data = task.synthetic()
    batch = data.collate(np.arange(4))
    expected = [by_hand(base, model.encoder, batch, row, 0.1) for row in range(4)]
    assert task.per_record_loss(model, batch).tolist() == pytest.approx(expected, rel=1e-4)


def test_a_pair_s_loss_and_gradient_are_its_own(task, tmp_path: Path) -> None:
    """Whatever stands beside it in a batch, and whatever the others' answers are."""
    model = task.build_model(seed=1)
    randomise(model)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def own(data: Any, records: list[int]) -> torch.Tensor:
        loss = losses(task, model, data, records)[0]
        gradients = torch.autograd.grad(loss, parameters)
        return torch.cat([loss.reshape(1), *(g.reshape(-1) for g in gradients)])

    data = task.load(write(tmp_path / "x.jsonl", *PAIRS), unit="record")
    others = [PAIRS[0], ("c", "no, never", "yes"), ("def", "qqqqqqq", "x")]
    other = task.load(write(tmp_path / "y.jsonl", *others), unit="record")
    alone = own(data, [0])
    assert alone.abs().max() > 0.01
    for found in (own(data, [0, 1, 2]), own(data, [0, 2]), own(other, [0, 1, 2])):
        torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-5)
    swapped = write(tmp_path / "z.jsonl", (PAIRS[0][0], PAIRS[0][2], PAIRS[0][1]))
    assert not torch.allclose(own(task.load(swapped, unit="record"), [0]), alone, atol=1e-2)


@pytest.mark.parametrize("mixed", ["rejected answers", "references", "half the mean margin"])
def test_the_gate_refuses_a_loss_that_mixes_pairs(task, mixed: str) -> None:
    def loss(model: Any, batch: Any) -> torch.Tensor:
        if mixed == "rejected answers":
            names = ("input_ids", "attention_mask", "labels")
            others = {f"rejected_{n}": getattr(batch, f"rejected_{n}").roll(1, 0) for n in names}
            batch = replace(batch, **others)
        own, reference = task._differences(model, batch)
        if mixed == "references":
            reference = reference.roll(1)
        elif mixed == "half the mean margin":
            own = own - own.mean() / 2
        return -torch.nn.functional.logsigmoid(0.1 * (own - reference))

    data, model = task.synthetic(), task.build_model(seed=1)
    asked = {"collate": data.collate, "records": data.records, "physical_batch_size": 4}
    check_admission(model, loss=task.per_record_loss, **asked)
    with pytest.raises(AdmissionError, match=r"couples the records|removing one unit"):
        check_admission(model, loss=loss, **asked)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 24], ids=["no-room", "room"])
def test_a_reference_is_computed_once_a_record_where_there_is_room(
    tiny_models, monkeypatch: pytest.MonkeyPatch, cache_bytes: int
) -> None:
    task = task_on(tiny_models("llama"), "preference", cache_bytes=cache_bytes, last_layers=1)
    model, data = task.build_model(seed=1).eval(), task.synthetic()
    randomise(model)
    rows: list[int] = []
    reference = ReferencedModel.reference

    def counted(self: Any, batch: Any, **more: Any) -> torch.Tensor:
        rows.append(len(batch.records))
        return reference(self, batch, **more)

    monkeypatch.setattr(ReferencedModel, "reference", counted)
    first = [losses(task, model, data, records) for records in ([0, 1, 2], [2, 3], [0, 3])]
    assert sum(rows) == 2 * (4 if cache_bytes else 7)
    fresh = losses(task, model, task.synthetic(), [0, 1, 2, 3])
    torch.testing.assert_close(first[0], fresh[:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first[2], fresh[[0, 3]], rtol=1e-4, atol=1e-5)


def test_nothing_is_left_of_the_reference_in_the_model(tiny_models) -> None:
    """All layers of VeRA share two matrices, which torch's own swap put back wrongly."""
    task = task_on(tiny_models("llama"), "preference", "vera")
    model = task.build_model(seed=1)
    other = task.build_model(seed=2)
    model.start = other.start
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses(task, model, task.synthetic(), [0, 1])
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert model.encoder.get_parameter(next(iter(other.start())).removeprefix("encoder.")) is not (
        next(iter(other.start().values()))
    )


def test_an_unknown_reference_is_refused(task) -> None:
    model, data = task.build_model(seed=1), task.synthetic()
    model.start = None
    with pytest.raises(ModelError, match="before training is not known"):
        losses(task, model, data, [0])
    model.start = lambda: {"encoder.other": torch.zeros(1)}
    with pytest.raises(ModelError, match="tensors that this model has not"):
        losses(task, model, data, [0])


def test_training_moves_the_model_to_what_was_chosen(task, tmp_path: Path) -> None:
    data = task.load(write(tmp_path / "x.jsonl", *PAIRS), unit="record")
    model = task.build_model(seed=1)
    before = task.evaluate(model, data, batch_size=2)
    assert before["pair_accuracy"] == 0.5, "an untrained model prefers neither"
    assert before["margin"] == pytest.approx(0.0, abs=1e-4)
    assert before["loss"] == pytest.approx(math.log(2), abs=1e-4)
    train_plain(
        model,
        [[np.arange(3)]] * 20,
        loss=task.per_record_loss,
        collate=data.collate,
        optimizer=torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01),
    )
    after = task.evaluate(model, data, batch_size=2)
    assert after["pair_accuracy"] == 1.0
    assert after["margin"] > 0.5
    assert after["loss"] < before["loss"]
    found = task.outcomes(model, data, batch_size=3)
    assert found.preferred.tolist() == [1.0, 1.0, 1.0]
    assert found.losses.mean() == pytest.approx(after["loss"])


def test_a_start_is_the_reference_that_a_run_goes_on_from(tiny_models, tmp_path: Path) -> None:
    """Of a preference or, as is usual, of instructions; later, from what the run kept of it."""
    base = tiny_models("llama")
    for kind in ("causal-lm", "preference"):
        earlier = task_on(base, kind)
        instructed = earlier.build_model(seed=1)
        randomise(instructed)
        earlier.save_adapter(instructed, tmp_path / kind)
        task = replace(
            task_on(base, "preference"), initial=InitialAdapter(tmp_path / kind, "[]", "")
        )
        model, data = task.build_model(seed=2).eval(), task.synthetic()
        assert losses(task, model, data, [*range(8)]).tolist() == pytest.approx([math.log(2)] * 8)
        randomise(model, seed=5)
        expected = losses(task, model, data, [*range(8)])
        fresh = task_on(base, "preference")
        task.save_adapter(model, tmp_path / f"{kind}-then")
        began = replace(fresh, began=model.start())
        for later in (task, began):
            opened = later.open_adapter(tmp_path / f"{kind}-then")
            found = losses(later, opened, later.synthetic(), [*range(8)])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        opened = fresh.open_adapter(tmp_path / f"{kind}-then")
        of_base = losses(fresh, opened, fresh.synthetic(), [*range(8)])
        assert not torch.allclose(of_base, expected, atol=1e-2)
    with pytest.raises(ModelError, match="another task"):
        replace(
            task_on(base, "causal-lm"), initial=InitialAdapter(tmp_path / "preference", "[]", "")
        ).build_model(seed=1)


def test_long_answers_stand_behind_the_same_beginning_of_a_prompt(task) -> None:
    pairs = [
        Preference(exchange("Q" + "p" * 99), "c" * 99, "r"),
        Preference(exchange("ab"), "c", "r" * 99),
    ]
    data = task._pairs(pairs, [np.array([0]), np.array([1])])
    assert data.shortened == 2
    assert data.record_cost.tolist() == [24, 24]
    assert data.lengths.tolist() == [100 + 1 + 99 + 1, 2 + 1 + 99 + 1]
    assert texts(task, data) == [
        ("Q" + "p" * 11 + "\n", "c" * 11, "r<|end|>"),
        ("ab\n", "c<|end|>", "r" * 21),
    ]


def test_three_ways_to_write_a_pair_read_the_same(chat_base: Path, tmp_path: Path) -> None:
    """Texts; messages of prompt and answers; or conversations, with a prompt or not."""
    task = task_on(chat_base, CHAT, max_length=96)
    path = tmp_path / "x.jsonl"
    found = [
        texts(task, task.load(write(path, row), unit="record"))
        for row in (
            ("q", "yes", "no"),
            ([user("q")], [said("yes")], [said("no")]),
            ("q", [user("q"), said(" yes ")], [user("q"), said("no")]),
            ("q", "yes", [said("no")]),
        )
    ]
    whole = task_on(chat_base, WHOLE, max_length=96)
    row = {"chosen": [user("q"), said("yes")], "rejected": [user("q"), said("no")]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    found.append(texts(whole, whole.load(tmp_path / "x.parquet", unit="record")))
    assert found == [found[0]] * 5
    ((before, chosen, rejected),) = found[0]
    assert before.endswith("<|im_start|>assistant\n")
    assert (chosen, rejected) == ("yes<|im_end|>", "no<|im_end|>")
    cells = [json.dumps(cell).replace('"', '""') for cell in ([user("q")], [said("yes")])]
    (tmp_path / "x.csv").write_text(f'prompt,chosen,rejected\n"{cells[0]}","{cells[1]}",no\n')
    assert texts(task, task.load(tmp_path / "x.csv", unit="record")) == found[0]


def test_of_several_turns_the_last_answer_alone_is_learned(chat_base: Path, tmp_path: Path) -> None:
    """What does not fit goes from the beginning, for both answers alike."""
    talk = [{"role": "system", "content": "s"}, user("one"), said("two"), user("three")]
    path = write(tmp_path / "x.jsonl", (talk, [*talk, said("yes")], [*talk, said("n" * 20)]))
    rows = []
    for length in (120, 80):
        task = task_on(chat_base, CHAT, max_length=length)
        data = task.load(path, unit="record")
        assert data.shortened == (length == 80)
        rows += texts(task, data)
    assert "one" in rows[0][0]
    assert "two" in rows[0][0]
    assert rows[1][0] == rows[0][0].replace(
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\ntwo<|im_end|>\n", ""
    )
    assert [row[1:] for row in rows] == [("yes<|im_end|>", "n" * 20 + "<|im_end|>")] * 2


TWO = [user("q"), said("a")]


@pytest.mark.parametrize(
    ("section", "row", "told"),
    [
        (CHAT, ("q", "same", " same "), "same answer twice"),
        (CHAT, ("q", [user("p"), said("a")], "b"), "something else than its prompt"),
        (WHOLE, ("", TWO, [user("p"), said("b")]), "answers to different questions"),
        (WHOLE, ("", [said("a")], [said("b")]), "does not end with the user"),
        (CHAT, (TWO, "c", "d"), "does not end with the user"),
        (CHAT, ("q", [user("a")], "b"), "not the assistant's"),
        (CHAT, ("q", [], "b"), "lacks an answer"),
        (CHAT, ("q", [{"role": "critic", "content": "a"}], "b"), "role that is none of"),
        (CHAT, ("q", "", "b"), "is empty"),
        (CHAT, ("q", None, "b"), "is null"),
        (CHAT, ("q", 7, "b"), "number and no text"),
        (TASKS["preference"], ("q", [said("a")], "b"), "holds a list of messages"),
        (TASKS["preference"], ("q", json.dumps([said("a")]), "b"), "holds a list of messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_that_is_no_pair_is_told_why(
    chat_base: Path, tmp_path: Path, section: PreferenceSection, row: Any, told: str
) -> None:
    task = task_on(chat_base, section, max_length=96)
    good = ("q", "a", "b") if section is not WHOLE else ("", TWO, [user("q"), said("b")])
    path = write(tmp_path / "x.jsonl", good, row)
    with pytest.raises(DataError, match=told):
        task.load(path, unit="record")
    data = task.load(path, unit="record", on_bad_row="skip")
    assert data.records == data.left_out.count == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"response_column": "r"}, {"input_column": "i"}, {"messages_column": "m", "chat": True},
        {"responses": ["a", "b"]}, {"prompt_column": ""}, {"beta": 0},
        {"chosen_column": "rejected"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_of_other_tasks_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        convert_config({"kind": "preference", **changed}, PreferenceSection, source="task")


def test_it_answers_as_a_language_model_does(chat_base: Path, tmp_path: Path) -> None:
    """Of a file with prompts alone, or with both answers beside them, which it does not read."""
    path, found = tmp_path / "x.jsonl", []
    for section, row in (
        (CHAT, ("q",)),
        (CHAT, ([user("q")], "a", "b")),
        (WHOLE, ("", [user("q"), said("a")])),
    ):
        task = task_on(chat_base, section, max_length=96)
        model = task.build_model(seed=1)
        randomise(model)
        inputs = task.load_inputs(write(path, row))
        found.append(task.predict(model, inputs, batch_size=2))
        assert task.answer(model, (("user", "q"),)) == found[0][0]["response"]
    assert found == [found[0]] * 3
    with pytest.raises(DataError, match="does not end with the user"):
        task_on(chat_base, CHAT, max_length=96).load_inputs(write(path, (TWO,)))


@pytest.mark.parametrize("adapter", [name for name in ADAPTERS.names if name != "head"])
def test_every_adapter_begins_at_its_reference(tiny_models, adapter: str) -> None:
    """But for fresh virtual tokens, which no model is without: their reference is below them."""
    task = task_on(tiny_models("qwen2"), "preference", adapter)
    found = losses(task, task.build_model(seed=1).eval(), task.synthetic(), [0, 1, 2])
    same = found.tolist() == pytest.approx([math.log(2)] * 3, abs=1e-4)
    assert same == (adapter not in {"prompt", "prefix", "p-tuning"})
