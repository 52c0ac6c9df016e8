"""`evaluate RUN --data FILE`: exact figures on a file, and a closer look where one is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from fmfl_secure.cli._console import console, say
from fmfl_secure.cli.answers.adapters import Evaluated

if TYPE_CHECKING:
    from fmfl_secure.run.evaluation_record import EvaluationRecord


def evaluate_file(
    run_folder: Path,
    data: Path,
    *,
    after: int | None,
    curve: bool,
    details: Path | None,
    base: Path | None,
    personal: Path | None,
    max_left_out: float,
) -> Evaluated:
    """Evaluate, say what is found, and write what is to be looked at.

    Args:
        run_folder: The run.
        data: Labelled data.
        after: The round whose adapter is looked at; None for the one that the run left.
        curve: Whether the adapters after all rounds are evaluated besides.
        details: Folder for a closer look; None for none.
        base: The base model's folder, if it is elsewhere.
        personal: A site's own parts of the adapter.
        max_left_out: Largest share of rows that may be left out as unusable.

    Raises:
        FmflError: Run, adapter or data are unusable.
    """
    from fmfl_secure.storage.run_store import RunStore
    from fmfl_secure.training.finished_run import OnFile

    on_file = OnFile(run_folder, data, base=base, max_left_out=max_left_out)
    model = on_file.model(after=after, personal=personal)
    metrics, loaded = on_file.metrics(model), on_file.data
    by_round: dict[int, dict[str, float]] = {}
    for number in on_file.rounds if curve else ():
        by_round[number] = on_file.metrics(on_file.model(after=number))
        say(f"round {number:<4} {_figures(by_round[number])}")
    for name, value in metrics.items():
        say(f"{name:<9} {value:.4f}")
    say(f"n         {loaded.records}")
    if loaded.left_out:
        say(f"left out: {loaded.left_out}")
    if loaded.shortened:
        say(f"{loaded.shortened} of them are longer than model.max_length, and were cut")
    if loaded.unread:
        say(loaded.said_of_unread)
    files: tuple[Path, ...] = ()
    if details is not None:
        from fmfl_secure.report.closely import write_evaluation
        from fmfl_secure.report.closer_look import record_of

        # The model that was looked at last is the curve's.
        model = on_file.model(after=after, personal=personal) if curve else model
        number = on_file.rounds[-1] if after is None else after
        record = record_of(
            RunStore(run_folder).state.config,
            on_file.name,
            on_file.outcomes(model),
            round_number=number,
            data=data.name,
            public=False,
            metrics=by_round | {number: metrics},
        )
        _show_classes(record)
        files = write_evaluation(record, details)
        say(f"exact figures, without noise: they stay where the data are. {files[0]}")
    return Evaluated(
        metrics=metrics,
        records=loaded.records,
        left_out=str(loaded.left_out) if loaded.left_out else "",
        shortened=loaded.shortened,
        round=after,
        curve={str(number): each for number, each in by_round.items()},
        details=tuple(map(str, files)),
    )


def _figures(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _show_classes(record: EvaluationRecord) -> None:
    if not record.classes:
        return
    table = Table("label", title="by label", title_justify="left")
    for name in ("n", "recall", "95 %", "precision", "F1"):
        table.add_column(name, justify="right")
    for each in record.classes:
        low, high = each.recall_low, each.recall_high
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        shares = [("" if x is None else f"{x:.3f}") for x in (each.recall, each.precision, each.f1)]
        table.add_row(escape(each.label), str(each.records), shares[0], interval, *shares[1:])
    console.print(table)
