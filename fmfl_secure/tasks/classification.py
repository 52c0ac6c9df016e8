"""One label a record, whatever the record is: loss, metrics and answers of every classifier."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from fmfl_secure.data import Field, label_field
from fmfl_secure.measures import Labelled, Outcomes
from fmfl_secure.settings.tasks import (
    ImageClassificationSection,
    ImageTextClassificationSection,
    TextClassificationSection,
)
from fmfl_secure.tasks.adapter_task import AdapterTask
from fmfl_secure.tasks.base import TaskData

Settings = TypeVar(
    "Settings",
    bound=TextClassificationSection | ImageClassificationSection | ImageTextClassificationSection,
)


class ClassificationTask(AdapterTask[Settings]):
    """Base of the tasks with one label a record."""

    _reads: ClassVar[str]  # what the head reads, in words

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the settings' order."""
        return self.settings.labels

    @property
    @override
    def answers(self) -> tuple[str, ...]:
        return self.labels

    def per_record_loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """Cross-entropy of each record, by its label's declared weight where there are weights.

        Shape (b,). Figures are of the cross-entropy alone.
        """
        losses = nn.functional.cross_entropy(model(batch), batch.labels, reduction="none")
        weights = self.settings.label_weights
        if not weights:
            return losses
        return losses * torch.tensor(weights, device=losses.device)[batch.labels]

    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """Accuracy, macro F1 over the labels that occur, and mean loss."""
        logits = logits_of(model, data, batch_size=batch_size)
        predicted = logits.argmax(dim=1).numpy()
        loss = nn.functional.cross_entropy(logits, torch.tensor(data.labels))
        return {
            "accuracy": float((predicted == data.labels).mean()),
            "macro_f1": macro_f1(predicted, data.labels),
            "loss": float(loss),
        }

    @override
    def outcomes(self, model: nn.Module, data: TaskData, *, batch_size: int) -> Outcomes:
        logits = logits_of(model, data, batch_size=batch_size)
        losses = nn.functional.cross_entropy(logits, torch.tensor(data.labels), reduction="none")
        return Labelled(
            losses=losses.double().numpy(),
            groups=data.groups if len(data.groups) else None,
            probabilities=logits.softmax(dim=1).double().numpy(),
            labels=data.labels,
        )

    def predict(
        self, model: nn.Module, inputs: TaskData, *, batch_size: int
    ) -> list[dict[str, Any]]:
        """Each record's label, and the probability of every label."""
        probabilities = logits_of(model, inputs, batch_size=batch_size).softmax(dim=1)
        return [
            {
                "label": self.labels[int(row.argmax())],
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }
            for row in probabilities
        ]

    def _facts(self) -> dict[str, Any]:
        own = self.own_head
        return {
            "labels": list(self.labels),
            "features": self._reads if own is None else own.said,
        }

    @property
    def _label_field(self) -> Field:
        settings = self.settings
        return label_field(
            "label_column", settings.label_column, self.labels, settings.label_aliases
        )

    def _indices(self, labels: list[str]) -> NDArray[np.int64]:
        index_of = {name: index for index, name in enumerate(self.labels)}
        return np.array([index_of[label] for label in labels], dtype=np.int64)


def macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The mean of the F1 scores of the labels that occur; -1 is no label, and 0 where none does."""
    scores = [] if (labels >= 0).any() else [0.0]
    for label in np.unique(labels[labels >= 0]):
        hit = float(((predicted == label) & (labels == label)).sum())
        scores.append(2.0 * hit / float((predicted == label).sum() + (labels == label).sum()))
    return float(np.mean(scores))


def logits_of(model: nn.Module, data: TaskData, *, batch_size: int) -> torch.Tensor:
    """Logits of all records in order, shape (records, classes)."""
    model.eval()
    parts: list[torch.Tensor] = []
    batches = data.by_cost(batch_size)
    with torch.no_grad():
        parts = [model(data.collate(records)) for records in batches]
    logits = torch.cat(parts).cpu()
    return logits[torch.from_numpy(np.argsort(np.concatenate(batches)))]
