"""Text classification: a text column, a label column, one label a record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.models.architectures import TaskNeeds
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.tasks.text_task import TextTask


class TextClassification(TextTask[TextClassificationSection]):
    """The task; see `AdapterTask`."""

    needs = TaskNeeds(name="text-classification", modalities=("text",))
    problem_type = "single_label_classification"

    def _targets(self, values: Sequence[str]) -> NDArray[np.int64]:
        return self._indices(list(values))

    def _synthetic_targets(self, records: int) -> NDArray[np.int64]:
        return np.arange(records, dtype=np.int64) % len(self.labels)
