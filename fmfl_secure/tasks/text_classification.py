"""Text classification: a text column, a label column, one label a record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.data import read_text_dataset
from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import (
    AdapterSpec,
    attach_adapter,
    frozen_depth,
    load_peft_adapter,
    save_peft_adapter,
)
from fmfl_secure.models.architectures import architecture_of, find_layers
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.classifier import TextBatch, TextClassifier
from fmfl_secure.models.prefix import FrozenPrefix, PrefixCache
from fmfl_secure.tasks.base import TaskData

_HEAD_FILE = "head.safetensors"
_TASK_FILE = "task.json"
_SYNTHETIC_RECORDS = 8


@dataclass(frozen=True, slots=True)
class TextClassification:
    """The task, bound to a base model and an adapter.

    Attributes:
        base: The base model.
        adapter: Which adapter, where.
        text_columns: Names of the text column, the first one present is read.
        label_column: Name of the label column.
        labels: All labels in order. Given, never read off private data.
        max_length: Tokens kept of a text, >= 2.
        cache_bytes: Memory a data set may use to keep outputs of frozen layers.
    """

    base: BaseModel
    adapter: AdapterSpec
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    max_length: int
    cache_bytes: int
    kind: str = "text-classification"

    def build_model(self, *, seed: int) -> TextClassifier:
        """See `Task`; the A matrices come from the seed, B and the head are zero."""
        architecture_of(self.base.model_type)  # refuse one that is not known before loading it
        self._require_positions()
        encoder = self.base.load_encoder()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            depth = frozen_depth(encoder, self.base, self.adapter)
            adapted = attach_adapter(encoder, self.base, self.adapter)
        return self._classifier(encoder, adapted, depth)

    def _require_positions(self) -> None:
        """A text longer than the model's positions would fail in training, once it was paid for."""
        config = self.base.config
        positions = int(config.get("max_position_embeddings", self.max_length))
        if self.base.model_type == "roberta":  # its positions begin after the padding index
            positions -= int(config.get("pad_token_id", 1)) + 1
        if self.max_length > positions:
            raise ModelError(
                f"max_length is {self.max_length}, the base model has {positions} positions",
                hint=f"Set model.max_length to at most {positions}.",
            )

    def _classifier(self, encoder: nn.Module, adapted: nn.Module, depth: int) -> TextClassifier:
        prefix = None
        if depth and self.cache_bytes:
            layers = find_layers(encoder, architecture_of(self.base.model_type))
            prefix = FrozenPrefix(layers, depth)
        width = int(self.base.config["hidden_size" if "hidden_size" in self.base.config else "dim"])
        return TextClassifier(adapted, width=width, classes=len(self.labels), prefix=prefix)

    def load(
        self, path: Path, *, unit: str, on_bad_row: Literal["error", "skip"] = "error"
    ) -> TaskData:
        """See `Task`.

        Raises:
            DataError: The file or a row of it is unusable.
        """
        dataset = read_text_dataset(
            path,
            text_column=self.text_columns,
            label_column=self.label_column,
            labels=self.labels,
            unit=unit,
            on_bad_row=on_bad_row,
        )
        return self._prepare(dataset.texts, dataset.labels, dataset.units)

    def synthetic(self) -> TaskData:
        """See `Task`: from one word to far beyond `max_length`, with words the tokenizer splits."""
        generator = np.random.default_rng(20260101)
        words = np.array(["the", "patient", "reports", "pain", "zxqv", "1234567", "æøå", "."])
        lengths = [1, 2, 3, 5, 8, 13, 40, 2 * self.max_length][:_SYNTHETIC_RECORDS]
        texts = [" ".join(generator.choice(words, size=n)) for n in lengths]
        labels = np.arange(len(texts), dtype=np.int64) % len(self.labels)
        units = [np.array([i], dtype=np.int64) for i in range(len(texts))]
        return self._prepare(texts, labels, units)

    def _prepare(
        self, texts: Sequence[str], labels: NDArray[np.int64], units: Sequence[NDArray[np.int64]]
    ) -> TaskData:
        tokenizer = self.base.load_tokenizer()
        encoded = tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        padding = int(tokenizer.pad_token_id or 0)
        # Some tokenizers leave nothing of a text: the model still has to see something.
        tokens = [torch.tensor(ids or [padding], dtype=torch.int64) for ids in encoded]
        cache = PrefixCache(self.cache_bytes)

        def collate(records: NDArray[np.int64]) -> TextBatch:
            rows = [tokens[record] for record in records]
            input_ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
            lengths = torch.tensor([len(row) for row in rows])
            mask = (torch.arange(input_ids.shape[1]) < lengths.unsqueeze(1)).to(torch.int64)
            return TextBatch(
                input_ids=input_ids,
                attention_mask=mask,
                labels=torch.from_numpy(labels[records]),
                records=records.tolist(),
                cache=cache,
            )

        cost = np.array([len(ids) for ids in tokens], dtype=np.int64)
        return TaskData(collate=collate, units=units, record_cost=cost, labels=labels)

    def per_record_loss(self, model: nn.Module, batch: TextBatch) -> torch.Tensor:
        """Cross-entropy of each record, shape (b,)."""
        return nn.functional.cross_entropy(model(batch), batch.labels, reduction="none")

    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """Accuracy, macro F1 over the labels that occur, and mean loss."""
        order = np.argsort(data.record_cost, kind="stable")
        predicted = np.empty(data.records, dtype=np.int64)
        loss = 0.0
        model.eval()
        with torch.no_grad():
            for start in range(0, data.records, batch_size):
                records = order[start : start + batch_size]
                batch: TextBatch = data.collate(records)
                logits = model(batch)
                predicted[records] = logits.argmax(dim=1).numpy()
                loss += float(nn.functional.cross_entropy(logits, batch.labels, reduction="sum"))
        return {
            "accuracy": float((predicted == data.labels).mean()),
            "macro_f1": _macro_f1(predicted, data.labels),
            "loss": loss / data.records,
        }

    def save_adapter(self, model: nn.Module, folder: Path) -> None:
        """PEFT's two files for the encoder, the head, and how they belong together."""
        if not isinstance(model, TextClassifier):
            raise ModelError("save_adapter got a model of another task")
        folder.mkdir(parents=True, exist_ok=True)
        save_peft_adapter(model.encoder, folder)
        head = {n: p.detach().contiguous() for n, p in model.head.named_parameters()}
        safetensors.torch.save_file(head, folder / _HEAD_FILE)
        description: dict[str, Any] = {
            "format": 1,
            "task": self.kind,
            "base_model": self.base.name,
            "base_model_digest": self.base.digest,
            "labels": list(self.labels),
            "max_length": self.max_length,
            "pooling": "mean over own tokens, unit L2 norm",
        }
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        (folder / _TASK_FILE).write_text(text, encoding="utf-8")

    def open_adapter(self, folder: Path) -> TextClassifier:
        """See `Task`.

        Raises:
            ModelError: The folder is not an adapter for this base model and these labels.
        """
        try:
            description = json.loads((folder / _TASK_FILE).read_text(encoding="utf-8"))
            head = safetensors.torch.load_file(folder / _HEAD_FILE)
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise ModelError(f"{folder} does not hold a finished adapter: {error}") from error
        expected = {"base_model_digest": self.base.digest, "labels": list(self.labels)}
        for key, value in expected.items():
            if not isinstance(description, dict) or description.get(key) != value:
                raise ModelError(f"the adapter in {folder} was made with another {key}")
        encoder = self.base.load_encoder()
        depth = frozen_depth(encoder, self.base, self.adapter)
        adapted = encoder
        if self.adapter.kind != "head":
            adapted = load_peft_adapter(encoder, folder)
        model = self._classifier(encoder, adapted, depth)
        try:
            model.head.load_state_dict(head)
        except RuntimeError as error:
            raise ModelError(f"{folder / _HEAD_FILE} does not fit this model: {error}") from error
        return model.eval()


def _macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    scores = []
    for label in np.unique(labels):
        hit = float(((predicted == label) & (labels == label)).sum())
        scores.append(2.0 * hit / float((predicted == label).sum() + (labels == label).sum()))
    return float(np.mean(scores))
