"""Choosing among adapters by one private answer of the sites: a run's rounds, and exported ones.

`fmfl-secure choose` (`cli.choose`) collects `candidates_of` a run, asks `question_among` them by
`choose`, and has `write_winner` keep the one ahead. Where parties are on other machines,
`write_question` writes what they are asked by and `read_choice` reads what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from fmfl_secure.asking import Answer, RunAsked, ask, read_answer, write_settings
from fmfl_secure.errors import ConfigError, RunError
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes, set_adapter_tensors
from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.planning.task import make_start_file
from fmfl_secure.planning.warm_start import line_of, line_of_run
from fmfl_secure.questions.choice import distance_of_winner
from fmfl_secure.run.observer import Observer
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.training.finished_run import open_run
from fmfl_secure.vectors.adapter import Adapter, adapter_digest
from fmfl_secure.vectors.adapter_line import EARLIER_FILE, LINE_FILE, Ancestor, encode_line
from fmfl_secure.vectors.candidates import MAX_CANDIDATES, join_candidates, split_candidates
from privacy.queries import Interval

_ROUND: Final = "round "  # before its number, in the name of a candidate that is a run's own


@dataclass(frozen=True, slots=True)
class Chosen:
    """The candidate that the sites' answer puts ahead, and how far.

    Attributes:
        answer: With each candidate's rate.
        winner: Name of the one ahead.
        adapter: Its tensors, as safetensors.
        ahead: By candidate, how many units' worth the winner is ahead of it: a 95 % interval, all
            of which hold at once.
        bias: The most that the winner's own figure is too high on average, in units: it was
            chosen for being high, noise included.
    """

    answer: Answer
    winner: str
    adapter: bytes
    ahead: dict[str, Interval]
    bias: float

    @property
    def is_clear(self) -> bool:
        """Whether the winner is ahead of all others beyond what noise may do."""
        return all(low > 0.0 for name, (low, _) in self.ahead.items() if name != self.winner)


def candidates_of(run: Path, rounds: Sequence[int], folders: Sequence[Path]) -> dict[str, bytes]:
    """Adapters of a run's rounds, and exported ones of the same kind, by name.

    Args:
        run: The run's folder.
        rounds: Of its rounds; none takes the released ones, evenly, the last always.
        folders: Of exported adapters.

    Raises:
        RunError: There is no run, or a round gave no adapter.
        ModelError: An exported adapter does not fit the run's settings.
        ConfigError: They are too many, or fewer than two.
    """
    store = RunStore(run)
    found: dict[str, bytes] = {}
    room = MAX_CANDIDATES - len(folders)
    for number in rounds or _evenly(store, room):
        # Without what the server optimizer remembers: an answer is about the adapter alone.
        adapter = Adapter.read(store.adapter_after(number))
        found[f"{_ROUND}{number}"] = Adapter(adapter.tensors, {}).encode()
    if folders:
        task = open_run(run).task
        for folder in folders:
            if folder.name in found:
                raise ConfigError(
                    f"two candidates are called {folder.name!r}",
                    hint="Rename the folder: an answer tells candidates apart by name.",
                )
            found[folder.name] = adapter_bytes(task.open_adapter(folder))
    if not 2 <= len(found) <= MAX_CANDIDATES:
        raise ConfigError(
            f"{len(found)} candidates of distinct names, expected 2 to {MAX_CANDIDATES}",
            hint="Name rounds of the run with --rounds, and exported adapters with --adapter.",
        )
    return found


def _evenly(store: RunStore, room: int) -> list[int]:
    """Rounds that trained and were released, at most so many, the last always."""
    config = store.state.config
    trained = [
        number for number in range(1, len(store.rounds()) + 1) if config.turn(number).asked is None
    ]
    if not trained or room < 1:
        return []
    places = np.linspace(len(trained) - 1, 0, num=min(room, len(trained)))
    return sorted({trained[round(float(place))] for place in places})


def question_among(
    candidates: dict[str, bytes], *, epsilon: float, insider_epsilon: float = 0.0, repeats: int = 0
) -> tuple[QuestionSection, bytes]:
    """One joint question about candidates, and what it is asked about.

    Args:
        candidates: Adapters by name, as `candidates_of` finds them.
        epsilon: What the answer may cost every unit.
        insider_epsilon: With noise in shares, against all other sites together.
        repeats: Answers that a site may compute again after a crash.

    Raises:
        ModelError: They are too many, or not adapters of the same tensors.
    """
    joined = join_candidates(list(candidates.values()))
    asked = QuestionSection(
        what=("choice",),
        epsilon=epsilon,
        insider_epsilon=insider_epsilon,
        repeats=repeats,
        adapter=adapter_digest(joined),
        candidates=tuple(candidates),
    )
    return asked, joined


def choose(
    run: Path,
    asked: QuestionSection,
    joined: bytes,
    *,
    again: bool = False,
    observer: Observer | None = None,
) -> Chosen:
    """Ask all sites, on this machine, which candidate is right most often.

    Args:
        run: The run's folder; its federation is where it was started.
        asked: As `question_among` puts it.
        joined: The candidates.
        again: Ask anew what was answered before, which is charged again.
        observer: Told about progress.

    Raises:
        FmflError, PrivacyError, AggregationError: Nothing is answered.
    """
    asked_run = RunAsked.of(run)
    answer = ask(
        asked_run.federation,
        asked,
        again=again,
        adapter=joined,
        settings=asked_run.config,
        observer=observer,
    )
    return chosen_of(answer, joined)


def write_question(
    run: Path,
    asked: QuestionSection,
    joined: bytes,
    target: Path,
    *,
    federation: Path | None = None,
) -> Path:
    """Write what parties on other machines are asked by: their settings, and a server's start.

    Args:
        run: The run's folder.
        asked: As `question_among` puts it.
        joined: The candidates.
        target: Settings to write; what a server starts from gets its name and another ending.
        federation: The settings to ask by; None for those where the run was started.

    Returns:
        What a server starts from.

    Raises:
        FmflError, PrivacyError: Nothing can be asked so.
    """
    asked_run = RunAsked.of(run, federation)
    start = target.with_suffix(".safetensors")
    if start.exists():
        raise RunError(f"{start} exists already", hint="Name other settings to write.")
    write_settings(asked_run.federation, asked, target, trained=asked_run.config)
    make_start_file(target, start, adapter=joined)
    return start


def read_choice(folder: Path) -> Chosen:
    """Reads the outcome of a choice from its run's folder, over whichever transport.

    Args:
        folder: Of that run.

    Raises:
        RunError: It gave no answer, or was asked something else.
    """
    store = RunStore(folder)
    asked = store.state.config.asked
    if asked is None or not asked.candidates:
        raise RunError(f"the run in {folder} was asked for no choice")
    return chosen_of(read_answer(folder, was_kept=True), store.adapter_after(0))


def chosen_of(answer: Answer, joined: bytes) -> Chosen:
    """Chooses among the candidates that an answer is about."""
    plan = answer_plan(answer.config)
    (query,) = plan.release.queries
    stddev = plan.answer_stddev(query, len(answer.cohort))
    number, ahead, bias = distance_of_winner(answer.cells[query.name], stddev)
    names = asked_of(answer.config).candidates
    return Chosen(
        answer=answer,
        winner=names[number],
        adapter=split_candidates(joined, len(names))[number],
        ahead=dict(zip(names, ahead, strict=True)),
        bias=bias,
    )


def require_writable(run: Path, output: Path, folders: Sequence[Path]) -> None:
    """Require, before anything is asked and charged, that any winner can be written.

    Args:
        run: The run whose rounds are chosen among.
        output: The folder to write.
        folders: Of exported adapters that are chosen among.

    Raises:
        RunError: There is something there already.
        ModelError: A report or an exported adapter does not say what it cost.
    """
    if output.exists():
        raise RunError(f"{output} exists already", hint="Name another --output.")
    line_of_run(run)
    for folder in folders:
        line_of(folder)


def write_winner(run: Path, chosen: Chosen, output: Path, folders: Sequence[Path] = ()) -> None:
    """Write the winner as a finished adapter's folder, with the line of what it cost.

    Args:
        run: The run whose rounds were chosen among.
        chosen: What came of it.
        output: The folder to write.
        folders: Of exported adapters that were chosen among.

    Raises:
        RunError: There is something there already, or nothing here says what the winner cost.
        ModelError: A report or an exported adapter does not say it.
    """
    require_writable(run, output, folders)
    line = _line_of(run, chosen, folders)
    finished = open_run(run)
    model = finished.task.build_model(seed=finished.config.federation.seed)
    set_adapter_tensors(model, load_adapter_bytes(chosen.adapter))
    finished.task.save_adapter(model, output)
    (output / EARLIER_FILE).unlink(missing_ok=True)
    (output / LINE_FILE).write_text(encode_line(line), encoding="utf-8")


def _line_of(run: Path, chosen: Chosen, folders: Sequence[Path]) -> tuple[Ancestor, ...]:
    """The runs that made the winner, and the one whose answer chose it."""
    digest = adapter_digest(chosen.adapter)
    asked = line_of_run(chosen.answer.folder)[-1]
    if chosen.winner.startswith(_ROUND):
        *earlier, last = line_of_run(run)
        made = (*earlier, msgspec.structs.replace(last, adapter_digest=digest))
    else:
        folder = next((each for each in folders if each.name == chosen.winner), None)
        if folder is None:
            raise RunError(
                f"{chosen.winner} was exported before, and nothing here says what it cost",
                hint="Take its own folder: it is the same adapter, with the line of what it cost.",
            )
        made = line_of(folder)
    return *made, msgspec.structs.replace(asked, adapter_digest=digest)
