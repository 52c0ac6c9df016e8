"""Image classification: an image, one label; from a folder by label or a table of paths.

`make` builds it from settings, and `signal` asks it for made-up pictures whose label can be told.
Pictures are prepared when a batch first has them; pixels and frozen layers' outputs share a cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from fmfl_secure.data import (
    Field,
    OnBadRow,
    Records,
    check_forms,
    check_image_folder,
    claimed,
    image_field,
    read_image_folder,
    read_records,
)
from fmfl_secure.data.errors import DataArgumentError
from fmfl_secure.models.architectures import Modality, TaskNeeds
from fmfl_secure.models.batches import ImageBatch
from fmfl_secure.models.classifiers import ImageClassifier
from fmfl_secure.models.features import AtUnitNorm, Features
from fmfl_secure.models.prefix import FrozenPrefix, RecordCache
from fmfl_secure.outside import is_folder
from fmfl_secure.settings.tasks import ImageClassificationSection
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.classification import ClassificationTask
from fmfl_secure.tasks.pictures import Pictures, synthetic_images, telling_images


class ImageClassification(ClassificationTask[ImageClassificationSection]):
    """Classification of images; see `AdapterTask`."""

    needs = TaskNeeds(name="image-classification", modalities=("image",))
    answers_for = "image"

    _reads = "first token or the tower's embedding, unit L2 norm"

    def _read(
        self,
        path: Path,
        *,
        unit: str,
        on_bad_row: OnBadRow,
        subgroups: Field | None = None,
    ) -> Records:
        """A folder has a subfolder for each label, a table two columns."""
        if self._is_picture_folder(path):
            _refuse_subgroups(path, subgroups)
            return read_image_folder(
                path,
                labels=self.labels,
                unit=unit,
                on_bad_row=on_bad_row,
                aliases=self.settings.label_aliases,
                unit_rules=self.settings.unit_normalisation,
                window=self.settings.image_window,
            )
        return super()._read(
            path,
            unit=unit,
            on_bad_row=on_bad_row,
            subgroups=subgroups,
        )

    def _is_picture_folder(self, path: Path) -> bool:
        """Whether data are pictures in subfolders, and not a folder that is a table."""
        return is_folder(path) and not claimed(path, self.settings.readers)

    def _fields(self, path: Path) -> list[Field]:
        return [
            self._image_field(path),
            self._label_field,
        ]

    def check_source(self, path: Path, *, unit: str, subgroups: Field | None = None) -> None:
        """Requires a column of pictures, or a subfolder of a label; and a picture that is read.

        Raises:
            DataError: The data are not there, are damaged, or lack one of these.
        """
        if self._is_picture_folder(path):
            aliases = self.settings.label_aliases
            check_image_folder(path, self.labels, unit=unit, aliases=aliases)
            _refuse_subgroups(path, subgroups)
            check_forms(path)
        else:
            super().check_source(path, unit=unit, subgroups=subgroups)

    def _from_records(self, records: Records) -> TaskData:
        images, labels = records.columns
        return self._prepare(images, self._indices(labels), records.units)

    def load_inputs(self, path: Path) -> TaskData:
        """Reads pictures to predict for: a folder's own files, or a table.

        Raises:
            DataError: The data or a row of them are unusable.
        """
        if self._is_picture_folder(path):
            records = read_image_folder(
                path,
                labels=None,
                unit="record",
                on_bad_row="error",
                window=self.settings.image_window,
            )
        else:
            records = read_records(path, [self._image_field(path)], readers=self.settings.readers)
        images = records.columns[0]
        data = self._prepare(images, np.zeros(len(images), dtype=np.int64), records.units)
        return replace(data, left_out=records.left_out)

    @override
    def synthetic(self) -> TaskData:
        images = synthetic_images()
        labels = np.arange(len(images), dtype=np.int64) % len(self.labels)
        return self._prepare(images, labels, one_unit_each(len(images)))

    def synthetic_topics(self, records: int) -> TaskData:
        """Images made up whose labels can be told: some patches are their label's own.

        Args:
            records: How many; labels are as often as each other.
        """
        labels = np.arange(records, dtype=np.int64) % len(self.labels)
        return self._prepare(telling_images(labels), labels, one_unit_each(records))

    def _image_field(self, path: Path) -> Any:
        return image_field(
            "image_column", self.settings.image_column, path.parent, self.settings.image_window
        )

    def _prepare(
        self,
        images: Sequence[bytes],
        labels: NDArray[np.int64],
        units: Sequence[NDArray[np.int64]],
    ) -> TaskData:
        cache = RecordCache(self.cache_bytes)
        pictures = Pictures(self.base, images, cache)

        def collate(records: NDArray[np.int64]) -> ImageBatch:
            return ImageBatch(
                pixel_values=pictures.pixel_values(records),
                labels=torch.from_numpy(labels[records]),
                records=records.tolist(),
                cache=cache,
            ).to(self.computation.device)

        cost = np.ones(len(images), dtype=np.int64)
        return TaskData(collate=collate, units=units, record_cost=cost, labels=labels)

    def _features(self, encoder: nn.Module) -> Features | None:
        if "text" in self.architecture.towers and self.own_head is None:
            return None  # a two-tower model's embedding
        return super()._features(encoder) or AtUnitNorm("first")

    def _assemble(
        self,
        adapted: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None,
    ) -> ImageClassifier:
        return ImageClassifier(
            adapted,
            prefixes,
            features,
            width=self._feature_width("image"),
            classes=len(self.labels),
        )


def _refuse_subgroups(path: Path, subgroups: Field | None) -> None:
    if subgroups is not None:
        raise DataArgumentError(
            f"{subgroups.argument} is a column, and a folder of pictures has none",
            hint="write a table with the columns of path, label, unit and subgroup",
            path=path,
        )
