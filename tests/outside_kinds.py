"""A researcher's own package, `acme-kinds`, as pip would install it: read by `test_extensions`."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from fmfl_secure.data.errors import MalformedRowError
from fmfl_secure.data.formats import FORMATS, TextFormat
from fmfl_secure.models.adapters import Adapter
from fmfl_secure.models.adapters.files import read_tensors, save_tensors, set_tensors, trainable
from fmfl_secure.models.architectures import TaskNeeds
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.tasks import TaskKind, TextClassification


class Query(Adapter):
    """Trains the bias of every query."""

    name = "acme-kinds:query"
    trains = "biases of queries"

    def refusal(self, architecture, task):
        return None if architecture.biases else ("it has no biases", "ffa-lora")

    def attach(self, place, spec):
        for layer in self.layers(place, spec):
            layer.attention.self.query.bias.requires_grad = True
        return place.encoder

    def save(self, encoder, base, folder):
        save_tensors(dict(trainable(encoder)), folder / "acme.safetensors")

    def open(self, place, spec, folder):
        encoder, path = self.attach(place, spec), folder / "acme.safetensors"
        set_tensors(trainable(encoder), read_tensors(path), path)
        return encoder

    def merge(self, encoder):
        return encoder


class Section(
    TextClassificationSection,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="acme-kinds:smooth",
):
    smoothing: float = 0.1


@dataclass(frozen=True)
class Smooth(TextClassification):
    """Text classification with smoothed labels."""

    needs: ClassVar[TaskNeeds] = TaskNeeds(name="acme-kinds:smooth", modalities=("text",))

    def per_record_loss(self, model, batch):
        return nn.functional.cross_entropy(
            model(batch), batch.labels, reduction="none", label_smoothing=self.settings.smoothing
        )


class CoupledSection(
    TextClassificationSection,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="acme-kinds:coupled",
):
    pass


@dataclass(frozen=True)
class Coupled(TextClassification):
    """What the gate is there for: a record's loss depends on the others of its batch."""

    needs: ClassVar[TaskNeeds] = TaskNeeds(name="acme-kinds:coupled", modalities=("text",))

    def per_record_loss(self, model, batch):
        losses = super().per_record_loss(model, batch)
        return losses + 3.0 * (losses.sum() - losses)


class Impostor(Query):
    """Under another name than its own, a policy that names it would be asked of something else."""

    name = "acme-kinds:query"


class Columns(TextFormat):
    """Lines of a text and a label, each of a fixed width; read as the CSV that they come to."""

    name = "acme-kinds:columns"
    suffixes = (".fixed",)
    known_by = "its name"
    columns_from = "the form itself"
    refuses = ("lines of another width",)

    def parse(self, path, data):
        csv = [b"text,label"]
        for number, line in enumerate(data.splitlines()[1:], 1):
            if len(line) != 84:
                raise MalformedRowError("not 84 bytes", hint="pad it", path=path, row=number)
            csv.append(line[:80].strip() + b"," + line[80:].strip())
        return FORMATS.get("CSV").parse(path, b"\n".join(csv) + b"\n")


class Careless(Columns):
    """Fails by whatever Python raises, and tells what it read."""

    name = "acme-kinds:careless"
    suffixes = (".careless",)

    def parse(self, path, data):
        raise ValueError(f"cannot read {data!r}")


class Usurper(Columns):
    """Would read everybody's CSV files."""

    name = "acme-kinds:usurper"
    suffixes = (".fixed2", ".csv")


QUERY = Query()
COLUMNS, CARELESS, USURPER = Columns(), Careless(), Usurper()
SMOOTH = TaskKind(Section, Smooth)
COUPLED = TaskKind(CoupledSection, Coupled)
IMPOSTOR = Impostor()
NOTHING = torch.zeros(1)
