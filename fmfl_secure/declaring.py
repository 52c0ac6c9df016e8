"""Writing an answer into the settings, as public facts that a federation declares from then on.

Declared is what everybody may know and nobody's data decide any more: populations, how much of a
text is read, what each label weighs in the loss. What is written is a released figure, rounded; so
it costs nothing more. The line before it says which answer it is from.

`fmfl-secure ask --write` (`cli.ask`) and its like call the three functions that write. What is
about to be written is read back and compared first (`asking.require_meant`), and `in_words` says
what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from fmfl_secure.asking import Answer, require_meant
from fmfl_secure.errors import ConfigError
from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.planning.task import build_task
from fmfl_secure.questions.counts import Lengths
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.written import with_populations, with_value
from fmfl_secure.storage.files import write_files
from fmfl_secure.tasks.adapter_task import AdapterTask
from privacy.queries import count, share

MOST_CUT: Final = 0.05  # of all units may lose the end of a text
MOST_WEIGHT: Final = 10.0  # a label of which there are hardly any is not all that is learned

# By question, the option by which what was answered is written.
_WRITES: Final = {"units": "--write", "lengths": "--write-lengths", "labels": "--write-weights"}


@dataclass(frozen=True, slots=True)
class Declared:
    """One value that was written.

    Attributes:
        name: As in `task.label_weights`, or `population of site-1`.
        before: What the settings said.
        now: What they say.
        why: What was answered, for people.
    """

    name: str
    before: Any
    now: Any
    why: str


def source_of(answer: Answer) -> str:
    """Which answer it is: when, and where it is kept."""
    return f"{answer.at}, {answer.folder.parent.name}/{answer.folder.name}"


def require_declarable(
    config: FederationConfig, *, units: bool, lengths: bool, weights: bool
) -> None:
    """Refuse to ask for what will be written and could not be, before anybody is charged.

    Args:
        config: The settings of the question.
        units: Whether populations will be written.
        lengths: Whether `model.max_length` will be.
        weights: Whether `task.label_weights` will be.

    Raises:
        ConfigError: It is not asked, or the task has no such setting.
    """
    wanted = {"units": units, "lengths": lengths, "labels": weights}
    for question, is_written in wanted.items():
        if is_written and question not in asked_of(config).what:
            raise _not_asked(question)
    if weights and not hasattr(config.task, "label_weights"):
        raise _no_weights(config)


def declare_populations(federation: Path, answer: Answer, *, round_to: int) -> list[Declared]:
    """Write how many units sites have, rounded.

    Args:
        federation: Path of `federation.toml`.
        answer: With `units` in it.
        round_to: What populations are rounded to, >= 1.

    Raises:
        ConfigError: Units were not asked, or the settings cannot be written so.
    """
    figures = _asked(answer, "units")
    before, declared, populations = load_federation(federation), [], {}
    for site in before.sites:
        if site.name in answer.cohort:
            figure = figures[site.name]
            rounded = max(round_to, round_to * round((figure.value or 0.0) / round_to))
            populations[site.name] = rounded
            why = _counted(figure.value, figure.noise)
            declared.append(Declared(f"population of {site.name}", site.population, rounded, why))
    text = with_populations(
        federation.read_text(encoding="utf-8"), populations, answer=source_of(answer)
    )
    sites = tuple(
        msgspec.structs.replace(site, population=populations.get(site.name, site.population))
        for site in before.sites
    )
    _write(federation, text, msgspec.structs.replace(before, sites=sites))
    return declared


def declare_length(federation: Path, answer: Answer) -> Declared:
    """Write how many tokens of a text are read: so many that at most one unit in 20 loses any.

    Of the classes that were asked, the first beyond which there are so few, noise included; and no
    more than the base model has positions for.

    Args:
        federation: Path of `federation.toml`.
        answer: With `lengths` in it.

    Raises:
        ConfigError: Lengths were not asked, no class is long enough, or the settings cannot be
            written so.
        ModelError: The base model cannot be looked at.
    """
    _asked(answer, "lengths")
    before = load_federation(federation)
    edge, (low, high) = _long_enough(answer)
    task = build_task(before, relative_to=federation.parent)
    longest = task.longest_text if isinstance(task, AdapterTask) else None
    length = edge if longest is None else min(edge, longest)
    why = f"{low:.1%} to {high:.1%} of all units have a text of more than {edge:,} tokens"
    if length < edge:
        why += f"; the base model reads no more than {length:,}"
    model = msgspec.structs.replace(before.model, max_length=length)
    _write_value(federation, answer, "model", "max_length", length, before, model=model)
    return Declared("model.max_length", before.model.max_length, length, why)


def _long_enough(answer: Answer) -> tuple[int, tuple[float, float]]:
    """The first class's end beyond which hardly anybody is, and how many by the noise are."""
    cells, stddev = answer.cells["lengths"], _stddev(answer, "lengths")
    edges = Lengths.edges(asked_of(answer.config))
    for place, edge in enumerate(edges, start=1):
        longer = range(place, len(cells))
        beyond = share(cells, part=longer, whole=range(len(cells)), stddev=stddev).noise
        if beyond is not None and beyond[1] <= MOST_CUT:
            return edge, beyond
    raise ConfigError(
        f"more than {MOST_CUT:.0%} of all units may be longer than {edges[-1]:,} tokens, as far as "
        "the noise lets anybody see, so no model.max_length is written",
        hint="Ask with larger --lengths, or for more epsilon.",
    )


def declare_weights(federation: Path, answer: Answer) -> Declared:
    """Write what each label weighs in the loss: the rarer, the more, so that all weigh the same.

    A label's weight is the mean count over its own, between a tenth and ten, in two digits. A count
    below what the noise may do is taken for that.

    Args:
        federation: Path of `federation.toml`.
        answer: With `labels` in it.

    Raises:
        ConfigError: Labels were not asked, a record may have several, or the settings cannot be
            written so.
    """
    figures = _asked(answer, "labels")
    before, stddev = load_federation(federation), _stddev(answer, "labels")
    least = (count(0.0, stddev).noise or (0.0, 1.0))[1]
    labels = before.task.labels  # type: ignore[union-attr]
    counts = np.maximum([figures[label].value or 0.0 for label in labels], max(least, 1.0))
    weights = tuple(
        float(f"{weight:.2g}")
        for weight in np.clip(counts.mean() / counts, 1.0 / MOST_WEIGHT, MOST_WEIGHT)
    )
    why = "; ".join(
        f"{label}: {_counted(figures[label].value, figures[label].noise)}" for label in labels
    )
    if not hasattr(before.task, "label_weights"):
        raise _no_weights(before)
    task = msgspec.structs.replace(before.task, label_weights=weights)
    _write_value(federation, answer, "task", "label_weights", list(weights), before, task=task)
    return Declared("task.label_weights", before.task.label_weights, weights, why)


def _asked(answer: Answer, question: str) -> dict[str, Any]:
    if question not in answer.figures:
        raise _not_asked(question)
    return answer.figures[question]


def _not_asked(question: str) -> ConfigError:
    return ConfigError(
        f"{question} are not asked, so nothing that follows from them can be written",
        hint=f"Ask --what {question}, or leave {_WRITES[question]} out.",
    )


def _no_weights(config: FederationConfig) -> ConfigError:
    return ConfigError(
        f"the task {config.task.kind!r} has no label_weights",
        hint="Leave --write-weights out.",
    )


def _stddev(answer: Answer, question: str) -> float:
    plan = answer_plan(answer.config)
    (query,) = (each for each in plan.release.queries if each.name == question)
    return plan.answer_stddev(query, len(answer.cohort))


def _counted(value: float | None, noise: tuple[float, float] | None) -> str:
    if value is None or noise is None:
        return "nothing can be said"
    return f"answered {value:,.0f}, by the noise {max(0.0, noise[0]):,.0f} to {noise[1]:,.0f}"


def _write_value(
    federation: Path,
    answer: Answer,
    table: str,
    key: str,
    value: object,
    before: FederationConfig,
    **meant: msgspec.Struct,
) -> None:
    text = with_value(
        federation.read_text(encoding="utf-8"), table, key, value, answer=source_of(answer)
    )
    _write(federation, text, msgspec.structs.replace(before, **meant))


def _write(federation: Path, text: str, meant: FederationConfig) -> None:
    require_meant(text, meant, federation)
    write_files(federation.parent, {federation.name: text.encode()})


def in_words(declared: Sequence[Declared], answer: Answer) -> list[str]:
    """Says what was written, and from which answer, a line each."""
    lines = [
        f"{each.name} = {_value(each.now)}  (before: {_value(each.before)}); {each.why}"
        for each in declared
    ]
    return [*lines, f"from the answer of {source_of(answer)}; the file says so before each"]


def _value(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
