"""The task that settings describe, on its base model, and what a run of it starts from.

Sites and commands (`cli.federation`) begin here: `allow_extensions` before other packages' code
runs, then `build_task`. A server has no base model and gets what it starts from by
`make_start_file`.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fmfl_secure.data.formats.registry import require_readers
from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.models import AdapterSpec, Layout, find_base_model
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes, require_adapter
from fmfl_secure.models.computation import Computation, find_device
from fmfl_secure.models.provenance import licence
from fmfl_secure.planning.adapter_template import adapter_files
from fmfl_secure.planning.answers import answer_grid, answer_layout
from fmfl_secure.planning.plans import quantization
from fmfl_secure.planning.warm_start import find_initial
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.settings.site import SiteConfig
from fmfl_secure.tasks import Task, make_task
from fmfl_secure.vectors.adapter import adapter_digest
from fmfl_secure.vectors.candidates import split_candidates
from fmfl_secure.vectors.layout import FlatLayout
from fmfl_secure.vectors.start import RunStart
from fmfl_secure.vectors.start_file import write_start
from privacy import check_extensions


def allow_extensions(config: FederationConfig, site: SiteConfig) -> None:
    """Return if a site's policy lets the other packages' code of these settings run.

    To be asked before `build_task`, which imports it.

    Raises:
        PolicyRefusal: It does not.
    """
    check_extensions(site.policy, config.extensions)


def build_task(config: FederationConfig, *, relative_to: Path) -> Task:
    """The task that the settings describe, with its base model found and checked.

    Imports other packages' code where the settings name it.

    Raises:
        ConfigError: That code is not installed here, or does not go with the settings.
        ModelError: The base model is missing, unsafe, or another than pinned; or the adapter to
            start from does not say what it cost.
    """
    require_readers(config.task.readers)
    base = find_base_model(config.model.base, digest=config.model.digest, relative_to=relative_to)
    adapter = AdapterSpec(
        kind=config.adapter.kind,
        rank=config.adapter.rank,
        alpha=config.adapter.alpha,
        last_layers=config.adapter.last_layers,
        target_modules=config.adapter.target_modules,
        rank_stabilised=config.adapter.rank_stabilised,
        virtual_tokens=config.adapter.virtual_tokens,
        personal=config.adapter.personal_parts,
        layer_groups=config.adapter.layer_groups,
    )
    return make_task(
        config.task,
        base=base,
        adapter=adapter,
        max_length=config.model.max_length,
        cache_bytes=config.training.cache_mib << 20,
        computation=Computation(
            dtype=config.model.dtype,
            checkpointing=config.training.checkpointing,
            device=find_device(config.training.device),
        ),
        initial=find_initial(config, relative_to=relative_to),
    )


def largest_layout(task: Task, model: nn.Module) -> Layout:
    """The layout of the round that trains most, where rounds differ; leaves the model at one."""
    layouts = (task.begin_round(model, number) for number in task.distinct_rounds)
    return max(layouts, key=lambda layout: layout.size)


def kept_size(task: Task, model: nn.Module) -> int:
    """How many trained numbers stay at each site, over all rounds; leaves the model at one."""
    sizes: dict[str, int] = {}
    for number in task.distinct_rounds:
        uploaded = {slot.name for slot in task.begin_round(model, number).slots}
        sizes |= {
            name: parameter.numel()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name not in uploaded
        }
    return sum(sizes.values())


def start_of(
    config: FederationConfig, task: Task, model: nn.Module, *, adapter: bytes = b""
) -> RunStart:
    """Collects everything that a run starts from.

    Args:
        config: The federation's settings.
        task: The task that they describe.
        model: A fresh model of it, from the settings' seed; left at the first round.
        adapter: What is asked about, where that is another than a fresh model has.

    Raises:
        ModelError: Nothing would be trained, or what is asked about is no adapter of the model.
        PlanError: The settings cannot be met.
        ConfigError: The adapter is not the one that the settings ask about.
    """
    start = adapter or adapter_bytes(model)
    asked = config.asked
    if asked is not None and asked.adapter and adapter_digest(start) != asked.adapter:
        raise ConfigError(
            "the adapter is not the one that question.adapter names",
            hint="It is of a finished run: fmfl-secure start-file FEDERATION.toml --about RUN.",
        )
    if asked is not None:
        require_asked(model, start, asked)
    layouts = tuple(FlatLayout(task.begin_round(model, n).slots) for n in task.distinct_rounds)
    task.begin_round(model, 1)
    size = max(layout.size for layout in layouts)
    trained = layouts if config.trains else ()
    return RunStart(
        settings_digest=config.digest,
        base_model=task.base.name,
        base_model_digest=task.base.digest,
        base_model_license=licence(task.base.path),
        layouts=trained,
        grids=tuple(quantization(config, layout, size) for layout in trained),
        adapter=start,
        files=adapter_files(task, model),
        answer_layout=None if asked is None else answer_layout(config),
        answer_grid=None if asked is None else answer_grid(config),
    )


def require_asked(model: nn.Module, adapter: bytes, asked: QuestionSection) -> None:
    """Require that all that is asked about are adapters of a model, before anybody answers.

    Args:
        model: A model of the task.
        adapter: What is asked about, as safetensors: one, or several joined.
        asked: The question.

    Raises:
        ModelError: One is not; names it where there are several.
    """
    if not asked.candidates:
        require_adapter(model, load_adapter_bytes(adapter))
        return
    parts = split_candidates(adapter, len(asked.candidates))
    for name, part in zip(asked.candidates, parts, strict=True):
        try:
            require_adapter(model, load_adapter_bytes(part))
        except ModelError as error:
            raise ModelError(f"{name}: {error}", hint=error.hint) from error


def make_start_file(federation: Path, output: Path, *, adapter: bytes = b"") -> RunStart:
    """Write what a run by these settings starts from, for a server that has no base model.

    Args:
        federation: Path of `federation.toml`; a base model's relative path starts from its folder.
        output: File to write.
        adapter: What is asked about, where that is another than training would start from.

    Returns:
        What was written.

    Raises:
        FmflError, PrivacyError: Settings or base model cannot be used, or the file not written.
    """
    config = load_federation(federation)
    task = build_task(config, relative_to=federation.parent)
    model = task.build_model(seed=config.federation.seed)
    start = start_of(config, task, model, adapter=adapter)
    write_start(start, output)
    return start
