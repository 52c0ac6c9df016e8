"""A run's figures on data declared public, computed from the adapters that its state keeps.

For runs whose server has no base model. It may be done while the run goes on, and again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from fmfl_secure.errors import ConfigError, ModelError, RunError
from fmfl_secure.report.closer_look import record_of
from fmfl_secure.report.results import write_results
from fmfl_secure.run.evaluation_record import EVALUATION_NAME, encode_evaluation
from fmfl_secure.run.record import RunRecord, decode_round
from fmfl_secure.storage.files import write_outputs
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.training.evaluator import Utility, is_due
from fmfl_secure.training.finished_run import open_run


def fill_curve(
    run_folder: Path,
    *,
    rounds: Collection[int] | None = None,
    data: Path | None = None,
    base: Path | None = None,
) -> dict[int, dict[str, float]]:
    """Evaluate the adapters of a run's rounds; metrics and report are written anew.

    Args:
        run_folder: The run.
        rounds: Which, 0 being before the first; None takes those that the settings ask for.
        data: Where the settings' public evaluation set is, if elsewhere; of the same name.
        base: The base model's folder; None finds it as the run's settings say.

    Returns:
        The task's metrics by round.

    Raises:
        ConfigError: The settings declare no public set, or this is not it.
        ModelError: The base model is not the run's.
        RunError: There is no such round, or none yet.
        DataError: The set cannot be used.
    """
    store = RunStore(run_folder)
    config, chosen = store.state.config, _released(store)
    named = Path(config.evaluation.file)
    if not config.evaluation.file:
        raise ConfigError(
            "the run's settings declare no public evaluation set, and figures on other data do not "
            "belong into its report",
            hint="fmfl-secure evaluate RUN --data FILE prints them, and keeps nothing.",
        )
    if data is not None:
        if data.name != named.name:
            raise ConfigError(
                f"{data} is not {named.name}, which the run's settings declare public",
                hint=f"--data says where {named.name} is; without --rounds it may be any file.",
            )
        section = msgspec.structs.replace(config.evaluation, data=str(data.resolve()))
        config = msgspec.structs.replace(config, evaluation=section)
    for number in rounds or ():
        if number not in chosen:
            raise RunError(
                f"round {number} has no adapter in {run_folder}; there are those of "
                f"{', '.join(map(str, sorted(chosen)))}"
            )
    wanted = set(rounds) if rounds is not None else {n for n in chosen if is_due(config, n)}
    run = open_run(run_folder, base=base)
    if store.public().base_model_digest not in run.task.base.digests:
        raise ModelError(
            f"{run.task.base.name} is not the base model of the run in {run_folder}",
            hint="Say with --base where the run's own is.",
        )
    model = run.task.build_model(seed=config.federation.seed)
    utility = Utility(config, run.task, model, store.state.origin)
    found = {}
    for number in sorted(wanted):
        found[number] = utility.measure(store.adapter_after(number))
        store.evaluated(number, found[number])
    keep_look(store, utility)
    write_results(store)
    return found


def results_with_look(utility: Utility) -> Callable[[RunStore], RunRecord]:
    """Writes a run's results, once it has ended with a closer look at its last adapter.

    Args:
        utility: Of the run's public set; looks at nothing where the settings declare none.
    """

    def write(store: RunStore) -> RunRecord:
        if store.state.ended:
            keep_look(store, utility)
        return write_results(store)

    return write


def keep_look(store: RunStore, utility: Utility) -> None:
    """Look closer at the last adapter that has figures, and keep what is seen in the run's folder.

    Raises:
        DataError: The public set cannot be used.
        RunError: It cannot be written.
    """
    config, state = store.state.config, store.state
    rounds = {0: state.initial_metrics or {}}
    rounds |= {each.round: each.metrics for each in map(decode_round, store.rounds())}
    known = {number: metrics for number, metrics in sorted(rounds.items()) if metrics}
    last = max(known, default=0)
    if not config.evaluation.file or last == 0:
        return
    record = record_of(
        config,
        state.run,
        utility.outcomes(store.adapter_after(last)),
        round_number=last,
        data=Path(config.evaluation.file).name,
        public=True,
        metrics=known,
    )
    write_outputs(
        store.folder,
        {EVALUATION_NAME: encode_evaluation(record)},
        what="the evaluation",
        hint="Check that the folder is writable and that there is space; the run is unharmed.",
    )


def _released(store: RunStore) -> set[int]:
    """Rounds that have an adapter; 0 is before the first."""
    records = [decode_round(each) for each in store.rounds()]
    return {0, *(record.round for record in records if record.status == "released")}
