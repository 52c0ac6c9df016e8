"""The commands on a finished adapter: evaluate, predict, export.

`cli` registers its commands. They read a run's folder and charge nothing, but for `evaluate
--sites`: that asks the sites and is charged as any answer.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import Act, of_run
from fmfl_secure.cli.answers.adapters import (
    AdapterExported,
    BenchmarkRow,
    CurveFilled,
    Evaluated,
    Predicted,
    SuiteEvaluated,
)
from fmfl_secure.cli.answers.base import shown
from fmfl_secure.cli.answers.federation import SitesAnswered

app = typer.Typer()
MOST_LEFT_OUT: Final = 0.05  # as `training.finished_run` has it, which loads more than help should

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]
BaseModel = Annotated[
    Path | None, typer.Option(help="Base model folder, if it is elsewhere than at the run.")
]

OwnParts = Annotated[
    Path | None,
    typer.Option(
        "--personal",
        "--head",
        help="A site's own parts of the adapter: heads/RUN.safetensors in its folder.",
    ),
]

Temperature = Annotated[
    float, typer.Option(help="0 takes the likeliest token; above, tokens are drawn.", min=0)
]
TopP = Annotated[float, typer.Option(help="Draw among tokens of this probability together.")]
Stop = Annotated[
    list[str] | None, typer.Option(help="An answer ends before this text; may be repeated.")
]
Seed = Annotated[int, typer.Option(help="Of what is drawn.", min=0)]


@command(
    app,
    answers=(Evaluated, SitesAnswered, CurveFilled, SuiteEvaluated),
    acts=Act(
        "evaluate", of_run("run_folder"), keeps=("measures",), when=lambda given: given["sites"]
    ),
)
def evaluate(
    run_folder: RunFolder,
    data: Annotated[
        Path | None, typer.Option(help="Labelled file. The figures are exact: not private.")
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option(help="A TOML file of benchmarks: the adapter beside its base model."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="With --suite, a .json file to write the table to.")
    ] = None,
    sites: Annotated[
        bool,
        typer.Option("--sites", help="Ask all sites, on one machine, of the people set apart."),
    ] = False,
    measures: Annotated[
        str, typer.Option(help="With --sites: what is asked, with commas, such as accuracy,recall.")
    ] = "",
    epsilon: Annotated[
        float, typer.Option(help="With --sites: what the answer may cost every unit.")
    ] = 0.0,
    insider_epsilon: Annotated[
        float, typer.Option(help="With --sites and noise in shares: against all other sites.")
    ] = 0.0,
    again: Annotated[
        bool, typer.Option("--again", help="With --sites: ask anew, and charge for it.")
    ] = False,
    rounds: Annotated[
        str,
        typer.Option(
            help="Rounds whose figures, on the set that the settings declare public, go into the "
            "report: numbers such as 0,5,10, or due for those that the settings ask for."
        ),
    ] = "",
    round_number: Annotated[
        int | None,
        typer.Option(
            "--round",
            help="With --data: the adapter after this round; 0 is before the first.",
            min=0,
        ),
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="With --data: the adapters after all rounds besides.")
    ] = False,
    details: Annotated[
        Path | None,
        typer.Option(
            help="With --data, a folder for a page, plots and JSON: figures by label, which "
            "label was answered for which, how sure the answers are."
        ),
    ] = None,
    base: BaseModel = None,
    personal: OwnParts = None,
    max_left_out: Annotated[
        float,
        typer.Option(help="Largest share of rows that may be left out as unusable.", min=0, max=1),
    ] = MOST_LEFT_OUT,
) -> Evaluated | SitesAnswered | CurveFilled | SuiteEvaluated:
    """Evaluate a run's adapter on a file, or on a folder of images.

    Says how many records the figures are of, and which rows were left out. With --details it looks
    closer, and with --round and --curve at the adapters after rounds, which a run keeps; nothing
    of that gets into the report. With --suite: multiple
    choice, generated answers and the run's own task on files that you bring, the adapter beside its
    base model with and without examples (docs/models.md). With --rounds: the learning curve of a
    run whose server had no base model, kept in its metrics and report. With --sites: one noised sum
    over what the sites hold, charged like training (docs/private-answers.md).

    Example: fmfl-secure evaluate pilot/run-1 --data pilot/data/holdout.csv
    """
    from fmfl_secure.errors import ConfigError

    given = {
        "--data": data is not None,
        "--suite": suite is not None,
        "--output": output is not None,
        "--measures": bool(measures),
        "--epsilon": bool(epsilon),
        "--insider-epsilon": bool(insider_epsilon),
        "--again": again,
        "--rounds": bool(rounds),
        "--round": round_number is not None,
        "--curve": curve,
        "--details": details is not None,
        "--base": base is not None,
        "--personal": personal is not None,
        "--max-left-out": max_left_out != MOST_LEFT_OUT,
    }
    _require_heeded([name for name, is_given in given.items() if is_given], sites=sites)
    if sites:
        return _ask_sites(run_folder, measures, epsilon, insider_epsilon, again=again)
    if rounds:
        return _fill_curve(run_folder, rounds, data, base)
    if suite is not None:
        return _evaluate_suite(run_folder, suite, base, output)
    if data is None:
        raise ConfigError("--data names a file to evaluate on, or --rounds the run's own figures")
    from fmfl_secure.cli.evaluate_file import evaluate_file

    return evaluate_file(
        run_folder,
        data,
        after=round_number,
        curve=curve,
        details=details,
        base=base,
        personal=personal,
        max_left_out=max_left_out,
    )


# What each way to evaluate heeds, in the order in which they are looked for.
_HEEDED: Final = {
    "--sites": {"--measures", "--epsilon", "--insider-epsilon", "--again"},
    "--rounds": {"--data", "--base"},
    "--suite": {"--output", "--base"},
    "--data": {"--round", "--curve", "--details", "--base", "--personal", "--max-left-out"},
}


def _require_heeded(given: list[str], *, sites: bool) -> None:
    """Refuse what would be passed over, beside the way that is chosen.

    Raises:
        ConfigError: An option goes with another way, or no way is chosen.
    """
    from fmfl_secure.errors import ConfigError

    chosen = [way for way in _HEEDED if way in given or (sites and way == "--sites")]
    for option in given:
        if chosen and option != chosen[0] and option not in _HEEDED[chosen[0]]:
            raise ConfigError(f"{option} does not go with {chosen[0]}", hint=_ways(option))
        if not chosen:
            raise ConfigError(f"{option} alone evaluates nothing", hint=_ways(option))


def _ways(option: str) -> str:
    ways = [way for way, heeded in _HEEDED.items() if option in heeded]
    if not ways:
        return f"Evaluate twice: {option} is a way of its own."
    return f"It goes with {' or '.join(ways)}."


def _ask_sites(
    run_folder: Path, measures: str, epsilon: float, insider_epsilon: float, *, again: bool
) -> SitesAnswered:
    from fmfl_secure.asking import RunAsked, asking
    from fmfl_secure.cli.ask import show_answer, show_precision, sites_answered, words
    from fmfl_secure.cli.run import grant_where_none_said
    from fmfl_secure.settings.questions import QuestionSection
    from fmfl_secure.settings.toml_file import convert_config

    run = RunAsked.of(run_folder)
    asked: QuestionSection = convert_config(
        {
            "what": words(measures) or words(run.config.first_measure or ""),
            "epsilon": epsilon,
            "insider_epsilon": insider_epsilon,
        },
        QuestionSection,
        source="the question",
    )
    show_precision(asking(run.config, run.question(asked)))
    granting = partial(grant_where_none_said, run.federation.parent)
    answer = run.ask(asked, again=again, prepare=granting)
    show_answer(answer)
    return sites_answered(answer)


def _evaluate_suite(
    run_folder: Path, suite: Path, base: Path | None, output: Path | None
) -> SuiteEvaluated:
    import msgspec
    from rich.table import Table

    from fmfl_secure.cli._console import console
    from fmfl_secure.storage.files import require_new, write_output
    from fmfl_secure.training.suite import evaluate_suite, load_suite

    if output is not None:
        require_new(output)
    rows = list(evaluate_suite(run_folder, load_suite(suite), relative_to=suite.parent, base=base))
    table = Table("benchmark", "arm", "shots", "n", "figures", title=str(suite.name))
    for row in rows:
        figures = [
            f"{name} {value:.4f}"
            + (f" ± {row.errors[name]:.4f}" if row.errors.get(name, 0) > 0 else "")
            for name, value in row.metrics.items()
        ]
        cut = [f"{row.cut} questions cut"] if row.cut else []
        table.add_row(
            row.benchmark, row.arm, str(row.shots), str(row.records), "\n".join([*figures, *cut])
        )
    console.print(table)
    if output is not None:
        data = msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n"
        write_output(output, data)
        say(f"{output}")
    return SuiteEvaluated(
        rows=tuple(shown(row, BenchmarkRow) for row in rows),
        output="" if output is None else str(output),
    )


def _fill_curve(run_folder: Path, rounds: str, data: Path | None, base: Path | None) -> CurveFilled:
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.report.learning_curve import fill_curve

    try:
        chosen = None if rounds == "due" else [int(number) for number in rounds.split(",")]
    except ValueError:
        raise ConfigError(
            f"--rounds is {rounds!r}, expected due or numbers such as 0,5,10"
        ) from None
    found = fill_curve(run_folder, rounds=chosen, data=data, base=base)
    for number, metrics in found.items():
        figures = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        say(f"round {number:<4} {figures}")
    page = run_folder / "report.html"
    say(f"report   {page}")
    return CurveFilled(
        rounds={str(number): metrics for number, metrics in found.items()}, report=str(page)
    )


def _require_drawn(temperature: float, seed: int) -> None:
    from fmfl_secure.errors import ConfigError

    if seed and not temperature:
        raise ConfigError("--seed is of drawing tokens: set --temperature above 0")


@command(app, answers=Predicted, acts="it answers with an adapter, and changes nothing at a party")
def predict(
    run_folder: RunFolder,
    data: Annotated[Path, typer.Option(help="Data without what is to be predicted.")],
    output: Annotated[Path, typer.Option(help="File to write: .jsonl or .csv.")],
    base: BaseModel = None,
    personal: OwnParts = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    stop: Stop = None,
    seed: Seed = 0,
) -> Predicted:
    """Answer for each row of a file with a run's adapter: labels, tags, responses, similarities.

    A .jsonl file grows while answers come. With a temperature, responses are drawn: the same seed
    draws the same ones of the same file.

    Example: fmfl-secure predict pilot/run-1 --data new.csv --output answers.jsonl
    """
    from fmfl_secure.models.language import Sampling
    from fmfl_secure.storage.files import require_new
    from fmfl_secure.training.finished_run import answers_of, stream_answers

    _require_drawn(temperature, seed)
    require_new(output)
    sampling = Sampling(temperature, top_p, tuple(stop or ()), seed)
    answers = answers_of(run_folder, data, base=base, personal=personal, sampling=sampling)
    count = stream_answers(answers, output)
    say(f"{output}: {count} answers")
    return Predicted(output=str(output), answers=count)


@command(app, acts="it answers with an adapter, and keeps nothing")
def chat(
    run_folder: RunFolder,
    base: BaseModel = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    stop: Stop = None,
    seed: Seed = 0,
) -> None:
    """Talk with a run's language model, to look at it: one line is one message.

    An empty line begins a new conversation, the end of input (Ctrl-D) ends. Nothing is kept.
    Example: fmfl-secure chat pilot/run-1
    """
    from fmfl_secure.models.language import Sampling
    from fmfl_secure.training.talk import Talk

    _require_drawn(temperature, seed)
    talk = Talk(run_folder, Sampling(temperature, top_p, tuple(stop or ()), seed), base=base)
    say(talk.remembers)
    for line in sys.stdin:
        if not line.strip():
            talk.begin()
            say("(a new conversation)")
            continue
        say(talk.answer(line.strip()))


@command(
    app,
    answers=AdapterExported,
    acts=Act("export", of_run("run_folder"), keeps=("run_folder", "output")),
)
def export(
    run_folder: RunFolder,
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    merged: Annotated[bool, typer.Option(help="Whole weights in place of the adapter.")] = False,
    base: BaseModel = None,
    personal: OwnParts = None,
) -> AdapterExported:
    """Write a run's adapter, or merged weights, as safetensors with a model card.

    The card states the privacy that was spent, from the run's report.
    Example: fmfl-secure export pilot/run-1 --output pilot/model --merged
    """
    from fmfl_secure.report.export import export_run

    folder = export_run(run_folder, output, merged=merged, base=base, personal=personal)
    say(f"{folder}")
    return AdapterExported(folder=str(folder), merged=merged)
