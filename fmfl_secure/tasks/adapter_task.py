"""Base of all tasks around their model: rounds, local data, and the adapter's files.

`make` builds one from settings. A run then calls, in this order: `build_model`; `begin_round`,
which lays out what a round trains; `load` for a site's data and `collate` of what that gives;
`per_record_loss`; and at the end `save_adapter`, which `export` reads again by `open_adapter`. A
kind of task adds what it reads of a row and what its loss and metrics are.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from fmfl_secure.data import (
    Field,
    OnBadRow,
    PictureCheck,
    Records,
    check_header,
    check_pictures,
    check_rows,
    pool_records,
    read_records,
)
from fmfl_secure.errors import ModelError
from fmfl_secure.measures import Outcomes
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapter_files import HEAD_FILE, load_head, save_files
from fmfl_secure.models.adapters import (
    adapter_of,
    adapter_tensors,
    set_adapter_tensors,
)
from fmfl_secure.models.adapters.files import AS_WRITTEN
from fmfl_secure.models.block_weights import block_kinds
from fmfl_secure.models.layout import Layout
from fmfl_secure.models.personal import belongs_to, personal_names, set_personal
from fmfl_secure.models.provenance import hub_id, licence
from fmfl_secure.models.rounds import begin_round, distinct_rounds
from fmfl_secure.outside import MOST_DOCUMENT, parse_json, read_regular, read_settings
from fmfl_secure.settings.types import HEAD_PART, WeightType
from fmfl_secure.tasks.base import TaskData
from fmfl_secure.tasks.task_model import Settings, TaskModel
from fmfl_secure.vectors.adapter_line import EARLIER_FILE

TASK_FILE = "task.json"
PERSONAL = "personal"  # of it: names of the tensors that stayed at the sites


@dataclass(frozen=True, slots=True)
class InitialAdapter:
    """An earlier adapter that training starts from.

    Attributes:
        folder: Its files, as `save_adapter` wrote them.
        line: The runs that made it, as `vectors.adapter_line` writes them.
        run: The last of them.
    """

    folder: Path
    line: str
    run: str = ""


@dataclass(frozen=True)
class AdapterTask(TaskModel[Settings]):
    """A task, bound to a base model and an adapter; see `TaskModel` besides.

    Attributes:
        continues: Other kinds of task whose adapters it goes on from.
        initial: The adapter that training starts from; None for a fresh one.
    """

    continues: ClassVar[tuple[str, ...]] = ()

    initial: InitialAdapter | None = None

    @property
    def distinct_rounds(self) -> tuple[int, ...]:
        """One round of each sort that differs in what it trains."""
        return distinct_rounds(self.adapter)

    @property
    def own_parts_of(self) -> str:
        """The run whose sites' own parts it goes on from; empty where none kept any."""
        if self.initial is None:
            return ""
        return self.initial.run if self._kept_at_sites(self.initial.folder) else ""

    def build_model(self, *, seed: int) -> AdaptedModel:
        """Builds the model; random values come from the seed, and most adapters start as no change.

        Raises:
            ModelError: Base model, adapter and task do not go together.
        """
        model = self._fresh(seed)
        self.begin_round(model, 1)
        model = model.to(self.computation.device)
        if self.initial is not None:
            self._go_on_from(self.initial.folder, model)
        return model

    def load(
        self,
        path: Path,
        *,
        unit: str,
        on_bad_row: OnBadRow = "error",
        subgroups: Field | None = None,
    ) -> TaskData:
        """Reads and prepares local data.

        Raises:
            DataError: The data or a row of them are unusable.
        """
        return self.load_pooled([path], unit=unit, on_bad_row=on_bad_row, subgroups=subgroups)

    def load_pooled(
        self,
        paths: Sequence[Path],
        *,
        unit: str,
        on_bad_row: OnBadRow = "error",
        subgroups: Field | None = None,
    ) -> TaskData:
        """Reads several sites' data as if one had them all: for comparison, on public data.

        Raises:
            DataError: The data or a row of them are unusable.
        """
        parts = [
            self._read(path, unit=unit, on_bad_row=on_bad_row, subgroups=subgroups)
            for path in paths
        ]
        records = pool_records(parts)
        return replace(
            self._from_records(records),
            pooled=tuple(len(part.units) for part in parts),
            left_out=records.left_out,
            ids=records.ids,
            groups=np.array(records.beside, dtype=np.int64),
        )

    def begin_round(self, model: nn.Module, round_number: int) -> Layout:
        """Makes trainable what a round trains; returns the layout of its upload."""
        return begin_round(model, self.adapter, round_number)

    def save_adapter(self, model: nn.Module, folder: Path) -> None:
        """The adapter's files, the head, and how they belong together."""
        if not isinstance(model, AdaptedModel):
            raise ModelError("save_adapter got a model of another task")
        folder.mkdir(parents=True, exist_ok=True)
        save_files(model, self.adapter, self.base, folder)
        self.save_description(model, folder)
        if self.initial is not None:
            (folder / EARLIER_FILE).write_text(self.initial.line, encoding="utf-8")

    def save_description(self, model: AdaptedModel, folder: Path) -> None:
        """Write how an adapter's files belong together."""
        text = json.dumps(self._description(model), indent=2, ensure_ascii=False) + "\n"
        (folder / TASK_FILE).write_text(text, encoding="utf-8")

    @property
    def whole(self) -> Self:
        """The same task, of adapters of which no site keeps anything for itself."""
        return replace(self, adapter=replace(self.adapter, personal=()))

    def open_adapter(self, folder: Path, *, personal: Path | None = None) -> AdaptedModel:
        """Opens what `save_adapter` wrote, for inference; with a site's own parts, if any are.

        Raises:
            ModelError: The folder is not an adapter for this base model and task; or a site's own
                parts are missing, too many, or not those of it.
        """
        kept = self._kept_at_sites(folder)
        if kept and personal is None:
            parts = self.adapter.personal or kept
            raise ModelError(
                f"this adapter is not whole: every site kept its own {' and '.join(parts)}",
                hint="Name a site's with --personal: heads/RUN.safetensors in its folder.",
            )
        if personal is not None and not kept:
            raise ModelError(f"{personal} is of no use: the adapter in {folder} is whole")
        model = self._open_shared(folder)
        if personal is not None:
            try:
                data = read_regular(personal, most_bytes=MOST_DOCUMENT)
            except OSError as error:
                raise ModelError(f"cannot read {personal}: {error.strerror}") from error
            names = [name for name, _ in model.named_parameters() if belongs_to(name, kept)]
            set_personal(model, names, data)
        return model

    def _open_shared(self, folder: Path) -> AdaptedModel:
        """Open what all sites share; parts that they keep are as they were before training."""
        description = {**self._facts_of_0_1_0(), **_described(folder)}
        for key, value in self._identity().items():
            known = {"base_model_digest": self.base.digests, "task": (value, *self.continues)}
            if description.get(key) not in known.get(key, (value,)):
                raise ModelError(f"the adapter in {folder} was made with another {key}")
        encoder = self._load_rounded()
        features = self._features(encoder)
        place = self._place(encoder, self.architecture)
        adapted = adapter_of(self.adapter).open(place, self.adapter, folder)
        model = self._assemble(adapted, self._prefixes(encoder), features)
        if not any(belongs_to(name, (HEAD_PART,)) for name in self._kept_at_sites(folder)):
            load_head(model, folder / HEAD_FILE)
        return model.to(self.computation.device).eval()

    def _kept_at_sites(self, folder: Path) -> tuple[str, ...]:
        """Names of an adapter's tensors that stayed at the sites; empty where it is whole.

        Raises:
            ModelError: The folder is not a finished adapter.
        """
        description = _described(folder)
        if PERSONAL not in description:
            # Of 0.1.0, which could keep a head and nothing else, and did not write it down.
            gone = HEAD_PART in self.adapter.personal and not (folder / HEAD_FILE).is_file()
            return (f"{HEAD_PART}.weight", f"{HEAD_PART}.bias") if gone else ()
        return tuple(str(name) for name in description[PERSONAL])

    def check_source(self, path: Path, *, unit: str, subgroups: Field | None = None) -> None:
        """Requires of local data what can be known before a charge, whatever rows hold.

        Raises:
            DataError: They are not there, are damaged, are of no known form, lack a column, or
                hold no row, or no picture of a form that is read (docs/decisions/0001).
        """
        fields, readers = self._fields(path), self.settings.readers
        beside = [] if subgroups is None else [subgroups]
        check_header(path, [*fields, *beside], unit=unit, readers=readers)
        check_rows(path, fields, readers=readers)

    def check_pictures(self, path: Path, *, unit: str) -> PictureCheck:
        """Reads local pictures, unusable ones left out, and counts them.

        Raises:
            DataError: The data are unusable.
        """
        return check_pictures(self._read(path, unit=unit, on_bad_row="skip"))

    def said_of(self, data: TaskData) -> tuple[str, ...]:  # noqa: ARG002
        """Says nothing of how data were read; a task that has something to say overrides it."""
        return ()

    def _go_on_from(self, folder: Path, model: AdaptedModel) -> None:
        """Give a fresh model the values of an earlier adapter.

        Raises:
            ModelError: It is not of this base model, task, kind and form, or gives other answers
                here than where it was made, as with another alpha.
        """
        kept = self._kept_at_sites(folder)
        if kept and list(kept) != personal_names(model, self.adapter.personal):
            raise ModelError(
                f"the adapter in {folder} is not whole: its sites kept parts for themselves that "
                "these settings share",
                hint="Set adapter.personal as in that run; or go on from an export of it with a "
                "site's --personal.",
            )
        opened = self._open_shared(folder)
        values = dict(opened.named_parameters())
        own = adapter_tensors(model)
        set_adapter_tensors(model, {name: values[name] for name in own if name in values})
        with torch.no_grad():
            there, here = self._said(opened), self._said(model.eval())
        if not torch.allclose(there, here, atol=1e-4, rtol=1e-4):
            raise ModelError(
                f"the adapter in {folder} answers otherwise with these settings than with its own",
                hint="Take rank, alpha, rank_stabilised, last_layers and target_modules from the "
                "run that made it.",
            )

    def _said(self, model: AdaptedModel) -> torch.Tensor:
        """What every model with one adapter says alike of made-up records, shape (records,)."""
        data = self.synthetic()  # its own: what is kept of them in memory is the model's
        return self.per_record_loss(model, data.collate(np.arange(data.records)))

    def _agree(self, values: Sequence[Any]) -> None:
        """Refuse a row whose values do not go together."""

    @abstractmethod
    def load_inputs(self, path: Path) -> TaskData:
        """Reads and prepares data to predict for, without what is to be predicted."""

    @abstractmethod
    def synthetic(self) -> TaskData:
        """Makes up a few records, of mixed and extreme lengths, for the admission gate."""

    @abstractmethod
    def per_record_loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """Computes one loss a record, shape (b,), each a function of that record alone."""

    @abstractmethod
    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """Computes the field's metrics; higher is better for the first one."""

    def outcomes(self, model: nn.Module, data: TaskData, *, batch_size: int) -> Outcomes:  # noqa: ARG002
        """Runs a model on each record, for the task's measures.

        Raises:
            ModelError: Of a task of another package it is not known.
        """
        raise ModelError(f"what a model of the task {self.kind!r} makes of a record is not known")

    @abstractmethod
    def predict(
        self, model: nn.Module, inputs: TaskData, *, batch_size: int
    ) -> list[dict[str, Any]]:
        """Makes one JSON-ready answer for each record, in order."""

    @abstractmethod
    def _fields(self, path: Path) -> list[Field]:
        """Lists the fields read of every row, in the order that `_from_records` takes them."""

    def _read(
        self,
        path: Path,
        *,
        unit: str,
        on_bad_row: OnBadRow,
        subgroups: Field | None = None,
    ) -> Records:
        """The records of a file or folder, with the columns that `_from_records` takes."""
        return read_records(
            path,
            self._fields(path),
            unit=unit,
            unit_rules=self.settings.unit_normalisation,
            on_bad_row=on_bad_row,
            check=self._agree,
            beside=subgroups,
            readers=self.settings.readers,
        )

    @abstractmethod
    def _from_records(self, records: Records) -> TaskData:
        """Records ready to train on."""

    def _identity(self) -> dict[str, Any]:
        """Returns the facts that an adapter must have been made with to be used here."""
        return {
            "base_model_digest": self.base.digest,
            "task": self.kind,
            "adapter": self.adapter.kind,
            **self._facts(),
        }

    def _facts(self) -> dict[str, Any]:
        """Returns the task's facts that an adapter is useless without, JSON-ready."""
        return {}

    def _facts_of_0_1_0(self) -> dict[str, Any]:
        """Facts that version 0.1.0 did not write, as they were."""
        return {}

    def _description(self, model: AdaptedModel) -> dict[str, Any]:
        scale = 1.0 if model.features is None else model.features.scale
        return {
            "format": 2,
            "base_model": self.base.name,
            "base_model_id": hub_id(self.base),
            "base_model_license": licence(self.base.path),
            "two_towers": len(self.architecture.towers) > 1,
            **self._identity(),
            "max_length": self.max_length,
            "padding": "max_length" if self.architecture.fixed_length else False,
            **({"weights": weights} if (weights := self._weights) != "float32" else {}),
            **({"feature_scale": scale} if scale != 1.0 else {}),
            **({PERSONAL: personal_names(model, own)} if (own := self.adapter.personal) else {}),
        }

    @property
    def _weights(self) -> WeightType:
        """The form of the base model's weights that the adapter was trained on."""
        return "blocks" if block_kinds(self.base.path) else self.computation.dtype


def _described(folder: Path) -> dict[str, Any]:
    """Reads `task.json`.

    Raises:
        ModelError: It is not there, or no object.
    """
    try:
        description = parse_json(read_settings(folder / TASK_FILE))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder} does not hold a finished adapter: {error}", hint=AS_WRITTEN
        ) from error
    if not isinstance(description, dict):
        raise ModelError(
            f"{folder} does not hold a finished adapter: {TASK_FILE} is no object", hint=AS_WRITTEN
        )
    return description
