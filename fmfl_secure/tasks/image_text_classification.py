"""Image-text classification: an image and a text together, one label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from typing_extensions import override

from fmfl_secure.data import Field, Records, image_field, read_records, text_field
from fmfl_secure.models.architectures import Modality, TaskNeeds
from fmfl_secure.models.classifiers import PairClassifier
from fmfl_secure.models.features import Features
from fmfl_secure.models.prefix import FrozenPrefix
from fmfl_secure.settings.tasks import ImageTextClassificationSection
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.classification import ClassificationTask
from fmfl_secure.tasks.pairs import PairTask


class ImageTextClassification(
    ClassificationTask[ImageTextClassificationSection], PairTask[ImageTextClassificationSection]
):
    """Classification of images with their texts; see `AdapterTask`."""

    needs = TaskNeeds(name="image-text-classification", modalities=("image", "text"), together=True)

    _reads = "embeddings of image and text, unit L2 norm each"

    def _fields(self, path: Path) -> list[Field]:
        return [
            *self._pair_fields(path),
            self._label_field,
        ]

    def _from_records(self, records: Records) -> TaskData:
        images, texts, labels = records.columns
        return self.prepare_pairs(images, texts, self._indices(labels), records.units)

    def load_inputs(self, path: Path) -> TaskData:
        """Reads and prepares pairs, without labels.

        Raises:
            DataError: The file or a row of it is unusable.
        """
        records = read_records(path, self._pair_fields(path), readers=self.settings.readers)
        images, texts = records.columns
        labels = np.zeros(len(images), dtype=np.int64)
        return self.prepare_pairs(images, texts, labels, records.units)

    @override
    def synthetic(self) -> TaskData:
        images, texts = self.synthetic_pairs(self.max_length)
        labels = np.arange(len(images), dtype=np.int64) % len(self.labels)
        return self.prepare_pairs(images, texts, labels, one_unit_each(len(images)))

    def _pair_fields(self, path: Path) -> list[Any]:
        return [
            image_field(
                "image_column", self.settings.image_column, path.parent, self.settings.image_window
            ),
            text_field("text_column", (self.settings.text_column,)),
        ]

    def _assemble(
        self,
        adapted: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None,
    ) -> PairClassifier:
        width = self._feature_width("image") + self._feature_width("text")
        return PairClassifier(adapted, prefixes, features, width=width, classes=len(self.labels))
