"""Image-text matching with two towers, and losses that depend on one pair alone.

CLIP's own loss (InfoNCE) compares every pair of a batch with every other: one record moves all
the losses, and under privacy of a record its sensitivity is not the clipping bound. Here a pair
is compared with itself, and with public anchor texts whose embeddings are constants.

`make` builds it from settings. Each tower is an adapted model of its own; a batch has both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from fmfl_secure.data import Field, Records, image_field, text_field
from fmfl_secure.measures import Pairs
from fmfl_secure.models.adapters import adapter_of
from fmfl_secure.models.architectures import Modality, TaskNeeds
from fmfl_secure.models.batches import PairBatch
from fmfl_secure.models.features import Features
from fmfl_secure.models.prefix import FrozenPrefix
from fmfl_secure.models.two_towers import TwoTowers
from fmfl_secure.settings.tasks import ImageTextSection
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.pairs import PairTask
from fmfl_secure.tasks.texts import pad, padding_id, rows_of_settings


class ImageText(PairTask[ImageTextSection]):
    """Matching of images and texts; see `AdapterTask`."""

    needs = TaskNeeds(name="image-text", modalities=("image", "text"), together=True)

    def _fields(self, path: Path) -> list[Field]:
        return [
            image_field(
                "image_column", self.settings.image_column, path.parent, self.settings.image_window
            ),
            text_field("text_column", (self.settings.text_column,)),
        ]

    def _from_records(self, records: Records) -> TaskData:
        images, texts = records.columns
        return self.prepare_pairs(images, texts, self._own_anchor(texts), records.units)

    def load_inputs(self, path: Path) -> TaskData:
        """Reads and prepares pairs to match.

        Raises:
            DataError: The file or a row of it is unusable.
        """
        return self.load(path, unit="record")

    @override
    def synthetic(self) -> TaskData:
        images, texts = self.synthetic_pairs(self.max_length)
        return self.prepare_pairs(images, texts, self._own_anchor(texts), one_unit_each(len(texts)))

    def per_record_loss(self, model: nn.Module, batch: PairBatch) -> torch.Tensor:
        """The loss of each pair, shape (b,).

        `sigmoid` is SigLIP's (arXiv 2303.15343, Eq. 1) of one image against its own text and the
        anchors: -log s(t c + b) for its text, -log s(-(t c + b)) for each anchor that is not the
        same text, with cosines c and public t and b. `cosine` is 1 - c. `info-nce` is CLIP's
        (arXiv 2103.00020), for runs without privacy: it depends on the whole batch.
        """
        images, texts = model(batch)
        settings = self.settings
        cosine: torch.Tensor = (images * texts).sum(dim=1)
        if settings.loss == "cosine":
            return 1.0 - cosine
        if settings.loss == "info-nce":
            own = torch.arange(len(images), device=images.device)
            logits = settings.logit_scale * images @ texts.T
            entropy = nn.functional.cross_entropy
            both = entropy(logits, own, reduction="none") + entropy(logits.T, own, reduction="none")
            halved: torch.Tensor = both / 2.0
            return halved
        attraction = self._log_sigmoid(cosine, sign=1.0)
        anchors: Any = model.anchors
        repulsion = self._log_sigmoid(images @ anchors.T, sign=-1.0)
        others = torch.arange(len(anchors), device=images.device) != batch.labels.unsqueeze(1)
        loss: torch.Tensor = -attraction - (repulsion * others).sum(dim=1)
        return loss

    def _log_sigmoid(self, cosine: torch.Tensor, *, sign: float) -> torch.Tensor:
        logits = self.settings.logit_scale * cosine + self.settings.logit_bias
        return nn.functional.logsigmoid(sign * logits)

    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """Recall at 1 and 5 among all the data's pairs, both ways averaged, and mean loss.

        Pairs with the same text are right for each other.
        """
        images, texts, losses = self._embed(model, data, batch_size=batch_size)
        similarity = images @ texts.T
        # By differences: the faster way over a product is not exact for two that are equal.
        exact = "donot_use_mm_for_euclid_dist"
        same = torch.cdist(texts, texts, compute_mode=exact) < 1e-4
        metrics = {}
        for top in (1, 5):
            found = _recall(similarity, same, top), _recall(similarity.T, same, top)
            metrics[f"recall_at_{top}"] = sum(found) / 2.0
        return {**metrics, "loss": float(losses.sum()) / data.records}

    @override
    def outcomes(self, model: nn.Module, data: TaskData, *, batch_size: int) -> Pairs:
        images, texts, losses = self._embed(model, data, batch_size=batch_size)
        cosines = (images * texts).sum(dim=1)
        nearest = torch.full_like(cosines, -1.0)
        anchors: Any = model.anchors.cpu()
        if len(anchors):
            others = torch.arange(len(anchors)) != torch.from_numpy(data.labels).unsqueeze(1)
            nearest = (images @ anchors.T).where(others, torch.tensor(-1.0)).max(dim=1).values
        return Pairs(
            losses=losses,
            groups=data.groups if len(data.groups) else None,
            cosines=cosines.double().numpy(),
            matched=(cosines > nearest).double().numpy(),
        )

    def predict(
        self, model: nn.Module, inputs: TaskData, *, batch_size: int
    ) -> list[dict[str, Any]]:
        """How similar each image and its text are: the cosine of their embeddings."""
        images, texts, _ = self._embed(model, inputs, batch_size=batch_size)
        return [{"similarity": float(value)} for value in (images * texts).sum(dim=1)]

    def _embed(
        self, model: nn.Module, data: TaskData, *, batch_size: int
    ) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.float64]]:
        """Embeddings of all records in order, and their losses."""
        model.eval()
        batches = data.by_cost(batch_size)
        images: list[torch.Tensor] = []
        texts: list[torch.Tensor] = []
        losses = np.zeros(data.records)
        with torch.no_grad():
            for records in batches:
                batch = data.collate(records)
                image, text = model(batch)
                images.append(image.cpu())
                texts.append(text.cpu())
                losses[records] = self.per_record_loss(model, batch).double().cpu().numpy()
        order = torch.from_numpy(np.argsort(np.concatenate(batches)))
        return torch.cat(images)[order], torch.cat(texts)[order], losses

    def _own_anchor(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The anchor that is each record's own text, -1 for none: it must not repel its image."""
        index_of = {text: index for index, text in enumerate(self.settings.anchors)}
        return np.array([index_of.get(text, -1) for text in texts], dtype=np.int64)

    def _facts(self) -> dict[str, Any]:
        return {"loss": self.settings.loss}

    def _assemble(
        self,
        adapted: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None,  # noqa: ARG002
    ) -> TwoTowers:
        width = self._feature_width("image")
        return TwoTowers(
            adapted,
            prefixes,
            width=width,
            probe=adapter_of(self.adapter).keeps_encoder,
            anchors=self._anchors(width),
        )

    def _anchors(self, width: int) -> torch.Tensor:
        """Embeddings of the anchors by the base model as it is; shape (anchors, width)."""
        if not self.settings.anchors:
            return torch.zeros(0, width)
        model: Any = self._load_encoder().eval()
        padding = padding_id(self.base.load_tokenizer())
        input_ids, mask = pad(
            rows_of_settings(self.tokenize(self.settings.anchors), "task.anchors", self.max_length),
            padding,
        )
        with torch.no_grad():
            features = model.get_text_features(input_ids=input_ids, attention_mask=mask)
        return nn.functional.normalize(features.pooler_output, dim=1)


def _recall(similarity: torch.Tensor, same: torch.Tensor, top: int) -> float:
    """Share of rows with a right column among the `top` most similar; shape (n, n) each."""
    chosen = similarity.topk(min(top, len(similarity)), dim=1).indices
    return float(same.gather(1, chosen).any(dim=1).float().mean())
