"""Asking sites of a federation on one machine, and keeping what they answered.

An answer is kept in a folder named after what was asked, of whom. The same question finds it there,
and nothing is charged; asked anew it is another run, charged like the first.

`cli.ask` makes the settings of the question with `asking`, shows what it will cost, and calls
`ask`. `cli.model` and `choosing` ask about a finished run's adapter by `RunAsked`.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.models.base import find_base_model
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.planning.answers import asked_of, cells_of, figures_of
from fmfl_secure.questions.registry import sort_of
from fmfl_secure.run.observer import Observer, Silent
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.settings.federation import FederationConfig, encode_config, load_federation
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.settings.sections import ASKED_IN_TRAINING, ModelSection
from fmfl_secure.settings.tasks import without_weights
from fmfl_secure.settings.toml_file import convert_config
from fmfl_secure.settings.written import with_question, without_keys
from fmfl_secure.storage.files import require_new, write_files
from fmfl_secure.storage.run_store import RunStore, holds_run
from fmfl_secure.transports.local.engine import LocalEngine
from fmfl_secure.vectors.adapter import Adapter, adapter_digest
from privacy.queries import Figure

ANSWERS: Final = "answers"  # folder, beside the settings
_DIGITS: Final = 12  # of a digest, in a folder's name


@dataclass(frozen=True, slots=True)
class Answer:
    """The sites' answer to a question, with its figures.

    Attributes:
        folder: Of the run.
        config: The settings that it was asked by.
        cohort: Sites that are in the sum.
        figures: By question and name, each with its intervals.
        cells: By question, what the sum says before anything is made of it; float64, (cells,).
        at: UTC time of the release.
        was_kept: It was asked before: nothing was charged.
    """

    folder: Path
    config: FederationConfig
    cohort: tuple[str, ...]
    figures: dict[str, dict[str, Figure]]
    cells: dict[str, NDArray[np.float64]]
    at: str
    was_kept: bool


def asking(config: FederationConfig, asked: QuestionSection) -> FederationConfig:
    """A federation's settings for a run that asks, and trains nothing.

    Raises:
        ConfigError: The question does not go with them.
    """
    try:
        return msgspec.structs.replace(
            config,
            question=msgspec.structs.replace(asked, every=0),
            evaluation=config.evaluation.without_questions,
        )
    except ValueError as error:
        raise ConfigError(
            f"the question does not go with the settings: {error}",
            hint="Ask something else, or change the settings that it names.",
        ) from error


def _nothing(config: FederationConfig) -> None:
    """Prepares nothing."""
    del config


def ask(
    federation: Path,
    asked: QuestionSection,
    *,
    again: bool = False,
    adapter: bytes = b"",
    settings: FederationConfig | None = None,
    observer: Observer | None = None,
    prepare: Callable[[FederationConfig], object] = _nothing,
) -> Answer:
    """Ask, all parties being on this machine; or find what was answered before.

    Args:
        federation: Path of `federation.toml`.
        asked: What is asked.
        again: Ask anew what was answered before, which is charged again.
        adapter: What is asked about, where it is not what training starts from.
        settings: Other settings of the same parties; None for the file's.
        observer: Told about progress.
        prepare: Called with the question's settings once nothing of model or settings rules it
            out, before a site is asked; not for what was answered before.

    Raises:
        FmflError, PrivacyError, AggregationError: Nothing is answered.
    """
    config = asking(settings or load_federation(federation), asked)
    folder = _folder(federation.parent, config)
    number = 1
    while again and holds_run(folder):
        number += 1
        folder = folder.with_name(f"{_name(config)}-{number}")
    kept = holds_run(folder)
    if kept and RunStore(folder).state.ended:
        return read_answer(folder, was_kept=True)
    engine = LocalEngine(
        federation,
        folder,
        resume=kept,
        observer=observer or Silent(),
        config=config,
        adapter=adapter,
    )
    prepare(config)
    engine.run()
    return read_answer(folder, was_kept=False)


@dataclass(frozen=True, slots=True)
class RunAsked:
    """A run whose adapter the sites are asked about.

    Attributes:
        federation: Path of its `federation.toml`.
        config: The settings that it ran with, and what is set apart and asked as they say now.
        adapter: As the run left it.
    """

    federation: Path
    config: FederationConfig
    adapter: bytes

    @classmethod
    def of(cls, run_folder: Path, federation: Path | None = None) -> RunAsked:
        """The run in a folder.

        Args:
            run_folder: The run's.
            federation: Its federation's settings; None for those where it was started from.

        Raises:
            ConfigError: The settings set apart other units now than the run trained without.
            ModelError: Its base model is not there, or is another now.
            RunError: There is no run, or it has no adapter.
        """
        store = RunStore(run_folder)
        federation = federation or Workspace(store.state.origin).federation_file
        trained, now = store.state.config, load_federation(federation)
        if trained.evaluation.holdout != now.evaluation.holdout:
            raise ConfigError(
                f"the run trained with evaluation.holdout = {trained.evaluation.holdout:g}, and "
                f"{federation} says {now.evaluation.holdout:g}: it has seen people whom these "
                "settings set apart, or the other way round",
                hint="Set it as it was; or train anew.",
            )
        adapter = store.last_adapter()
        if adapter is None:
            raise RunError(f"the run in {run_folder} has no adapter yet")
        try:
            config = msgspec.structs.replace(trained, evaluation=now.evaluation)
        except ValueError as error:
            raise ConfigError(
                f"[evaluation] in {federation} does not go with what the run trained: {error}",
                hint="Set it as it was when the run began.",
            ) from error
        find_base_model(
            config.model.base,
            digest=store.public().base_model_digest,
            relative_to=federation.parent,
        )
        # Without what the server optimizer remembers: what is asked about is the adapter alone.
        return cls(federation, config, Adapter(Adapter.read(adapter).tensors, {}).encode())

    def question(self, asked: QuestionSection) -> QuestionSection:
        """A question about the run's adapter."""
        return msgspec.structs.replace(asked, adapter=adapter_digest(self.adapter))

    def ask(
        self,
        asked: QuestionSection,
        *,
        again: bool = False,
        observer: Observer | None = None,
        prepare: Callable[[FederationConfig], object] = _nothing,
    ) -> Answer:
        """Ask the sites about the run's adapter; or find what was answered before.

        Args:
            asked: What, and at what price.
            again: Ask anew what was answered before, which is charged again.
            observer: Told about progress.
            prepare: As of `ask`.

        Raises:
            FmflError, PrivacyError, AggregationError: Nothing is answered.
        """
        return ask(
            self.federation,
            self.question(asked),
            again=again,
            adapter=self.adapter,
            settings=self.config,
            observer=observer,
            prepare=prepare,
        )


def read_answer(folder: Path, *, was_kept: bool) -> Answer:
    """The last answer of a run.

    Args:
        folder: The run's.
        was_kept: Whether it was there before.

    Raises:
        RunError: The run gave none.
    """
    store = RunStore(folder)
    rounds = [msgspec.json.decode(each, type=RoundRecord) for each in store.rounds()]
    for record in reversed(rounds):
        if isinstance(record.answer, tuple):
            config = store.state.config
            figures = figures_of(config, record.answer, len(record.cohort))
            cells = cells_of(config, record.answer)
            return Answer(folder, config, record.cohort, figures, cells, record.at, was_kept)
    raise RunError(
        f"the run in {folder} ended without an answer",
        hint="Its report says why. --again asks anew, and is charged for it.",
    )


def write_settings(
    federation: Path,
    asked: QuestionSection,
    target: Path,
    *,
    trained: FederationConfig | None = None,
) -> None:
    """Write a federation's settings with a question, for parties on other machines.

    What `[evaluation]` asks after rounds of training is left out, and who is set apart is kept:
    such a run trains nothing.

    Args:
        federation: Path of `federation.toml`.
        asked: What is asked.
        target: File to write.
        trained: Settings of the run whose adapters are asked about; None for no run's.

    Raises:
        ConfigError: They ask something already, say other work than the run's, or would not read
            as meant.
        RunError: Something is at `target`, which may be the settings themselves.
    """
    require_new(target)
    before = load_federation(federation)
    for section in ("task", "model", "adapter") if trained is not None else ():
        if getattr(before, section) != getattr(trained, section):
            raise ConfigError(
                f"{federation} has another [{section}] than the run was trained by, so its "
                "adapters cannot be asked about by these settings",
                hint="Take the federation.toml that the run was started with.",
            )
    text = with_question(federation.read_text(encoding="utf-8"), asked)
    if before.evaluation.at_sites:
        text = without_keys(text, "evaluation", ASKED_IN_TRAINING, why="not beside [question]")
    meant = asking(before, asked)
    # What they may not say together is refused in words, before it is put together here.
    convert_config(tomllib.loads(text), FederationConfig, source=str(target), text=text)
    require_meant(text, meant, target)
    write_files(target.parent, {target.name: text.encode()})


def require_meant(text: str, meant: FederationConfig, federation: Path) -> None:
    """Refuse to write what does not read as what was meant.

    Raises:
        ConfigError: It would say something else.
    """
    found = convert_config(tomllib.loads(text), FederationConfig, source=str(federation))
    if found != meant:
        raise ConfigError(
            f"{federation} would not say what is meant, so nothing is written",
            hint="Write it by hand.",
        )


def _name(config: FederationConfig) -> str:
    """After all that an answer depends on, and not after what may be declared by one."""
    privacy, model = config.privacy, config.model
    if sort_of(asked_of(config)) == "statistics":  # of whole texts
        model = msgspec.structs.replace(model, max_length=ModelSection().max_length)
    config = msgspec.structs.replace(config, model=model, task=without_weights(config.task))
    written = msgspec.json.decode(encode_config(config))
    subject = (
        config.federation.name,
        config.federation.seed,
        [site.name for site in config.sites],
        *(written.get(name) for name in ("question", "task", "model", "adapter", "evaluation")),
        [privacy.noise, privacy.delta, privacy.colluding_sites],
    )
    return hashlib.sha256(msgspec.json.encode(subject, order="sorted")).hexdigest()[:_DIGITS]


def _folder(folder: Path, config: FederationConfig) -> Path:
    return folder / ANSWERS / _name(config)
