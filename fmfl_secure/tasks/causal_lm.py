"""Causal language modelling: a prompt column, a response column, and a loss on the response.

`make` builds the task and `preference` extends it. Records are written as tokens by `prompts`, or
by `chats` with a chat template; the model gives logits where a response is, and nowhere else.
`talk`, `finished_run` and `secrets` ask it for answers and for how surprising a given one is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from fmfl_secure.data import (
    Conversation,
    Field,
    Records,
    messages_field,
    optional_text_field,
    read_records,
    text_field,
)
from fmfl_secure.errors import ModelError
from fmfl_secure.measures import Responses
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.architectures import Modality, TaskNeeds, text_positions
from fmfl_secure.models.batches import IGNORED, TextBatch
from fmfl_secure.models.features import Features
from fmfl_secure.models.language import GREEDY, LanguageModel, Sampling
from fmfl_secure.models.prefix import FrozenPrefix, RecordCache
from fmfl_secure.settings.tasks import CausalLMSection
from fmfl_secure.tasks.adapter_task import AdapterTask
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.chat_template import ChatTemplate
from fmfl_secure.tasks.chats import ChatWriter
from fmfl_secure.tasks.classification import macro_f1
from fmfl_secure.tasks.prompts import PromptWriter, Writer, Written, beginning, exchange
from fmfl_secure.tasks.responses import WithEachResponse, chances
from fmfl_secure.tasks.texts import (
    lengths_of,
    padded_labels,
    padding_id,
    synthetic_lengths,
    synthetic_words,
    text_batches,
)

Logits: TypeAlias = Callable[..., torch.Tensor]
"""A `LanguageModel`, or another way to such logits."""


class CausalLM(AdapterTask[CausalLMSection]):
    """The task; see `AdapterTask`.

    A record is the filled template, the response, and the token that ends a text. The loss of a
    record is the mean over its own response: averaging over a batch's tokens would let a record's
    weight depend on the others' lengths. Where both do not fit, each is sure of half the room that
    the template leaves; a prompt is cut at its end, a response too, which then has no end token.
    """

    needs = TaskNeeds(name="causal-lm", modalities=("text",), causal=True, head=False)
    _model_class: ClassVar[type[LanguageModel]] = LanguageModel

    def _fields(self, path: Path) -> list[Field]:  # noqa: ARG002
        if self.settings.messages_column:
            return [self._messages(answered=True)]
        return [*self._asked(), text_field("response_column", (self.settings.response_column,))]

    def _messages(self, *, answered: bool) -> Field:
        return messages_field(
            "messages_column",
            self.settings.messages_column,
            answered=answered,
            refuses=ChatTemplate(self.base.load_tokenizer()).refuses,
        )

    def _asked(self) -> list[Field]:
        """Lists the fields that a prompt is made of."""
        fields = [text_field("prompt_column", (self.settings.prompt_column,))]
        if self.settings.input_column:
            fields.append(optional_text_field("input_column", self.settings.input_column))
        return fields

    def _from_records(self, records: Records) -> TaskData:
        if self.settings.messages_column:
            return self._prepare([*records.columns[0]], records.units)
        *asked, responses = records.columns
        answered = zip(_prompts(asked), responses, strict=True)
        return self._prepare([exchange(p, r) for p, r in answered], records.units)

    def load_inputs(self, path: Path) -> TaskData:
        """Reads and prepares prompts, without responses.

        Raises:
            DataError: The file or a row of it is unusable.
        """
        if self.settings.messages_column:
            records = read_records(
                path, [self._messages(answered=False)], readers=self.settings.readers
            )
            return self._prepare([*records.columns[0]], records.units)
        records = read_records(path, self._asked(), readers=self.settings.readers)
        return self._prepare([exchange(p) for p in _prompts(records.columns)], records.units)

    @override
    def synthetic(self) -> TaskData:
        """Long prompts with short responses, and the other way round."""
        lengths = synthetic_lengths(self.max_length)
        prompts = [" ".join(words) for words in synthetic_words(lengths)]
        responses = [" ".join(words) for words in synthetic_words(lengths[::-1])]
        records = [exchange(*each) for each in zip(prompts, responses, strict=True)]
        if self.settings.messages_column:  # some of several turns
            records[1::2] = [(*first, *first) for first in records[1::2]]
        return self._prepare(records, one_unit_each(len(records)))

    @override
    def per_record_loss(self, model: nn.Module, batch: TextBatch) -> torch.Tensor:
        return response_losses(model, batch)

    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """Share of responses that are predicted whole, accuracy of the next token, and losses.

        The token that ends a response counts for the first, which is what greedy decoding gets
        right, and for the losses; it is no token of the response for the second.

        Where responses are declared, first of all accuracy and macro F1 of the likeliest of them,
        as of labels; a record whose own is none of them is one that is missed.
        """
        scored = self._score(model, data, batch_size=batch_size)
        nll, tokens = float(scored.nll.sum()), int(scored.tokens.sum())
        of_responses: dict[str, float] = {}
        if data.answered is not None:
            right = data.answered.right
            said = self.likeliest(model, data, batch_size=batch_size)
            of_responses = {
                "accuracy": float((said == right).mean()),
                "macro_f1": macro_f1(said, right),
            }
        return of_responses | {
            "token_accuracy": int(scored.hits.sum()) / max(1, int(scored.own_tokens.sum())),
            "exact_match": int(scored.whole.sum()) / data.records,
            "perplexity": math.exp(min(nll / tokens, 700.0)),  # e^710 is infinite
            "loss": float((scored.nll / scored.tokens).sum()) / data.records,
        }

    @override
    def outcomes(self, model: nn.Module, data: TaskData, *, batch_size: int) -> Responses:
        scored = self._score(model, data, batch_size=batch_size)
        over: dict[str, NDArray[Any]] = {}
        if data.answered is not None:
            each = self._likelihoods(model, data.answered, batch_size=batch_size)
            over = {"probabilities": chances(each), "labels": data.answered.right}
        return Responses(
            **over,
            losses=scored.nll / scored.tokens,
            groups=data.groups if len(data.groups) else None,
            next_tokens=scored.hits / np.maximum(1.0, scored.own_tokens),
            whole=scored.whole,
        )

    def likeliest(self, model: nn.Module, data: TaskData, *, batch_size: int) -> NDArray[np.int64]:
        """The place of the declared response that is likeliest with its end, shape (records,)."""
        if data.answered is None:
            raise ModelError("task.responses declares none to choose from")
        each = self._likelihoods(model, data.answered, batch_size=batch_size)
        return np.asarray(each.argmax(axis=1), dtype=np.int64)

    def _likelihoods(
        self, model: nn.Module, answered: WithEachResponse, *, batch_size: int
    ) -> NDArray[np.float64]:
        """Logarithms for every record and response, shape (records, responses)."""
        data = answered.data()
        likelihoods = -self.surprise(model, data, batch_size=batch_size)
        return likelihoods.reshape(len(answered.records), len(answered.responses))

    def _score(self, model: nn.Module, data: TaskData, *, batch_size: int) -> _Scores:
        model.eval()
        end = self.end
        rows = np.zeros((5, data.records))
        with torch.no_grad():
            for records in data.by_cost(batch_size):
                batch = data.collate(records)
                logits, labels = _response_logits(model, batch)
                here = labels != IGNORED
                right = (logits.argmax(dim=-1) == labels) & here
                own = here & (labels != (IGNORED if end is None else end))
                found = (
                    _cross_entropy(logits, labels).sum(dim=1),
                    here.sum(dim=1),
                    (right & own).sum(dim=1),
                    own.sum(dim=1),
                    (right == here).all(dim=1),
                )
                rows[:, records] = torch.stack([each.double() for each in found]).cpu().numpy()
        return _Scores(*rows)

    def predict(
        self,
        model: nn.Module,
        inputs: TaskData,
        *,
        batch_size: int,
        sampling: Sampling = GREEDY,
    ) -> list[dict[str, Any]]:
        """A response to each prompt: the likeliest, token by token, or one that is drawn."""
        if not isinstance(model, LanguageModel):
            raise ModelError("predict got a model of another task")
        tokenizer, end = self.base.load_tokenizer(), self.end
        responses: list[dict[str, Any]] = [{} for _ in range(inputs.records)]
        model.eval()
        for number, records in enumerate(inputs.by_cost(batch_size)):
            batch = inputs.collate(records)
            prompts = [
                ids[own == 1]
                for ids, own in zip(batch.input_ids, batch.attention_mask, strict=True)
            ]
            # A prompt that leaves little room cuts its own answer short, and no other's.
            rooms = np.array([self._room_after(len(prompt)) for prompt in prompts])
            for room in np.unique(rooms).tolist():
                alike = np.flatnonzero(rooms == room).tolist()
                new = model.generate(
                    [prompts[place] for place in alike],
                    max_new_tokens=room,
                    padding=padding_id(tokenizer),
                    end=end,
                    sampling=replace(sampling, seed=sampling.seed + number),
                    tokenizer=tokenizer,
                )
                for place, ids in zip(alike, new, strict=True):
                    text = tokenizer.decode(ids, skip_special_tokens=True)
                    responses[records[place]] = {"response": sampling.before_stop(text).strip()}
        return responses

    def answer(
        self, model: nn.Module, conversation: Conversation, sampling: Sampling = GREEDY
    ) -> str:
        """Generates the model's next message in a conversation that ends with the user.

        Without `chat`, the last message is the prompt, and none before it is read.
        """
        asked = conversation if self.settings.chat else conversation[-1:]
        inputs = self.prepare([asked])
        (found,) = self.predict(model, inputs, batch_size=1, sampling=sampling)
        return str(found["response"])

    def prepare(self, records: Sequence[Conversation]) -> TaskData:
        """Prompts, with their responses or to be answered, that are in no file."""
        return self._prepare(records, one_unit_each(len(records)))

    def surprise(self, model: nn.Module, data: TaskData, *, batch_size: int) -> NDArray[np.float64]:
        """Negative log-likelihood of each record's response with its end, shape (records,)."""
        return self._score(model, data, batch_size=batch_size).nll

    def bare_model(self) -> LanguageModel:
        """The base model as it is, without an adapter."""
        return LanguageModel(self._load_rounded(), {}).to(self.computation.device).eval()

    def _prepare(
        self, records: Sequence[Conversation], units: Sequence[NDArray[np.int64]]
    ) -> TaskData:
        written = [*map(self._writer(), records)]
        rows, labels = self._rows(written)
        padding = padding_id(self.base.load_tokenizer())
        collate = text_batches(
            rows,
            padded_labels(labels, IGNORED),
            padding=padding,
            cache_bytes=self.cache_bytes,
            device=self.computation.device,
        )
        data = TaskData(
            collate=collate,
            units=units,
            record_cost=lengths_of(rows),
            shortened=sum(each.cut for each in written),
            lengths=np.array([each.length for each in written], dtype=np.int64),
        )
        if not self.settings.responses:
            return data
        answered = self._with_each_response(records)
        right = answered.right
        return replace(data, answered=answered, labels=right if (right >= 0).all() else data.labels)

    def _rows(self, written: Sequence[Written]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Token ids of each record, and of each token what is learned, or `IGNORED`."""
        rows: list[torch.Tensor] = []
        labels: list[torch.Tensor] = []
        for record in written:
            ids, learned = record.ids, record.learned
            if not record.turns[0].before:  # the model has to see something before it answers
                padding = padding_id(self.base.load_tokenizer())
                ids, learned = [padding, *ids], [False, *learned]
            row = torch.tensor(ids, dtype=torch.int64)
            rows.append(row)
            labels.append(torch.where(torch.tensor(learned), row, IGNORED))
        return rows, labels

    def _with_each_response(self, records: Sequence[Conversation]) -> WithEachResponse:
        return WithEachResponse(
            records,
            self.settings.responses,
            replace(self, cache_bytes=0).prepare,
            RecordCache(self.cache_bytes),
            range(len(records)),
        )

    def with_little_room(self, inputs: TaskData) -> int:
        """How many prompts leave the model room for fewer tokens than an answer may have."""
        wanted = self.settings.max_new_tokens
        return sum(self._room_after(length) < wanted for length in inputs.record_cost.tolist())

    def _room_after(self, prompt_tokens: int) -> int:
        """How long a response to a prompt of so many tokens may get, at least one token."""
        wanted, positions = (
            self.settings.max_new_tokens,
            text_positions(self.base.load_config(), self.architecture),
        )
        if positions is None:
            return wanted
        return max(1, min(wanted, positions - self._virtual_tokens - prompt_tokens))

    def _load_encoder(self) -> nn.Module:
        return self.base.load_language_model(self.computation.dtype)

    @property
    def end(self) -> int | None:
        """The token that ends a response."""
        return self._writer().end

    def _writer(self) -> Writer:
        """How records become token ids.

        Raises:
            ModelError: Template and tokenizer do not go together.
        """
        tokenizer = self.base.load_tokenizer()
        if self.settings.chat:
            return ChatWriter(
                tokenizer, ChatTemplate(tokenizer), self.settings.system, self.max_length
            )
        return PromptWriter(
            tokenizer,
            self.settings.read_template,
            self.max_length,
            before_response=self.settings.before_response,
        )

    def _facts(self) -> dict[str, Any]:
        tokenizer = self.base.load_tokenizer()
        if self.settings.chat:
            return {
                "chat_template": ChatTemplate(tokenizer).text,
                "system": self.settings.system.strip(),
                "end": self.end,
            }
        space = self.settings.before_response
        return {
            "template": self.settings.read_template,
            "beginning": beginning(tokenizer, self.settings.template),
            **({"before_response": space} if space else {}),
        }

    def _facts_of_0_1_0(self) -> dict[str, Any]:
        return {"beginning": self.base.load_tokenizer().bos_token or ""}

    def _require_assets(self) -> None:
        super()._require_assets()
        self._writer()

    def _assemble(
        self,
        adapted: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None,  # noqa: ARG002
    ) -> AdaptedModel:
        return self._model_class(adapted, prefixes)


class _Scores(NamedTuple):
    """Of each record, float64, shape (records,).

    Attributes:
        nll: Negative log-likelihood of all its tokens.
        tokens: How many these are, the one that ends it among them.
        hits: Of the response's own tokens, those that were the likeliest.
        own_tokens: How many own ones there are.
        whole: 1 where all tokens were the likeliest.
    """

    nll: NDArray[np.float64]
    tokens: NDArray[np.float64]
    hits: NDArray[np.float64]
    own_tokens: NDArray[np.float64]
    whole: NDArray[np.float64]


def _response_logits(model: Logits, batch: TextBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of all responses' tokens and the tokens themselves, shapes (b, n, words) and (b, n).

    Shorter responses than the longest are filled up with `IGNORED`.
    """
    here = batch.labels != IGNORED
    # Of a batch whose work tells nothing, as long as a response can be.
    longest = batch.labels.shape[1] - 1 if batch.evenly else int(here.sum(dim=1).max())
    # A conversation's answers are several stretches: their places in order, and then others.
    places = torch.argsort(here.to(torch.uint8), dim=1, descending=True, stable=True)[:, :longest]
    labels = batch.labels.gather(1, places)
    return model(batch, positions=(places - 1).clamp(min=0)), labels


def _prompts(columns: Sequence[Sequence[str]]) -> Iterator[str]:
    """Prompts, each with what it is about behind it where there is something."""
    for prompt, *about in zip(*columns, strict=True):
        yield "\n\n".join([prompt, *filter(None, about)])


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each token, 0 where there is none; shape (b, n)."""
    return nn.functional.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none", ignore_index=IGNORED
    )


def response_likelihoods(model: Logits, batch: TextBatch) -> torch.Tensor:
    """Log-likelihood of each record's whole response with its end, shape (b,)."""
    return -_cross_entropy(*_response_logits(model, batch)).sum(dim=1)


def response_losses(model: Logits, batch: TextBatch) -> torch.Tensor:
    """Negative log-likelihood averaged over a record's own response, shape (b,)."""
    logits, labels = _response_logits(model, batch)
    tokens: torch.Tensor = (labels != IGNORED).sum(dim=1)
    return _cross_entropy(logits, labels).sum(dim=1) / tokens
