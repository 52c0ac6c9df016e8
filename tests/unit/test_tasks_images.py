"""Images: read from folders and tables, prepared as the model's own processor does."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from task_cases import task_on
from tiny_models import png

from fmfl_secure.data import DataError
from fmfl_secure.data.errors import DataArgumentError, EmptyFileError
from fmfl_secure.errors import ModelError


def write_folder(folder: Path) -> Path:
    for number in range(4):
        label = ("dark", "bright")[number % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number}.png").write_bytes(png(seed=number, bright=bool(number % 2)))
    return folder


def write_table(folder: Path) -> Path:
    write_folder(folder / "pictures")
    rows = [("dark/0", "dark", "p"), ("bright/1", "bright", "q"), ("dark/2", "dark", "p")]
    text = "image,label,who\n" + "".join(f"pictures/{i}.png,{la},{w}\n" for i, la, w in rows)
    path = folder / "images.csv"
    path.write_text(text, "utf-8")
    return path


def test_a_folder_and_a_table_give_the_same_images(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("vit"), "image-classification")
    table = task.load(write_table(tmp_path), unit="record")
    folder = task.load(tmp_path / "pictures", unit="record")
    assert table.labels.tolist() == [0, 1, 0]
    assert folder.labels.tolist() == [1, 1, 0, 0]  # by name of subfolder and file
    same = folder.collate(np.array([2])).pixel_values
    assert torch.equal(table.collate(np.array([0])).pixel_values, same)
    assert same.shape == (1, 3, 16, 16)
    by_person = task.load(tmp_path / "images.csv", unit="who")
    assert sorted(unit.tolist() for unit in by_person.units) == [[0, 2], [1]]
    (tmp_path / "pictures" / "dark" / ".DS_Store").write_bytes(b"\0\0\0\x01Bud1")
    inputs = task.load_inputs(tmp_path / "pictures" / "dark")
    assert inputs.records == 2
    assert "1 times .DS_Store" in inputs.left_out.passed_over
    assert task.load_inputs(tmp_path / "images.csv").records == 3


def test_a_folder_names_no_person(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("vit"), "image-classification")
    with pytest.raises(DataArgumentError, match="a folder, which does not name it"):
        task.load(write_folder(tmp_path / "x"), unit="patient_id")


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"no image"),
        lambda file: file.write_bytes(png(seed=0)[:60]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        lambda file: file.unlink(),
    ],
)
def test_an_image_that_does_not_decode_is_a_bad_row(tiny_models, tmp_path: Path, damage) -> None:
    task = task_on(tiny_models("vit"), "image-classification")
    path = write_table(tmp_path)
    damage(tmp_path / "pictures" / "bright" / "1.png")
    with pytest.raises(DataError, match="row 2") as refusal:
        task.load(path, unit="record")
    assert refusal.value.code == "failed"
    assert task.load(path, unit="record", on_bad_row="skip").records == 2


def test_an_image_of_too_many_pixels_is_a_bad_row(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("vit"), "image-classification")
    path = write_table(tmp_path)
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, format="PNG")
    assert len(buffer.getvalue()) < 20_000
    (tmp_path / "pictures" / "dark" / "2.png").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="row 3"):
        task.load(path, unit="record")


def test_an_unknown_subfolder_and_an_empty_one(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("vit"), "image-classification")
    folder = write_folder(tmp_path / "x")
    (folder / "unsure").mkdir()
    (folder / "unsure" / "9.png").write_bytes(png(seed=9))
    with pytest.raises(DataError, match="not named after a label"):
        task.load(folder, unit="record")
    assert task.load(folder, unit="record", on_bad_row="skip").records == 4
    with pytest.raises(EmptyFileError):
        task.load(tmp_path / "x" / "unsure", unit="record")
    with pytest.raises(DataError):
        task.load(tmp_path / "nothing", unit="record")


def test_pixels_are_those_of_the_models_own_processor(tiny_models, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    folder = tiny_models("vit")
    data = task_on(folder, "image-classification").load(write_table(tmp_path), unit="record")
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    image = Image.open(tmp_path / "pictures" / "bright" / "1.png").convert("RGB")
    expected = processor(images=[image], return_tensors="pt")["pixel_values"]
    for _ in range(2):  # prepared, then kept
        assert torch.equal(data.collate(np.array([1])).pixel_values, expected)


def test_a_model_without_an_image_processor_is_refused(tiny_models, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_models("vit"), tmp_path / "vit"))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"neither preprocessor_config\.json nor"):
        task_on(folder, "image-classification").synthetic()


@pytest.mark.parametrize("model_type", ["vit", "clip"])
def test_bright_and_dark_are_learned(tiny_models, tmp_path: Path, model_type: str) -> None:
    task = task_on(tiny_models(model_type), "image-classification", "head")
    data = task.load(write_folder(tmp_path / "x"), unit="record")
    model = task.build_model(seed=1)
    everyone = np.arange(4)
    losses = task.per_record_loss(model, data.collate(everyone))
    assert losses.tolist() == pytest.approx([math.log(2)] * 4)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.3)
    for _ in range(40):
        optimizer.zero_grad()
        task.per_record_loss(model, data.collate(everyone)).sum().backward()
        optimizer.step()
    metrics = task.evaluate(model, data, batch_size=3)
    assert metrics["accuracy"] == 1.0
    answers = task.predict(model, data, batch_size=3)
    assert [answer["label"] for answer in answers] == ["bright", "bright", "dark", "dark"]
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-6)
    json.dumps(answers)
