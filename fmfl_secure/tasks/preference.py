"""Preference optimisation: of two answers to a prompt, the chosen one becomes the likelier one.

Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, Eq. 7). The reference is
the model as it was before training: the base model by itself, or with the adapter that training
started from.

`make` builds it and `finished_run` opens it again. A batch has both answers; the reference's part
is computed once a record and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from fmfl_secure.data import Field, Records, messages_field, read_records
from fmfl_secure.data.preferences import (
    Preference,
    preference_of,
    require_asked,
    turns_field,
)
from fmfl_secure.errors import ModelError
from fmfl_secure.measures import Preferences
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapters import adapter_tensors
from fmfl_secure.models.architectures import TaskNeeds
from fmfl_secure.models.batches import IGNORED, PreferenceBatch
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.models.referenced import ReferencedModel, Start
from fmfl_secure.settings.tasks import PreferenceSection
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.causal_lm import CausalLM, response_likelihoods
from fmfl_secure.tasks.chat_template import ChatTemplate
from fmfl_secure.tasks.prompts import Turn, Writer, Written, exchange
from fmfl_secure.tasks.texts import (
    lengths_of,
    padded_labels,
    padding_id,
    synthetic_lengths,
    synthetic_words,
    text_batch,
)

# Log-likelihoods that differ by less are told apart by how float32 rounds, if at all.
_ALIKE = 1e-3


@dataclass(frozen=True)
class PreferenceTask(CausalLM):
    """The task; see `AdapterTask`. It answers, talks and is exported as a causal LM does.

    A record is one pair. Both answers follow the same tokens: where one of them does not fit, the
    conversation loses its earliest exchanges for both, and then the prompt its end.

    Attributes:
        began: Tensors that a run began with, where it began with no fresh adapter and what it
            began with need not be at hand; None elsewhere.
    """

    needs = TaskNeeds(name="preference", modalities=("text",), causal=True, head=False)
    continues: ClassVar[tuple[str, ...]] = ("causal-lm",)
    _model_class: ClassVar[type[ReferencedModel]] = ReferencedModel

    settings: PreferenceSection
    began: Mapping[str, torch.Tensor] | None = None

    @override
    def build_model(self, *, seed: int) -> AdaptedModel:
        model = super().build_model(seed=seed)
        start = {name: tensor.clone() for name, tensor in adapter_tensors(model).items()}
        return self._beside(model, lambda: start)

    @override
    def open_adapter(self, folder: Path, *, personal: Path | None = None) -> AdaptedModel:
        # Asked for by figures alone: an answer does not wait for a second model.
        build = super().build_model
        return self._beside(
            super().open_adapter(folder, personal=personal),
            cache(lambda: adapter_tensors(build(seed=0))),
        )

    def _beside(self, model: AdaptedModel, start: Start) -> AdaptedModel:
        if not isinstance(model, ReferencedModel):
            raise ModelError("a preference is of a language model with its reference")
        began = self.began
        if began is not None:
            model.start = lambda: began
        elif self.initial is None and self._virtual_tokens:
            model.start = dict
        else:
            model.start = start
        return model

    def _said(self, model: AdaptedModel) -> torch.Tensor:
        data = self.prepare([exchange(*pair) for pair in zip(*self._made_up[:2], strict=True)])
        return super().per_record_loss(model, data.collate(np.arange(data.records)))

    def _fields(self, path: Path) -> list[Field]:  # noqa: ARG002
        own, chat = self.settings, self.settings.chat
        answers = [
            turns_field("chosen_column", own.chosen_column, "assistant", messages=chat),
            turns_field("rejected_column", own.rejected_column, "assistant", messages=chat),
        ]
        return [self._asked_field, *answers] if own.prompt_column else answers

    @property
    def _asked_field(self) -> Field:
        own = self.settings
        if own.prompt_column:
            return turns_field("prompt_column", own.prompt_column, "user", messages=own.chat)
        return messages_field(
            "chosen_column", own.chosen_column, answered=False, refuses=self._template.refuses
        )

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate(self.base.load_tokenizer())

    def _agree(self, values: Sequence[Any]) -> None:
        pair = preference_of(values[: 2 + bool(self.settings.prompt_column)])
        self._agree_to_ask([pair.asked])

    def _agree_to_ask(self, values: Sequence[Any]) -> None:
        require_asked(values[0], self._template.refuses if self.settings.chat else None)

    def _from_records(self, records: Records) -> TaskData:
        pairs = [preference_of(values) for values in zip(*records.columns, strict=True)]
        return self._pairs(pairs, records.units)

    def load_inputs(self, path: Path) -> TaskData:
        """Reads and prepares prompts alone.

        Raises:
            DataError: The file or a row of it is unusable.
        """
        records = read_records(
            path,
            [self._asked_field],
            check=self._agree_to_ask,
            readers=self.settings.readers,
        )
        return self._prepare([*records.columns[0]], records.units)

    @property
    def _made_up(self) -> list[list[str]]:
        """Prompts and two answers to each, of mixed lengths."""
        lengths = synthetic_lengths(self.max_length)
        texts = [synthetic_words(each) for each in (lengths, lengths[::-1])]
        texts.append([words[::-1] for words in (*texts[0][3:], *texts[0][:3])])
        return [[" ".join(words) for words in each] for each in texts]

    def synthetic(self) -> TaskData:
        """Makes up long prompts with short answers, the other way round, and several turns."""
        pairs = [Preference(exchange(p), c, r) for p, c, r in zip(*self._made_up, strict=True)]
        if self.settings.chat:
            pairs[1::2] = [
                pair._replace(asked=(*pair.asked, ("assistant", pair.rejected), *pair.asked))
                for pair in pairs[1::2]
            ]
        return self._pairs(pairs, one_unit_each(len(pairs)))

    def per_record_loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """-log s(beta (d - d_ref)), shape (b,), with d = log pi(chosen) - log pi(rejected).

        Likelihoods are of a whole answer with its end, and of nothing else of a row.
        """
        own, reference = self._differences(model, batch)
        return -nn.functional.logsigmoid(self.settings.beta * (own - reference))

    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """Share of pairs whose chosen answer has the higher implicit reward, and the mean margin.

        The implicit reward is beta (log pi - log pi_ref). A pair that model and reference see alike
        counts for a half, so that an untrained model has one half. `likelier` is the share of pairs
        whose chosen answer the model itself finds likelier, whatever the reference.
        """
        own, reference = self._compared(model, data, batch_size=batch_size)
        margins = self.settings.beta * (own - reference)
        return {
            "pair_accuracy": float(_ahead(own - reference).mean()),
            "likelier": float(_ahead(own).mean()),
            "margin": float(margins.mean()),
            "loss": float(np.logaddexp(0.0, -margins).mean()),
        }

    @override
    def outcomes(self, model: nn.Module, data: TaskData, *, batch_size: int) -> Preferences:  # type: ignore[override]
        own, reference = self._compared(model, data, batch_size=batch_size)
        return Preferences(
            losses=np.logaddexp(0.0, -self.settings.beta * (own - reference)),
            groups=data.groups if len(data.groups) else None,
            preferred=_ahead(own - reference),
        )

    def _compared(
        self, model: nn.Module, data: TaskData, *, batch_size: int
    ) -> NDArray[np.float64]:
        """What `_differences` gives for all records, shape (2, records)."""
        model.eval()
        found = np.zeros((2, data.records))
        with torch.no_grad():
            for records in data.by_cost(batch_size):
                each = self._differences(model, data.collate(records))
                found[:, records] = torch.stack(each).double().cpu().numpy()
        return found

    def _differences(
        self, model: nn.Module, batch: PreferenceBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-likelihood of the chosen answer less the rejected one's, by model and reference.

        The reference's depends on a record alone, and is kept where there is room. Shape (b,) each.
        """
        if not isinstance(model, ReferencedModel):
            raise ModelError("a preference is of a language model with its reference")
        keys = [("reference", record) for record in batch.records]
        missing = [row for row, key in enumerate(keys) if key not in batch.cache]
        known = {row: batch.cache[key] for row, key in enumerate(keys) if key in batch.cache}
        if missing:
            computed = _difference(model.reference, batch, missing).cpu()
            for row, value in zip(missing, computed, strict=True):
                known[row] = value
                batch.cache.put(keys[row], value)
        reference = torch.stack([known[row] for row in range(len(keys))])
        own = _difference(model, batch, range(len(keys)))
        return own, reference.to(own.device)

    def _pairs(self, pairs: Sequence[Preference], units: Sequence[NDArray[np.int64]]) -> TaskData:
        padding, kept = padding_id(self.base.load_tokenizer()), RecordCache(self.cache_bytes)
        writer = self._writer()
        written = [[*_written(writer, pair)] for pair in pairs]
        sides = [self._rows([both[place] for both in written]) for place in (0, 1)]

        def collate(records: NDArray[np.int64]) -> PreferenceBatch:
            chosen, rejected = (
                text_batch(
                    [rows[record] for record in records],
                    padded_labels(labels, IGNORED)(records),
                    records,
                    padding=padding,
                    cache=kept,
                )
                for rows, labels in sides
            )
            return PreferenceBatch(
                **vars(chosen),
                rejected_input_ids=rejected.input_ids,
                rejected_attention_mask=rejected.attention_mask,
                rejected_labels=rejected.labels,
            ).to(self.computation.device)

        return TaskData(
            collate=collate,
            units=units,
            record_cost=np.maximum(*(lengths_of(rows) for rows, _ in sides)),
            shortened=sum(any(each.cut for each in both) for both in written),
            lengths=np.array([max(e.length for e in both) for both in written], dtype=np.int64),
        )


def _difference(model: Any, batch: PreferenceBatch, rows: Sequence[int]) -> torch.Tensor:
    """Log-likelihood of chosen answers less that of rejected ones, of some rows; shape (rows,)."""
    chosen, rejected = (response_likelihoods(model, each) for each in batch.answers(rows))
    return chosen - rejected


def _ahead(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the chosen answer is ahead, 0 where the other one is, a half where neither is."""
    alike = np.abs(differences) < _ALIKE
    return np.where(alike, 0.5, (differences > 0).astype(np.float64))


def _written(writer: Writer, pair: Preference) -> Iterator[Written]:
    """Both answers behind the same tokens, of which nothing is learned."""
    asked, length = pair.asked, [0, 0]
    while True:
        both = [writer((*asked, ("assistant", each))) for each in (pair.chosen, pair.rejected)]
        length = [max(*each) for each in zip(length, (one.length for one in both), strict=True)]
        system = asked[:1] if asked[0][0] == "system" else ()
        cut = any(each.cut for each in both)
        if not cut or len(asked) == len(system) + 1:
            break
        asked = (*system, *asked[len(system) + 2 :])
    # Of two prompts that had to be cut, the shorter one is the beginning of the other.
    before = min((each.turns[-1].before for each in both), key=len)
    for each, whole in zip(both, length, strict=True):
        earlier = [token for turn in each.turns[:-1] for token in (*turn.before, *turn.after)]
        shortened = cut or asked is not pair.asked
        yield Written((Turn([*earlier, *before], each.turns[-1].after),), shortened, whole)
