"""What a card prints opens the model, without this package, and gives the run's own answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import Quiet, make_federation
from task_cases import randomise, task_on
from tiny_models import png

from fmfl_secure.models.adapter_files import HEAD_FILE
from fmfl_secure.report.export import export_run
from fmfl_secure.report.opening import how_to_open
from fmfl_secure.training.finished_run import predict_run
from fmfl_secure.transports.local.engine import LocalEngine

TEXT = "alpha beta xi"
TASKS_OF = {
    "bert": ("text-classification", "token-classification"),
    "modernbert": ("text-classification",),
    "llama": ("causal-lm", "text-classification"),
    "gpt2": ("causal-lm",),
    "vit": ("image-classification",),
    "clip": ("image-classification", "image-text", "image-text-classification"),
    "siglip": ("image-text-classification", "image-text"),
}
KINDS = ("lora", "ia3", "bitfit", "head", "prompt")


def printed(lines: list[str]) -> str:
    code = re.search(r"```python\n(.*?)```", "\n".join(lines), re.DOTALL)
    assert code is not None
    assert "fmfl" not in code[1]
    return code[1]


def inputs_of(task: Any, folder: Path) -> Any:
    (folder / "picture.png").write_bytes(png(seed=4))
    columns = {
        "text-classification": f"text\n{TEXT}\n",
        "token-classification": json.dumps({"tokens": TEXT.split()}) + "\n",
        "causal-lm": f"prompt\n{TEXT}\n",
        "image-classification": "image\npicture.png\n",
        "image-text": f"image,text\npicture.png,{TEXT}\n",
        "image-text-classification": f"image,text\npicture.png,{TEXT}\n",
    }
    suffix = "jsonl" if task.kind == "token-classification" else "csv"
    path = folder / f"inputs.{suffix}"
    path.write_text(columns[task.kind])
    return task.load_inputs(path)


@pytest.mark.parametrize(
    ("model_type", "kind", "adapter"),
    [
        pytest.param(
            model_type, kind, adapter, marks=[pytest.mark.slow] * (adapter in {"ia3", "bitfit"})
        )
        for model_type, kinds in TASKS_OF.items()
        for kind in kinds
        for adapter in KINDS
        if not (adapter == "prompt" and (model_type not in {"bert", "llama", "gpt2"}))
        if not (adapter == "bitfit" and model_type in {"modernbert", "llama"})
        if not (adapter == "head" and kind in {"causal-lm", "image-text"})
    ],
)
@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")  # PEFT, of itself
def test_the_card_s_lines_answer_as_predict_does(
    tiny_models, tmp_path: Path, model_type: str, kind: str, adapter: str
) -> None:
    base = tiny_models(model_type)
    task = task_on(base, kind, adapter)
    model = task.build_model(seed=0)
    randomise(model)
    folder = tmp_path / "adapter"
    task.save_adapter(model, folder)
    (expected,) = task.predict(task.open_adapter(folder), inputs_of(task, tmp_path), batch_size=1)
    files = [path.name for path in folder.iterdir()]
    code = printed(
        how_to_open(kind, "lora", merged=False, files=files, embeds=model_type == "clip")
    )
    assert len(code.splitlines()) < 32
    given = {"folder": str(folder), "base": str(base), "text": TEXT}
    given["picture"] = str(tmp_path / "picture.png")
    exec(code.replace("max_new_tokens=128", "max_new_tokens=5"), given)
    answer = given["answer"]
    if "probabilities" in expected:
        assert answer == pytest.approx(expected["probabilities"], abs=1e-5)
    elif kind == "image-text":
        assert answer == pytest.approx(expected["similarity"], abs=1e-5)
    elif kind == "causal-lm":
        assert answer == expected["response"]
    else:
        assert [tag for _, tag in answer][1:-1] == expected["tags"]  # a token is a word here


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    path = make_federation(folder, tiny_model, rounds=1)
    LocalEngine(path, folder / "run", resume=False, observer=Quiet()).run()
    return folder / "run"


@pytest.mark.parametrize("merged", [False, True])
def test_the_card_of_a_run_opens_it_in_a_process_without_this_package(
    run: Path, tiny_model: Path, tmp_path: Path, merged: bool
) -> None:
    out = export_run(run, tmp_path / "out", merged=merged)
    data = tmp_path / "new.csv"
    data.write_text(f"text\n{TEXT}\n")
    (expected,) = predict_run(run, data)
    card = (out / "README.md").read_text()
    given = f"folder, base, text = {str(out)!r}, {str(tiny_model)!r}, {TEXT!r}\n"
    result = subprocess.run(
        [sys.executable, "-I", "-c", given + printed([card]) + "print(json.dumps(answer))"],
        check=True,
        capture_output=True,
        text=True,
    )
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer == pytest.approx(expected["probabilities"], abs=1e-5)


def test_a_merged_classifier_is_never_opened_with_a_random_head(run: Path, tmp_path: Path) -> None:
    import transformers

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
