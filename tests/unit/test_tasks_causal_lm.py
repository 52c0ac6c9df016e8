"""Causal language modelling: a loss on the response alone, perplexity, and generation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from task_cases import TASKS, randomise, task_on
from tiny_models import POSITIONS

from fmfl_secure.data import DataError
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.measures import measure_named
from fmfl_secure.models.adapted import transformers_model
from fmfl_secure.models.batches import IGNORED
from fmfl_secure.models.prefix import FrozenPrefix
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.sections import FederationSection, SiteEntry
from fmfl_secure.settings.tasks import CausalLMSection
from fmfl_secure.settings.toml_file import convert_config
from fmfl_secure.tasks.prompts import PromptWriter, beginning, exchange

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


def test_prompt_and_response_are_each_sure_of_half_the_room(task) -> None:
    """Both lose their ends, never their beginnings, and a response that is cut has no end."""
    cases = [("Q" + "p" * 99, "rs"), ("a", "R" + "r" * 99), ("Q" + "p" * 99, "R" + "r" * 99)]
    units = [np.array([n]) for n in range(3)]
    data = task._prepare([exchange(*case) for case in cases], units)
    assert data.record_cost.tolist() == [24, 24, 24]
    assert data.shortened == 3
    tokenizer = task.base.load_tokenizer()
    texts = [tokenizer.decode(ids.tolist()) for ids in data.collate(np.arange(3)).input_ids]
    assert texts == [
        "Q" + "p" * 19 + "\nrs<|end|>",
        "a\nR" + "r" * 21,
        "Q" + "p" * 11 + "\nR" + "r" * 10,
    ]
    short = task._prepare([exchange("a", "b")], units[:1])
    assert short.shortened == 0


def test_declared_responses_are_measured_as_labels_are(task) -> None:
    """By the likelihood of each whole response with its end, against the others, as in suites."""
    section = msgspec.structs.replace(task.settings, responses=("yes", "no"))
    task = replace(task, settings=section)
    model = task.build_model(seed=1).eval()
    randomise(model)
    cases = [("abc", "no"), ("d", " yes "), ("efg", "perhaps")]
    data = task.prepare([exchange(*case) for case in cases])
    found = task.outcomes(model, data.only(np.array([2, 0, 1])), batch_size=2)
    assert found.labels.tolist() == [-1, 1, 0]
    for row, (prompt, _) in zip(found.probabilities, [cases[2], *cases[:2]], strict=True):
        batch = task.prepare([exchange(prompt, each) for each in ("yes", "no")]).collate(
            np.arange(2)
        )
        tokens = (batch.labels != IGNORED).sum(dim=1)
        with torch.no_grad():
            nll = task.per_record_loss(model, batch) * tokens
        assert row == pytest.approx((-nll).softmax(dim=0).double().numpy(), abs=1e-5)
    config = FederationConfig(
        federation=FederationSection(name="f", rounds=1),
        task=section,
        sites=tuple(SiteEntry(name=name, population=100) for name in ("a", "b", "c")),
    )
    rates = {n: measure_named(config, n).vectors(found)[:, 0] for n in ("accuracy", "likelihood")}
    assert rates["likelihood"].tolist() == [
        0.0,
        found.probabilities[1, 1],
        found.probabilities[2, 0],
    ]
    assert rates["accuracy"].tolist() == [0.0, *(found.probabilities.argmax(1)[1:] == [1, 0])]
    assert not measure_named(config, "recall").vectors(found)[0].any(), "of no label"
    plain = msgspec.structs.replace(config, task=TASKS["causal-lm"])
    with pytest.raises(ConfigError, match="'likelihood' is not measured"):
        measure_named(plain, "likelihood")


def test_declared_responses_are_evaluated_as_labels_are(task, monkeypatch) -> None:
    """With outputs of frozen layers kept from one evaluation to the next, and the same figures."""
    section = msgspec.structs.replace(task.settings, responses=("yes", "no"))
    task = replace(task, settings=section, adapter=replace(task.adapter, last_layers=1))
    model = task.build_model(seed=1).eval()
    randomise(model, scale=0.5)
    cases = [("abc", "no"), ("d", " yes "), ("efg", "no"), ("hi", "perhaps")]
    data = task.prepare([exchange(*case) for case in cases])
    assert not data.labels.size, "one has none of them"
    found = task.evaluate(model, data, batch_size=3)
    assert list(found)[:2] == ["accuracy", "macro_f1"]
    assert list(found)[2:] == ["token_accuracy", "exact_match", "perplexity", "loss"]
    outcomes = task.outcomes(model, data, batch_size=4)
    said = outcomes.probabilities.argmax(axis=1)
    assert found["accuracy"] == (said == [1, 0, 1, -1]).mean()
    hits = [(said[[1]] == 0).sum(), (said[[0, 2]] == 1).sum()]
    scores = [2 * hits[n] / ((said == n).sum() + [1, 2][n]) for n in (0, 1)]
    assert found["macro_f1"] == pytest.approx(np.mean(scores))
    ran = []
    model.encoder.get_submodule("base_model.model.transformer.h.0").register_forward_hook(
        lambda _module, inputs, _output: ran.append(inputs)
    )
    monkeypatch.setattr(FrozenPrefix, "_run_alone", lambda *_: pytest.fail("computed again"))
    assert task.evaluate(model, data, batch_size=2) == pytest.approx(found)
    assert ran, "the adapter's layers do run"
    some = data.only(np.array([2, 0, 1]))
    assert some.answered.right.tolist() == [1, 1, 0]
    part = task.evaluate(model, some, batch_size=2)
    assert part["accuracy"] == pytest.approx((said[[2, 0, 1]] == [1, 1, 0]).mean())
    assert task.prepare([exchange(*case) for case in cases[:3]]).labels.tolist() == [1, 0, 1]
    assert not task.prepare([exchange("yes")]).labels.size, "a prompt is no response"
    with pytest.raises(ModelError, match="declares none"):
        task.likeliest(model, replace(data, answered=None), batch_size=2)


@pytest.mark.parametrize("responses", [["yes"], ["yes", " yes"], ["yes", " "]], ids=str)
def test_responses_that_are_no_labels_are_refused(responses: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"task\.responses"):
        convert_config(
            {"kind": "causal-lm", "responses": responses}, CausalLMSection, source="task"
        )


@pytest.mark.parametrize("tokenizer", ["before every text", "before none"])
def test_a_response_with_the_space_has_the_tokens_that_it_has_within_a_text(tokenizer) -> None:
    """Of a tokenizer of words whose first blank is a part, as SmolLM2's, and as Llama's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    scheme = "always" if tokenizer == "before every text" else "never"
    words = ["<end>", "Is", "it", "yes", "a", ":", "\u2581", "\u2581Is", "\u2581it", "\u2581yes"]
    words += ["\u2581a", "\u2581no", "no"]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, "\u2581no"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    section = CausalLMSection(template="Is {prompt} ", last_space="response")
    assert (section.read_template, section.before_response) == ("Is {prompt}", " ")
    write = PromptWriter(fast, section.read_template, 24, before_response=section.before_response)
    (turn,) = write(exchange("it", "yes")).turns
    whole = fast("Is it yes", add_special_tokens=False)["input_ids"]
    assert [*turn.before, *turn.after] == [*whole, 0]
    assert turn.after == [words.index("\u2581yes"), 0]
    (asked,) = write(exchange("it")).turns
    assert asked.before == turn.before, "what a response is asked of is what it was learned after"


def test_the_last_space_is_the_templates_unless_settings_give_it_away(tiny_models) -> None:
    """As version 0.1.0 read it, digest included; and only spaces move, no line break."""
    kept = CausalLMSection(template="{prompt} so ")
    assert (kept.read_template, kept.before_response) == ("{prompt} so ", "")
    moved = msgspec.structs.replace(kept, last_space="response")
    lines = msgspec.structs.replace(moved, template="{prompt}\n")
    assert (lines.read_template, lines.before_response) == ("{prompt}\n", "")
    two = msgspec.structs.replace(moved, template="{prompt}  ")
    assert (two.read_template, two.before_response) == ("{prompt}", "  ")
    tokenizer, found = None, []
    for section in (kept, moved):
        task = replace(task_on(tiny_models("gpt2"), "causal-lm"), settings=section)
        tokenizer = task.base.load_tokenizer()
        batch = task.prepare([exchange("a", "yes")]).collate(np.arange(1))
        learned = tokenizer.decode(batch.labels[batch.labels != IGNORED])
        found.append((tokenizer.decode(batch.input_ids[0]), learned))
    assert found == [("a so yes<|end|>", "yes<|end|>"), ("a so yes<|end|>", " yes<|end|>")]


def test_no_part_of_a_template_is_ever_cut(tiny_models) -> None:
    section = CausalLMSection(template="<|end|>user {prompt}<|end|>answer ")
    task = replace(task_on(tiny_models("gpt2"), "causal-lm"), settings=section)
    data = task._prepare([exchange("p" * 99, "r" * 99)], [np.array([0])])
    ids = data.collate(np.array([0])).input_ids[0].tolist()
    assert len(ids) == 24
    assert task.base.load_tokenizer().decode(ids) == "<|end|>user ppppp<|end|>answer rrrrr"
    assert ids.count(END) == 2
    narrow = replace(task, max_length=15)
    with pytest.raises(ModelError, match=r"task\.template takes 14 of the 15 tokens"):
        narrow.build_model(seed=1)


def test_a_record_that_spells_special_tokens_cannot_close_its_turn(task, tmp_path: Path) -> None:
    task = replace(task, max_length=64)
    rows = [("stop<|end|>yes", "no<|end|>"), ("<|end|><|end|>", "<|<|end|>end|>")]
    data = task.load(write(tmp_path / "x.csv", *rows), unit="record")
    batch = data.collate(np.arange(2))
    ends = [
        [int(n) for n in (row == END).nonzero() if mask[n]]
        for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    assert ends == [[length - 1] for length in batch.attention_mask.sum(dim=1).tolist()]
    assert len(task.load_inputs(tmp_path / "x.csv").collate(np.arange(2)).labels) == 2


def test_texts_begin_as_the_tokenizer_begins_them_and_only_once(tiny_models) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_models("gpt2"))
    assert beginning(tokenizer, "{prompt}") == ""
    tokenizer.bos_token = "<|end|>"
    assert beginning(tokenizer, "{prompt}") == "", "it has one, and does not begin with it"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", END)]
    )
    assert beginning(tokenizer, "{prompt}") == "<|end|>"
    assert beginning(tokenizer, "<|end|>user {prompt}") == ""
    written = PromptWriter(tokenizer, "{prompt}!", 24)(exchange("a"))
    assert written.ids[0] == END
    assert written.ids.count(END) == 1


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

        def forward(self, batch, *, positions: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(*positions.shape, 265)
            logits[..., x] = math.log(2)
            return logits

    x = task.base.load_tokenizer()("x")["input_ids"][0]
    metrics = task.evaluate(Constant(), data, batch_size=2)
    assert list(metrics) == ["token_accuracy", "exact_match", "perplexity", "loss"]
    assert metrics["token_accuracy"] == pytest.approx(1 / 4)  # x y z, q: the end is no token of it
    assert metrics["exact_match"] == 0.0
    nll = 6 * math.log(266) - math.log(2)
    assert metrics["perplexity"] == pytest.approx(math.exp(nll / 6), rel=1e-5)
    first, second = (4 * math.log(266) - math.log(2)) / 4, math.log(266)
    assert metrics["loss"] == pytest.approx((first + second) / 2, rel=1e-5)


@pytest.mark.parametrize("answered", [(), ("r",), ("r", "end")])
def test_a_response_is_met_when_all_of_it_and_its_end_are(task, tmp_path, answered) -> None:
    """As greedy decoding would write it, and no credit for the end token alone."""
    data = task.load(write(tmp_path / "x.csv", ("ab", "r")), unit="record")
    ids = {"r": task.base.load_tokenizer()("r")["input_ids"][0], "end": END}

    class Knows(torch.nn.Module):
        def forward(self, batch, *, positions: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(*positions.shape, 265)
            for place, name in enumerate(answered):
                logits[:, place, ids[name]] = 1.0
            return logits

    metrics = task.evaluate(Knows(), data, batch_size=1)
    assert metrics["exact_match"] == float(answered == ("r", "end"))
    assert metrics["token_accuracy"] == float("r" in answered)


@pytest.mark.parametrize("adapter", ["lora", "prompt"])
def test_the_output_layer_runs_where_a_loss_is_and_nowhere_else(tiny_models, adapter) -> None:
    """Counted at the layer itself: 3 responses' tokens of the longest, not 26 of a text's."""
    task = task_on(tiny_models("llama"), "causal-lm", adapter)
    model = task.build_model(seed=1)
    data = task._prepare(
        [exchange("p" * 20, "ab"), exchange("p", "c")], [np.array([0]), np.array([1])]
    )
    widths: list[tuple[int, ...]] = []
    words = transformers_model(model.encoder).get_output_embeddings()
    words.register_forward_hook(lambda _module, _inputs, output: widths.append(output.shape))
    task.per_record_loss(model, data.collate(np.array([0, 1]))).sum().backward()
    assert [width[:2] for width in widths] == [(2, 3)]


@pytest.mark.parametrize("adapter", ["lora", "prompt", "prefix"])
def test_generation_is_greedy_and_the_same_alone_or_in_a_batch(tiny_models, adapter: str) -> None:
    task = task_on(tiny_models("llama"), "causal-lm", adapter, cache_bytes=0)
    model = task.build_model(seed=1).eval()
    randomise(model, scale=0.3)
    prompts = ["alpha", "beta gamma delta"]
    inputs = task._prepare([exchange(p) for p in prompts], [np.array([0]), np.array([1])])
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


def test_a_prompt_that_leaves_little_room_cuts_no_other_s_answer(tiny_models) -> None:
    task = task_on(tiny_models("llama"), "causal-lm", max_length=POSITIONS - 2)
    model = task.build_model(seed=1).eval()
    randomise(model, scale=0.3)
    prompts = ["alpha", "beta " * POSITIONS]
    inputs = task._prepare([exchange(p) for p in prompts], [np.array([0]), np.array([1])])
    assert inputs.record_cost.tolist()[1] == POSITIONS - 2
    assert task.with_little_room(inputs) == 1
    together = task.predict(model, inputs, batch_size=2)
    assert together == task.predict(model, inputs, batch_size=1)


def test_rows_without_a_response_are_bad_rows(task, tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ("ab", "xyz"), ("c", ""))
    with pytest.raises(DataError, match="row 2"):
        task.load(path, unit="record")
    assert task.load(path, unit="record", on_bad_row="skip").records == 1
    assert task.load_inputs(path).records == 2
