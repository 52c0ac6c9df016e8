"""Multi-label classification: a text, and any number of labels that hold of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from fmfl_secure.data import Field, label_set_field
from fmfl_secure.measures import LabelSets, Outcomes
from fmfl_secure.models.architectures import TaskNeeds
from fmfl_secure.models.batches import TextBatch
from fmfl_secure.settings.tasks import MultiLabelClassificationSection
from fmfl_secure.tasks.base import TaskData
from fmfl_secure.tasks.classification import logits_of
from fmfl_secure.tasks.text_task import TextTask


class MultiLabelClassification(TextTask[MultiLabelClassificationSection]):
    """The task; see `AdapterTask`.

    Every label is a question of its own, answered by a sigmoid: it holds from 0.5 on.
    """

    needs = TaskNeeds(name="multi-label-classification", modalities=("text",))
    problem_type = "multi_label_classification"

    def per_record_loss(self, model: nn.Module, batch: TextBatch) -> torch.Tensor:
        """Binary cross-entropy averaged over the labels, shape (b,)."""
        losses = nn.functional.binary_cross_entropy_with_logits(
            model(batch), batch.labels, reduction="none"
        )
        return losses.mean(dim=1)

    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """F1 over all labels together, its mean over those that occur, exact sets, mean loss."""
        logits = logits_of(model, data, batch_size=batch_size)
        truth, claimed = data.label_sets > 0, (logits >= 0).numpy()
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(data.label_sets)
        )
        occurring = truth.any(axis=0)
        by_label = [_f1(truth[:, n], claimed[:, n]) for n in np.flatnonzero(occurring)]
        return {
            "micro_f1": _f1(truth, claimed),
            "macro_f1": float(np.mean(by_label)) if by_label else _f1(truth, claimed),
            "subset_accuracy": float((truth == claimed).all(axis=1).mean()),
            "loss": float(loss),
        }

    @override
    def outcomes(self, model: nn.Module, data: TaskData, *, batch_size: int) -> Outcomes:
        logits = logits_of(model, data, batch_size=batch_size)
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits, torch.from_numpy(data.label_sets), reduction="none"
        )
        return LabelSets(
            losses=losses.mean(dim=1).double().numpy(),
            groups=data.groups if len(data.groups) else None,
            claimed=(logits >= 0).numpy(),
            truth=data.label_sets > 0,
        )

    def predict(
        self, model: nn.Module, inputs: TaskData, *, batch_size: int
    ) -> list[dict[str, Any]]:
        """The labels that hold of each record, and the probability of every label."""
        logits = logits_of(model, inputs, batch_size=batch_size)
        return [
            {
                "labels": [
                    name for name, one in zip(self.labels, row, strict=True) if float(one) >= 0
                ],
                "probabilities": dict(zip(self.labels, row.sigmoid().tolist(), strict=True)),
            }
            for row in logits
        ]

    @property
    def _label_field(self) -> Field:
        settings = self.settings
        return label_set_field(
            "label_column",
            settings.label_column,
            self.labels,
            settings.label_aliases,
            separator=settings.label_separator,
            none=settings.no_label,
        )

    def _targets(self, values: Sequence[list[int]]) -> NDArray[np.float32]:
        targets = np.zeros((len(values), len(self.labels)), dtype=np.float32)
        for record, own in enumerate(values):
            targets[record, own] = 1.0
        return targets

    def _synthetic_targets(self, records: int) -> NDArray[np.float32]:
        """None of the labels, one, some and all."""
        held = np.arange(records)[:, None] % (len(self.labels) + 1)
        return (np.arange(len(self.labels))[None, :] < held).astype(np.float32)


def _f1(truth: NDArray[np.bool_], claimed: NDArray[np.bool_]) -> float:
    """2 TP / (2 TP + FP + FN); 1 where there was nothing to find and nothing was claimed."""
    both = float(truth.sum() + claimed.sum())
    return 2.0 * float((truth & claimed).sum()) / both if both else 1.0
