"""Starting from an earlier adapter: where it is, and what the line of runs that made it cost.

`planning.task` finds the earlier adapter with `find_initial`, and `fmfl-secure plan` says what all
of its line has cost by `line_epsilon`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from fmfl_secure.errors import ConfigError, ModelError
from fmfl_secure.outside import MALFORMED, MOST_DOCUMENT, read_regular
from fmfl_secure.planning.answers import answer_plan
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.planning.terms import reservations_of
from fmfl_secure.settings.federation import FederationConfig, convert_config
from fmfl_secure.tasks.adapter_task import TASK_FILE, InitialAdapter
from fmfl_secure.vectors.adapter_line import (
    EARLIER_FILE,
    LINE_FILE,
    Ancestor,
    decode_line,
    encode_line,
)
from privacy import (
    NonPrivate,
    PlanError,
    add_costs,
    epsilon_spent,
    filter_delta,
    filter_orders,
    parse_event,
    rdp_cost,
    zero_cost,
)

# The pair of orders that costs are added up at is fixed before any of them is known, as a
# filter's is: the best one in hindsight would be no bound, since each run may look at the last.
_REFERENCE_EPSILON = 8.0


# A report may be anybody's.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Charge(msgspec.Struct):
    run: str
    rounds_trained: tuple[_Count, ...]


class _Statement(msgspec.Struct):
    runs: tuple[_Charge, ...]


class _Site(msgspec.Struct):
    visibility: str
    statement: _Statement | None


class _Round(msgspec.Struct):
    adapter_digest: str


class _Mechanism(msgspec.Struct):
    unit: str
    delta: Annotated[float, msgspec.Meta(ge=0, lt=1)]
    noise_multiplier: Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class _Encryption(msgspec.Struct):
    parameters: _Count


class _Report(msgspec.Struct):
    """The parts of a `report.json` from which the cost of its run follows."""

    federation: str
    run: str
    settings: dict[str, Any]
    settings_digest: str
    mechanism: _Mechanism
    encryption: _Encryption
    sites: tuple[_Site, ...]
    rounds: tuple[_Round, ...]


def find_initial(config: FederationConfig, *, relative_to: Path) -> InitialAdapter | None:
    """The adapter that settings start from; None where it is a fresh one.

    Raises:
        ConfigError: It is not there.
        ModelError: It does not say what it cost.
    """
    if not config.adapter.initial:
        return None
    folder = _run_of(relative_to / config.adapter.initial)
    own = folder / "adapter"
    if not any((each / TASK_FILE).is_file() for each in (own, folder)):
        raise ConfigError(
            f"adapter.initial: {folder} is neither a finished run nor an exported adapter",
            hint="Name a run's folder, or one that fmfl-secure export wrote.",
        )
    line = line_of(folder)
    place = own if (own / TASK_FILE).is_file() else folder
    return InitialAdapter(place, encode_line(line), line[-1].run)


def line_of(folder: Path) -> tuple[Ancestor, ...]:
    """The runs that made an adapter, oldest first: a run's own, or one that was handed on.

    Raises:
        ModelError: It does not say what it cost.
    """
    folder = _run_of(folder)
    if (folder / "adapter" / TASK_FILE).is_file():
        return line_of_run(folder)
    try:
        return decode_line(read_regular(folder / LINE_FILE, most_bytes=MOST_DOCUMENT))
    except OSError as error:
        raise ModelError(
            f"{folder} does not say what its adapter cost",
            hint="Name the run's own folder, or export the run again.",
        ) from error


def _run_of(folder: Path) -> Path:
    """The run whose own adapter a folder is: what is in it knows nothing of the run itself."""
    is_own = folder.name == "adapter" and (folder.parent / "report.json").is_file()
    return folder.parent if is_own else folder


def line_of_run(folder: Path) -> tuple[Ancestor, ...]:
    """A finished run after the runs that its adapter continues, oldest first.

    Raises:
        ModelError: Its report does not say what it cost.
    """
    path = folder / "report.json"
    kept = [folder / "adapter" / name for name in (EARLIER_FILE, LINE_FILE)]
    before = next((file for file in kept if file.is_file()), None)
    try:
        report = read_regular(path, most_bytes=MOST_DOCUMENT)
        earlier = decode_line(read_regular(before, most_bytes=MOST_DOCUMENT)) if before else ()
    except OSError as error:
        raise ModelError(
            f"{path} does not say what the run cost: {error.strerror}",
            hint=f"fmfl-secure report {folder}",
        ) from error
    return *earlier, ancestor_of(report, path)


def ancestor_of(report: bytes, path: Path) -> Ancestor:
    """A run as those that go on from it name it.

    Args:
        report: Its `report.json`.
        path: Where that is from, for messages.

    Raises:
        ModelError: It does not say what the run cost, or no round was released.
    """
    try:
        read = msgspec.json.decode(report, type=_Report)
    except MALFORMED as error:
        raise ModelError(f"{path} does not say what the run cost: {error}") from error
    if not read.rounds:
        raise ModelError(f"the run of {path} released no round: there is nothing to go on from")
    config = convert_config(read.settings, FederationConfig, source=str(path))
    return _ancestor(read, config, path)


def line_epsilon(runs: Iterable[Ancestor], delta: float) -> float:
    """Epsilon of somebody who was in the data of every one of these runs, at this delta.

    Of training and answers: whoever goes on from an adapter has seen what was answered about it.
    Runs were chosen one after the other, each in knowledge of what came before: the costs are
    added up as a ledger's filter does, at orders that are fixed beforehand.

    Raises:
        ModelError: What one of them did is of no kind that is known here.
    """
    orders = filter_orders(_REFERENCE_EPSILON, delta)
    total = zero_cost(orders)
    in_shares = False
    for run, used, times in ((each.run, *use) for each in runs for use in each.uses):
        try:
            event = parse_event(used)
        except PlanError as error:
            raise ModelError(f"what run {run} cost cannot be read: {error}") from error
        if isinstance(event, NonPrivate):
            return math.inf
        in_shares = in_shares or used["kind"] != "poisson-sampled-gaussian"
        total = add_costs(total, rdp_cost(event, orders), times)
    return epsilon_spent(total, filter_delta(delta) if in_shares else delta)


def _ancestor(report: _Report, config: FederationConfig, path: Path) -> Ancestor:
    is_private = any(site.visibility == "private" for site in report.sites)
    trained = config.federation.rounds + config.privacy.repeats if config.trains else 0
    training, answers = reservations_of(report.run)
    event = _event(report, config, path) if is_private and config.trains else None
    plan = answer_plan(config) if is_private and config.asked is not None else None
    return Ancestor(
        run=report.run,
        federation=report.federation,
        settings_digest=report.settings_digest,
        adapter_digest=report.rounds[-1].adapter_digest,
        unit=report.mechanism.unit,
        delta=report.mechanism.delta,
        trainings=_most(report, training, planned=trained),
        event=event,
        answers=_most(report, answers, planned=plan.answers + plan.repeats)
        if plan
        else msgspec.UNSET,
        answer_event=_as_json(plan.event().canonical()) if plan else msgspec.UNSET,
    )


def _most(report: _Report, reservation: str, *, planned: int) -> int:
    """The most that a site with private data was charged for of a reservation.

    One that states nothing counts as planned: it is no evidence that it did less.
    """
    charged = [
        next((len(c.rounds_trained) for c in site.statement.runs if c.run == reservation), 0)
        if site.statement is not None
        else planned
        for site in report.sites
        if site.visibility == "private"
    ]
    return max(charged, default=0)


def _event(report: _Report, config: FederationConfig, path: Path) -> dict[str, Any]:
    plan = site_plan(config, config.sites[0], report.encryption.parameters)
    if plan is None:
        return NonPrivate("a run without noise").canonical()
    if not math.isclose(plan.noise_multiplier, report.mechanism.noise_multiplier, rel_tol=1e-9):
        raise ModelError(
            f"{path} is of a version that planned noise otherwise "
            f"({report.mechanism.noise_multiplier:.6f}, here {plan.noise_multiplier:.6f}), so that "
            "what the run cost cannot be added up here"
        )
    return _as_json(plan.round_event().canonical())


def _as_json(event: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(event))
    return found
