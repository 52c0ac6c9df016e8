"""What a card prints opens the model, without this package, and gives the run's own answers."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from support import Quiet, make_federation
from task_cases import TASKS, randomise, task_on
from tiny_models import png
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapter_files import HEAD_FILE
from fmfl_secure.models.computation import Computation
from fmfl_secure.models.own_heads import OWN_HEADS
from fmfl_secure.models.own_heads.added_layer import AddedLayer
from fmfl_secure.report.export import export_run
from fmfl_secure.report.merged import write_merged
from fmfl_secure.report.opening import Exported, how_to_open
from fmfl_secure.settings.own_classes import OWN_CLASSES
from fmfl_secure.training.finished_run import open_run, predict_run
from fmfl_secure.transports.local.engine import LocalEngine

TEXT = "alpha beta xi"
TASKS_OF = {
    "bert": ("text-classification", "multi-label-classification", "token-classification"),
    "modernbert": ("text-classification",),
    "llama": ("causal-lm", "preference", "text-classification"),
    "gpt2": ("causal-lm",),
    "vit": ("image-classification",),
    "clip": ("image-classification", "image-text", "image-text-classification"),
    "siglip": ("image-text-classification", "image-text"),
}
KINDS = ("lora", "ia3", "bitfit", "head", "prompt")
TASK_FOR = {
    "text": "text-classification",
    "tokens": "token-classification",
    "image": "image-classification",
}
HELD = [(model, what) for model, own in OWN_HEADS.items() for what in own]
OWN, NORM = "architecture", "unit-norm"
# Every task, on heads that a class holds and on those that none does.
EVERY_TASK = [
    ("bert", "text-classification", OWN), ("llama", "text-classification", OWN),
    ("bert", "multi-label-classification", OWN), ("llama", "multi-label-classification", OWN),
    ("bert", "token-classification", OWN), ("vit", "image-classification", OWN),
    ("bert", "multi-label-classification", NORM), ("bert", "token-classification", NORM),
    ("vit", "image-classification", NORM), ("clip", "image-classification", NORM),
    ("gpt2", "causal-lm", NORM), ("llama", "causal-lm", NORM),
    ("clip", "image-text", NORM), ("siglip", "image-text-classification", NORM),
]  # fmt: skip
DEFAULT = {"bert", "distilbert", "modernbert", "vit"}
# Importing this package fails in the process that runs what a card prints.
ALONE = """
import json, sys
sys.modules["fmfl_secure"] = None
try:
    import fmfl_secure
except ImportError:
    pass
else:
    raise SystemExit("this package can be imported")
answers = []
for given, code in json.loads(sys.stdin.read()):
    exec(code, given)
    answers.append(given["answer"])
print(json.dumps(answers))
"""


def printed(lines: list[str]) -> str:
    code = re.search(r"```python\n(.*?)```", "\n".join(lines), re.DOTALL)
    assert code is not None
    assert "fmfl" not in code[1]
    assert len(code[1].splitlines()) < 30
    return code[1]


def alone(*work: tuple[dict[str, str], str]) -> list[Any]:
    """What the lines answer, each with what it is given, in a process without this package."""
    result = subprocess.run(
        [sys.executable, "-I", "-c", ALONE],
        check=False,
        capture_output=True,
        input=json.dumps(work),
        text=True,
    )
    assert result.returncode == 0, result.stderr
    answers: list[Any] = json.loads(result.stdout.splitlines()[-1])
    return answers


def section(kind: str, head: str = "unit-norm") -> Any:
    return TASKS[kind] if head == "unit-norm" else msgspec.structs.replace(TASKS[kind], head=head)


def inputs_of(task: Any, folder: Path) -> Any:
    (folder / "picture.png").write_bytes(png(seed=4))
    columns = {
        "text-classification": f"text\n{TEXT}\n",
        "multi-label-classification": f"text\n{TEXT}\n",
        "token-classification": json.dumps({"tokens": TEXT.split()}) + "\n",
        "causal-lm": f"prompt\n{TEXT}\n",
        "preference": f"prompt\n{TEXT}\n",
        "image-classification": "image\npicture.png\n",
        "image-text": f"image,text\npicture.png,{TEXT}\n",
        "image-text-classification": f"image,text\npicture.png,{TEXT}\n",
    }
    suffix = "jsonl" if task.kind == "token-classification" else "csv"
    path = folder / f"inputs.{suffix}"
    path.write_text(columns[task.kind])
    return task.load_inputs(path)


def exported(task: Any, folder: Path, **more: Any) -> Exported:
    made = json.loads((folder / "task.json").read_text())
    files = [path.name for path in folder.iterdir()]
    settings = msgspec.to_builtins(task.settings)
    kinds = {"task": task.kind, "adapter": task.adapter.kind}
    return Exported(**kinds, made=made, settings=settings, files=files, **more)


def assert_same(task: Any, answer: Any, expected: dict[str, Any]) -> None:
    if "probabilities" in expected:
        assert answer == pytest.approx(expected["probabilities"], abs=1e-5)
    elif task.kind == "image-text":
        assert answer == pytest.approx(expected["similarity"], abs=1e-5)
    elif task.kind in {"causal-lm", "preference"}:
        assert answer == expected["response"]
    else:
        tags = [tag for token, tag in answer if token not in {"[CLS]", "[SEP]"}]
        assert tags == expected["tags"]  # a token is a word here


@pytest.mark.parametrize(
    ("model_type", "kind", "adapter", "head"),
    [
        pytest.param(
            *(model_type, kind, adapter, head),
            id=f"{model_type}-{kind}-{adapter}-{head}",
            marks=[pytest.mark.slow] * (adapter in {"ia3", "bitfit"}),
        )
        for model_type, kinds in TASKS_OF.items()
        for kind in kinds
        for adapter in KINDS
        for head in ("unit-norm", "architecture")
        if not (adapter == "prompt" and (model_type not in {"bert", "llama", "gpt2"}))
        if not (adapter == "bitfit" and model_type in {"modernbert", "llama"})
        if not (adapter == "head" and kind in {"causal-lm", "preference", "image-text"})
        if head == "unit-norm"
        or (
            adapter == "lora" and kind in {TASK_FOR[what] for what in OWN_HEADS.get(model_type, ())}
        )
    ],
)
@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # PEFT, of itself
def test_the_card_s_lines_answer_as_predict_does(
    tiny_models, tmp_path: Path, model_type: str, kind: str, adapter: str, head: str
) -> None:
    base = tiny_models(model_type)
    task = task_on(base, section(kind, head), adapter)
    model = task.build_model(seed=0)
    randomise(model)
    folder = tmp_path / "adapter"
    task.save_adapter(model, folder)
    (expected,) = task.predict(task.open_adapter(folder), inputs_of(task, tmp_path), batch_size=1)
    code = printed(how_to_open(exported(task, folder)))
    given = {"folder": str(folder), "base": str(base), "text": TEXT}
    given["picture"] = str(tmp_path / "picture.png")
    exec(code, given)
    assert_same(task, given["answer"], expected)


def merged(task: Any, folder: Path) -> tuple[Any, Path]:
    """A trained model opened as the run would, and its merged export."""
    model = task.build_model(seed=0)
    randomise(model)
    task.save_adapter(model, folder / "adapter")
    run = SimpleNamespace(adapter=folder / "adapter")
    write_merged(run, task, folder / "out", None)
    return task.open_adapter(folder / "adapter"), folder / "out"


@pytest.mark.parametrize(
    ("model_type", "answers_for"),
    [
        pytest.param(model, what, marks=[pytest.mark.slow] * (model not in DEFAULT))
        for model, what in HELD
    ],
)
def test_the_architecture_s_own_class_gives_the_run_s_answers(
    tiny_models, tmp_path: Path, model_type: str, answers_for: str
) -> None:
    """Alone and in a padded batch, from one word to far more than are kept."""
    task = task_on(tiny_models(model_type), section(TASK_FOR[answers_for], "architecture"))
    model, folder = merged(task, tmp_path)
    auto = getattr(transformers, OWN_CLASSES[TASK_FOR[answers_for]])
    own, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert [own.config.id2label[i] for i in range(len(task.answers))] == list(task.answers)
    assert {p.dtype for p in own.parameters()} == {torch.float32}
    data = task.synthetic()
    together = getattr(own.config, "pad_token_id", None) is not None or answers_for != "text"
    batches = [np.array([i]) for i in range(data.records)]
    batches += [np.arange(data.records)] * together
    for records in batches:
        batch = data.collate(records)
        given = {"pixel_values": batch.pixel_values} if answers_for == "image" else {
            "input_ids": batch.input_ids, "attention_mask": batch.attention_mask,
        }  # fmt: skip
        with torch.no_grad():
            expected, logits = model(batch), own.eval()(**given).logits
        read = torch.ones(expected.shape[:-1], dtype=torch.bool)
        if answers_for == "tokens":
            read = batch.attention_mask == 1
        assert torch.allclose(logits[read], expected[read], atol=1e-5), records


def test_a_class_that_is_built_otherwise_is_refused(
    tiny_models, tmp_path: Path, monkeypatch
) -> None:
    """As another version of transformers may build it: never written with a head left random."""
    task = task_on(tiny_models("bert"), section("text-classification", "architecture"))
    monkeypatch.setattr(AddedLayer, "tensors", lambda *_: ({}, {}))
    with pytest.raises(ModelError, match="is built otherwise than expected"):
        merged(task, tmp_path)


def test_an_architecture_whose_class_holds_no_such_head_is_refused(tiny_models) -> None:
    settings = section("image-classification", "architecture")
    with pytest.raises(ModelError, match="not possible on 'clip'") as refused:
        task_on(tiny_models("clip"), settings).build_model(seed=0)
    assert "unit-norm" in refused.value.hint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_trained_in_half_is_merged_into_what_it_was_trained_on(
    tiny_models, tmp_path: Path, dtype: str
) -> None:
    settings = section("text-classification", "architecture")
    task = task_on(tiny_models("bert"), settings, computation=Computation(dtype=dtype))
    model, folder = merged(task, tmp_path)
    own = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    batch = task.synthetic().collate(np.arange(8))
    with torch.no_grad():
        given = own(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        assert torch.allclose(given.logits, model(batch), atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "kind"), [("llama", "causal-lm"), ("clip", "image-classification")]
)
def test_a_base_in_half_is_merged_so_that_plain_loading_gives_what_was_trained(
    tiny_models, tmp_path: Path, model_type: str, kind: str
) -> None:
    """Its configuration says bfloat16, of every tower: that would round an update away."""
    half = transformers.AutoModel if model_type == "clip" else transformers.AutoModelForCausalLM
    shutil.copytree(tiny_models(model_type), tmp_path / "base")
    half.from_pretrained(tmp_path / "base", dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    said = json.loads((tmp_path / "base/config.json").read_text())
    said["torch_dtype"] = "bfloat16"
    for tower in (said.get("text_config"), said.get("vision_config")):
        if tower:
            tower["dtype"] = "bfloat16"
    (tmp_path / "base/config.json").write_text(json.dumps(said))
    task = task_on(tmp_path / "base", kind, computation=Computation(dtype="bfloat16"))
    model, folder = merged(task, tmp_path)
    opened = half.from_pretrained(folder)
    assert {p.dtype for p in opened.parameters()} == {torch.float32}
    assert "bfloat16" not in (folder / "config.json").read_text()
    batch = task.synthetic().collate(np.arange(4))

    def answers(own: Any) -> torch.Tensor:
        with torch.no_grad():
            if model_type == "clip":
                return own.get_image_features(pixel_values=batch.pixel_values).pooler_output
            return own(
                input_ids=batch.input_ids[:1], attention_mask=batch.attention_mask[:1]
            ).logits

    trained, plain = answers(model.encoder), answers(opened)
    assert torch.allclose(trained, plain, atol=1e-4)
    rounded = answers(opened.to(torch.bfloat16).float())
    assert (rounded - trained).abs().max() > 10 * (plain - trained).abs().max()


def by_the_card(task: Any, folder: Path, **given: str) -> tuple[dict[str, Any], list[Any]]:
    """What a run predicts for one input, and what the lines of its exports answer."""
    model, whole = merged(task, folder)
    own = task.own_head is not None
    (expected,) = task.predict(model, inputs_of(task, folder), batch_size=1)
    found = []
    for place, more in ((whole, {"merged": True, "own_class": own}), (folder / "adapter", {})):
        names = {"base": str(task.base.path), "folder": str(place), "text": TEXT, **given}
        exec(printed(how_to_open(exported(task, place, **more))), names)
        found.append(names["answer"])
    return expected, found


def assert_answered_by_the_card(task: Any, folder: Path) -> None:
    expected, found = by_the_card(task, folder, picture=str(folder / "picture.png"))
    for answer in found:
        assert_same(task, answer, expected)


def saying(base: Path, folder: Path, file: str, **more: Any) -> Path:
    """A copy of a base model of whose files one says something else."""
    shutil.copytree(base, folder)
    path = folder / file
    said = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(said | more))
    return folder


@pytest.mark.parametrize(
    ("model_type", "kind", "head"),
    [
        ("bert", "text-classification", OWN), ("bert", "text-classification", NORM),
        ("llama", "text-classification", OWN), ("clip", "image-text-classification", NORM),
        ("siglip", "image-text", NORM),
    ],
)  # fmt: skip
def test_a_long_text_is_cut_where_the_run_cut_it_whatever_the_base_s_tokenizer_does(
    tiny_models, tmp_path: Path, monkeypatch, model_type: str, kind: str, head: str
) -> None:
    text = " ".join(["alpha beta gamma nu xi pi"] * 12)
    monkeypatch.setitem(globals(), "TEXT", text)
    said = {"truncation_side": "left", "padding_side": "left", "model_max_length": 9}
    base = saying(tiny_models(model_type), tmp_path / "base", "tokenizer_config.json", **said)
    task = task_on(base, section(kind, head))
    assert_answered_by_the_card(task, tmp_path)


@pytest.mark.parametrize(
    ("model_type", "kind"), [("bert", "text-classification"), ("vit", "image-classification")]
)
def test_what_a_base_model_says_of_an_earlier_task_is_not_said_of_the_run_s(
    tiny_models, tmp_path: Path, model_type: str, kind: str
) -> None:
    labels = ("a", "b", "c", "d")
    said = {"num_labels": 4, "_num_labels": 4, "problem_type": "regression"}
    said |= {"id2label": dict(enumerate(labels)), "label2id": {b: a for a, b in enumerate(labels)}}
    base = saying(tiny_models(model_type), tmp_path / "base", "config.json", **said)
    task = task_on(base, section(kind, OWN))
    assert_answered_by_the_card(task, tmp_path)


@pytest.mark.parametrize(
    ("model_type", "kind", "head"),
    [("bert", "text-classification", NORM), ("vit", "image-classification", OWN)],
)
def test_an_adapter_is_opened_on_the_weights_that_it_was_trained_on(
    tiny_models, tmp_path: Path, model_type: str, kind: str, head: str
) -> None:
    half = Computation(dtype="bfloat16")
    task = task_on(tiny_models(model_type), section(kind, head), computation=half)
    assert_answered_by_the_card(task, tmp_path)


def test_a_card_says_that_transformers_does_not_read_blocks(tiny_models, tmp_path: Path) -> None:
    arguments = ["model", "import", str(tiny_models("bert")), "--weights", "q8_0"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "base")])
    assert done.exit_code == 0, done.output
    task = task_on(tmp_path / "base", section("text-classification", OWN))
    model, whole = merged(task, tmp_path)
    (said,) = how_to_open(exported(task, tmp_path / "adapter"))[2:]
    assert "export RUN --merged" in said
    (expected,) = task.predict(model, inputs_of(task, tmp_path), batch_size=1)
    names = {"folder": str(whole), "text": TEXT}
    exec(printed(how_to_open(exported(task, whole, merged=True, own_class=True))), names)
    assert_same(task, names["answer"], expected)


VALUES = np.random.default_rng(5).integers(0, 256, (20, 12, 4)).astype(np.uint8)
PICTURES = {
    "turned": Image.fromarray(VALUES[..., :3]),
    "transparent": Image.fromarray(VALUES),
    "grey and transparent": Image.fromarray(VALUES[..., [0, 3]], "LA"),
    "palette with a transparent colour": Image.fromarray(VALUES[..., :3]).quantize(8),
    "grey of 16 bits": Image.fromarray(VALUES[..., 0].astype(np.uint16) * 250),
    "two colours": Image.fromarray(VALUES[..., 0] > 100),
}


@pytest.mark.parametrize(
    ("model_type", "kind", "head"),
    [
        ("vit", "image-classification", OWN),
        ("vit", "image-classification", NORM),
        ("clip", "image-text", NORM),
    ],
)
@pytest.mark.parametrize("what", PICTURES)
def test_the_card_reads_pictures_as_the_run_does(
    tiny_models, tmp_path: Path, monkeypatch, model_type: str, kind: str, head: str, what: str
) -> None:
    picture = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6
    more = {"transparency": 2} if "palette" in what else {}
    PICTURES[what].save(picture, "PNG", exif=turned, **more)
    monkeypatch.setitem(globals(), "png", lambda **_: picture.getvalue())
    task = task_on(tiny_models(model_type), section(kind, head))
    assert_answered_by_the_card(task, tmp_path)


def test_the_card_s_lines_take_the_likeliest_token_whatever_the_base_says(
    tiny_models, tmp_path: Path
) -> None:
    said = {"num_beams": 3, "do_sample": True, "temperature": 0.3, "length_penalty": 2.0}
    said |= {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    base = saying(tiny_models("llama"), tmp_path / "base", "generation_config.json", **said)
    task = task_on(base, section("causal-lm"), max_length=60)
    expected, found = by_the_card(task, tmp_path)
    assert found == [expected["response"]] * 2


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    path = make_federation(folder, tiny_model, rounds=1)
    LocalEngine(path, folder / "run", resume=False, observer=Quiet()).run()
    return folder / "run"


@pytest.fixture(scope="module")
def own_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    path = make_federation(folder, tiny_model, rounds=1, task='head = "architecture"')
    LocalEngine(path, folder / "run", resume=False, observer=Quiet()).run()
    return folder / "run"


def test_every_export_answers_as_the_run_in_a_process_without_this_package(
    run: Path, own_run: Path, tiny_model: Path, tiny_models, tmp_path: Path
) -> None:
    """By what people use: `pipeline` on the folder alone, or the lines on its card."""
    work, wanted = [], []
    for number, (model_type, kind, head) in enumerate(EVERY_TASK):
        place = tmp_path / str(number)
        place.mkdir()
        settings, own = section(kind, head), head == OWN
        if kind == "causal-lm":
            template = "Say {{ it }}: '{prompt}'\n\u20ac\\n "
            settings = msgspec.structs.replace(settings, template=template, last_space="response")
        base = tiny_models(model_type)
        task = task_on(base, settings, max_length=60)
        model, folder = merged(task, place)
        (expected,) = task.predict(model, inputs_of(task, place), batch_size=1)
        given = {"base": str(base), "text": TEXT, "picture": str(place / "picture.png")}
        whole = printed(how_to_open(exported(task, folder, merged=True, own_class=own)))
        assert ("pipeline(" in whole) == (own or kind == "causal-lm")
        beside = printed(how_to_open(exported(task, place / "adapter")))
        assert "PeftModel" in beside
        work.append(({**given, "folder": str(folder)}, whole))
        work.append(({**given, "folder": str(place / "adapter")}, beside))
        wanted += [(task, expected)] * 2
    data = tmp_path / "new.csv"
    data.write_text(f"text\n{TEXT}\n")
    for own, place in ((False, run), (True, own_run)):
        (expected,) = predict_run(place, data)
        for whole in (False, True):
            out = export_run(place, tmp_path / f"{own}-{whole}", merged=whole)
            card = (out / "README.md").read_text()
            assert ("pipeline(" in card.split("## How to open it")[1]) == (own and whole)
            given = {"folder": str(out), "base": str(tiny_model), "text": TEXT}
            work.append((given, printed([card])))
            wanted.append((open_run(place).task, expected))
    for answer, (task, expected) in zip(alone(*work), wanted, strict=True):
        assert_same(task, answer, expected)


def test_a_run_on_the_class_s_own_head_opens_as_what_people_use(
    own_run: Path, tmp_path: Path
) -> None:
    out = export_run(own_run, tmp_path / "out", merged=True)
    data = tmp_path / "new.csv"
    data.write_text(f"text\n{TEXT}\n{' '.join([TEXT] * 20)}\n")  # more than the run's 16 tokens
    classify = transformers.pipeline("text-classification", model=str(out), truncation=True)
    for text, expected in zip(
        (TEXT, " ".join([TEXT] * 20)), predict_run(own_run, data), strict=True
    ):
        (answer,) = classify(text)
        assert answer["label"] == expected["label"]
        assert answer["score"] == pytest.approx(
            expected["probabilities"][answer["label"]], abs=1e-5
        )
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["problem_type"] == "single_label_classification"
    assert not (out / HEAD_FILE).exists(), "one head, not two"
    front = (out / "README.md").read_text().split("---")[1]
    assert "library_name: transformers\npipeline_tag: text-classification\n" in front


def test_a_run_of_several_labels_goes_from_tables_to_pipeline(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = make_federation(tmp_path, tiny_model, rounds=1, task='head = "architecture"')
    kind = 'kind = "text-classification"'
    several = 'kind = "multi-label-classification"\nlabel_separator = ";"\nno_label = "none"'
    path.write_text(path.read_text().replace(kind, several))
    for table in (tmp_path / "data").iterdir():
        rows = table.read_text().replace(",no\n", ",none\n", 5).replace(",yes\n", ",yes; no\n", 5)
        table.write_text(rows)
    record = LocalEngine(path, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert record.status == "finished"
    metrics = record.rounds[-1].metrics
    assert list(metrics) == ["micro_f1", "macro_f1", "subset_accuracy", "loss"]
    assert all(site.statement.grants[0].epsilon_spent > 0 for site in record.sites)
    out = export_run(tmp_path / "run", tmp_path / "out", merged=True)
    data = tmp_path / "new.csv"
    data.write_text(f"text\n{TEXT}\n")
    (expected,) = predict_run(tmp_path / "run", data)
    classify = transformers.pipeline("text-classification", model=str(out), truncation=True)
    answer = {one["label"]: one["score"] for one in classify(TEXT, top_k=None)}
    assert answer == pytest.approx(expected["probabilities"], abs=1e-5)
    assert set(expected["labels"]) == {label for label, score in answer.items() if score >= 0.5}
    assert json.loads((out / "config.json").read_text())["problem_type"] == (
        "multi_label_classification"
    )
    assert "pipeline_tag: text-classification\n" in (out / "README.md").read_text()


def test_a_merged_classifier_is_never_opened_with_a_random_head(run: Path, tmp_path: Path) -> None:
    out = export_run(run, tmp_path / "out", merged=True)
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes"}
    assert config["label2id"] == {"no": 0, "yes": 1}
    assert config["dtype"] == "float32"
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        transformers.AutoModelForSequenceClassification.from_pretrained(out)
    with pytest.raises(ValueError, match="Could not load model"):
        transformers.pipeline("text-classification", model=str(out))
    opened = transformers.AutoModel.from_pretrained(out)
    assert {p.dtype for p in opened.parameters()} == {torch.float32}
    assert "transformers would draw a head at random" in (out / "README.md").read_text()


def test_the_adapter_of_a_run_has_its_card(run: Path) -> None:
    card = (run / "adapter/README.md").read_text()
    assert "# tiny: text-classification" in card
    assert "PeftModel.from_pretrained(model, folder)" in card
    assert f"- `{HEAD_FILE}`" in card
    assert "base_model:" not in card.split("---")[1], "a folder's name is no model of a hub"


def test_the_readme_s_lines_open_an_adapter(run: Path, tiny_model: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "Peft" in c)
    import os

    before = Path.cwd()
    place = run.parent / "home"
    place.mkdir()
    (place / "pilot").symlink_to(run.parent)
    os.chdir(place)
    try:
        given: dict[str, Any] = {"base": str(tiny_model)}
        exec(code, given)
    finally:
        os.chdir(before)
    assert any("lora_" in name for name, _ in given["encoder"].named_parameters())
