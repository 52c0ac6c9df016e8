"""Image and text pairs: losses of one pair alone, InfoNCE refused where it cannot be private."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support import settings
from task_cases import TASKS, randomise, task_on
from tiny_models import png

from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.tasks import ImageTextSection
from privacy import AdmissionError
from privacy.mechanism.admission import check_admission

CAPTIONS = ("alpha beta", "nu xi", "gamma", "rho rho rho")


def write_pairs(folder: Path, *, labels: bool = False) -> Path:
    rows = []
    for number, caption in enumerate(CAPTIONS):
        (folder / f"{number}.png").write_bytes(png(seed=number, bright=bool(number % 2)))
        rows.append(f"{number}.png,{caption},{('no', 'yes')[number % 2]}")
    path = folder / "pairs.csv"
    path.write_text("image,text,label\n" + "\n".join(rows) + "\n", "utf-8")
    return path


def gate(task, loss) -> None:
    data = task.synthetic()
    check_admission(
        task.build_model(seed=1),
        loss=loss,
        collate=data.collate,
        records=data.records,
        physical_batch_size=8,
    )


@pytest.mark.parametrize("model_type", ["clip", "siglip"])
@pytest.mark.parametrize("loss", ["sigmoid", "cosine"])
def test_a_loss_is_that_of_one_pair_alone(tiny_models, model_type: str, loss: str) -> None:
    section = TASKS["image-text"] if loss == "sigmoid" else ImageTextSection(loss="cosine")
    task = task_on(tiny_models(model_type), section)
    model = task.build_model(seed=1).eval()
    randomise(model)
    data = task.synthetic()
    with torch.no_grad():
        together = task.per_record_loss(model, data.collate(np.arange(data.records)))
        for record in range(data.records):
            alone = task.per_record_loss(model, data.collate(np.array([record])))[0]
            assert alone.item() == pytest.approx(together[record].item(), abs=1e-4)
    assert together.std() > 1e-3


def test_the_gate_refuses_info_nce(tiny_models) -> None:
    """The arm that accepts and the one that rejects differ in nothing but InfoNCE."""
    cosine = task_on(tiny_models("clip"), ImageTextSection(loss="cosine"))
    contrast = task_on(tiny_models("clip"), ImageTextSection(loss="info-nce"))
    gate(cosine, cosine.per_record_loss)

    def both(model, batch) -> torch.Tensor:
        # A pair alone has no InfoNCE at all, and its gradient has to be something.
        return cosine.per_record_loss(model, batch) + contrast.per_record_loss(model, batch)

    with pytest.raises(AdmissionError, match="couples the records of a batch"):
        gate(cosine, both)
    with pytest.raises(AdmissionError):
        gate(contrast, contrast.per_record_loss)


def test_settings_refuse_info_nce_under_privacy_with_the_reason(
    tiny_models, tmp_path: Path
) -> None:
    text = settings(tiny_models("clip"), adapter='kind = "lora"', plain=True)
    start, end = text.index("[task]"), text.index("[adapter]")
    section = '[task]\nkind = "image-text"\nloss = "info-nce"\n'
    path = tmp_path / "federation.toml"
    path.write_text(text[:start] + section + text[end:])
    with pytest.raises(ConfigError, match=r"1\.90 times the bound.*public anchors"):
        load_federation(path)
    path.write_text(path.read_text().replace("[privacy]", '[privacy]\nnoise = "none"'))
    assert load_federation(path).task.kind == "image-text"


def test_anchors_go_with_the_sigmoid_loss_alone() -> None:
    for data in (
        {"kind": "image-text"},
        {"kind": "image-text", "loss": "cosine", "anchors": ["a"]},
        {"kind": "image-text", "anchors": ["a", "a"]},
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(data, ImageTextSection)


def test_the_sigmoid_loss_is_the_one_worked_out_by_hand(tiny_models, tmp_path: Path) -> None:
    anchors = ("alpha beta", "zeta")  # the first pair's own text is the first anchor
    task = task_on(tiny_models("clip"), ImageTextSection(anchors=anchors))
    data = task.load(write_pairs(tmp_path), unit="record")
    model = task.build_model(seed=1).eval()
    batch = data.collate(np.array([0, 1]))
    assert batch.labels.tolist() == [0, -1]
    with torch.no_grad():
        images, texts = model(batch)
        losses = task.per_record_loss(model, batch).double()
        # An untrained adapter gives the base model's own embeddings, which the anchors are.
        assert torch.allclose(model.anchors[0], texts[0], atol=1e-5)

        def term(image, text, sign):
            return torch.log1p(torch.exp(-sign * (10 * (image @ text) - 10))).double()

        first = term(images[0], texts[0], 1) + term(images[0], model.anchors[1], -1)
        second = term(images[1], texts[1], 1) + sum(
            term(images[1], anchor, -1) for anchor in model.anchors
        )
    assert losses.tolist() == pytest.approx([first.item(), second.item()], abs=1e-4)


def test_anchors_are_constants_that_nobody_trains_or_sends(tiny_models) -> None:
    task = task_on(tiny_models("clip"), "image-text", "full")
    model = task.build_model(seed=1)
    assert "anchors" not in dict(model.named_parameters())
    layout = task.begin_round(model, 1)
    assert not any("anchor" in slot.name for slot in layout.slots)
    before = model.anchors.clone()
    randomise(model)
    assert torch.equal(model.anchors, before)
    assert not model.anchors.requires_grad


def test_recall_counts_the_right_neighbours(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("clip"), ImageTextSection(loss="cosine"))
    data = task.load(write_pairs(tmp_path), unit="record")
    eye = torch.eye(8)[:4]
    swapped = eye[[1, 0, 2, 3]]

    class Told(torch.nn.Module):
        def forward(self, batch):
            return eye[batch.records], swapped[batch.records]

    metrics = task.evaluate(Told(), data, batch_size=3)
    assert list(metrics) == ["recall_at_1", "recall_at_5", "loss"]
    assert metrics["recall_at_1"] == pytest.approx(2 / 4)
    assert metrics["recall_at_5"] == 1.0
    assert metrics["loss"] == pytest.approx((1 + 1 + 0 + 0) / 4)
    answers = task.predict(Told(), data, batch_size=3)
    assert [answer["similarity"] for answer in answers] == [0.0, 0.0, 1.0, 1.0]


def test_image_and_text_both_matter_to_a_label(tiny_models, tmp_path: Path) -> None:
    task = task_on(tiny_models("clip"), "image-text-classification")
    data = task.load(write_pairs(tmp_path, labels=True), unit="record")
    assert data.labels.tolist() == [0, 1, 0, 1]
    model = task.build_model(seed=1).eval()
    randomise(model)
    batch = data.collate(np.array([0]))
    with torch.no_grad():
        own = model(batch)
        other = data.collate(np.array([1]))
        batch.records = [98]
        batch.pixel_values = other.pixel_values
        image_changed = model(batch)
        batch.records = [99]
        batch.input_ids, batch.attention_mask = other.input_ids, other.attention_mask
        both_changed = model(batch)
    assert not torch.allclose(own, image_changed)
    assert not torch.allclose(image_changed, both_changed)
