"""`fmfl-secure ask`: a question to the sites, answered by one noised sum.

`cli` registers `ask`. It shows how precise the answer would be, grants where a simulation has no
grants yet, asks (`asking`), shows figures with their intervals, and writes them into the settings
where options say so. `cli.choose`, `cli.model` and `cli.plan` show their answers and precisions
with the same functions.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import console, facts, say
from fmfl_secure.cli.acting import Act, beside_settings
from fmfl_secure.cli.answers.base import Written, shown
from fmfl_secure.cli.answers.federation import Figures, FigureShown, SitesAnswered
from fmfl_secure.cli.arguments import FederationFile, InsiderEpsilon, Repeats

if TYPE_CHECKING:
    from fmfl_secure.asking import Answer
    from fmfl_secure.settings.federation import FederationConfig
    from fmfl_secure.settings.questions import QuestionSection
    from privacy.queries import Figure

app = typer.Typer()


@command(
    app,
    answers=(Figures, Written),
    acts=Act(
        "ask",
        beside_settings,
        keeps=("what", "lengths"),
        when=lambda given: given["settings"] is None,
    ),
)
def ask(
    federation: FederationFile,
    what: Annotated[str, typer.Option(help="Questions, with commas: units,labels,lengths, ...")],
    epsilon: Annotated[float, typer.Option(help="What the answer may cost every unit.")],
    insider_epsilon: InsiderEpsilon = 0.0,
    repeats: Repeats = 0,
    lengths: Annotated[
        str, typer.Option(help="For lengths: tokens at which classes end, with commas.")
    ] = "",
    again: Annotated[
        bool, typer.Option(help="Ask anew what was answered before, and charge for it.")
    ] = False,
    write: Annotated[
        bool, typer.Option(help="Write the answered units as declared populations.")
    ] = False,
    write_lengths: Annotated[
        bool,
        typer.Option(help="Write model.max_length so that one unit in 20 at most loses any text."),
    ] = False,
    write_weights: Annotated[
        bool,
        typer.Option(help="Write task.label_weights so that rare labels weigh as much as others."),
    ] = False,
    round_to: Annotated[
        int | None,
        typer.Option(min=1, help="With --write: what populations are rounded to; default: 10."),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(help="Ask nothing: write settings that ask, for servers on other transports."),
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(help="With --settings, of a finished run: ask about its adapter."),
    ] = None,
) -> Figures | Written:
    """Ask all sites, on one machine, and charge their ledgers: one sum, with noise.

    An answer is kept beside the settings, in answers/, where the same question finds it free.
    Example: fmfl-secure ask pilot/federation.toml --what units,labels,lengths --epsilon 0.3
    """
    from fmfl_secure import asking, declaring
    from fmfl_secure.cli.run import grant_where_none_said
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.settings.federation import load_federation
    from fmfl_secure.settings.questions import QuestionSection
    from fmfl_secure.settings.toml_file import convert_config

    if settings is not None and (write or write_lengths or write_weights or again):
        raise ConfigError("--settings asks nothing yet: there is nothing to write, or ask again")
    if round_to is not None and not write:
        raise ConfigError("--round-to goes with --write", hint="Add --write, or leave it out.")
    asked: QuestionSection = convert_config(
        {
            "what": words(what),
            "epsilon": epsilon,
            "insider_epsilon": insider_epsilon,
            "repeats": repeats,
            "lengths": [
                int(word) if word.isascii() and word.isdigit() else word for word in words(lengths)
            ],
        },
        QuestionSection,
        source="the question",
    )
    if lengths and not (asked.lengths and "lengths" in asked.what):
        raise ConfigError(
            f"--lengths {lengths!r} names no tokens for a question that asks for lengths",
            hint="Ask --what lengths, and name tokens with commas; or leave --lengths out.",
        )
    run = None
    if about is not None:
        if settings is None:
            raise ConfigError(
                "--about goes with --settings, for servers on other transports",
                hint="On one machine: fmfl-secure evaluate RUN --sites.",
            )
        run = asking.RunAsked.of(about, federation)
        asked = run.question(asked)
    if settings is not None:
        asking.write_settings(
            federation, asked, settings, trained=None if run is None else run.config
        )
        of_run = f" --about {about}" if about else ""
        say(f"wrote {settings}: give it to all parties as federation.toml, and the server's kit")
        say(f"what fmfl-secure start-file {settings}{of_run} writes")
        show_precision(load_federation(settings))
        return Written(files=(str(settings),))
    config = asking.asking(load_federation(federation), asked)
    # Before anybody is asked: an answer is charged, whatever becomes of it here.
    declaring.require_declarable(config, units=write, lengths=write_lengths, weights=write_weights)
    show_precision(config)
    answer = asking.ask(
        federation, asked, again=again, prepare=partial(grant_where_none_said, federation.parent)
    )
    show_answer(answer)
    declared = (
        declaring.declare_populations(federation, answer, round_to=round_to or 10) if write else []
    )
    if write_lengths:
        declared.append(declaring.declare_length(federation, answer))
    if write_weights:
        declared.append(declaring.declare_weights(federation, answer))
    if declared:
        say(f"wrote {federation}:")
        for line in declaring.in_words(declared, answer):
            say(f"  {line}")
    return _figures(answer)


def show_precision(config: FederationConfig) -> None:
    """How precise an answer would be, before it is asked."""
    from fmfl_secure.planning.answers import asked_of
    from fmfl_secure.planning.precision import precisions

    asked = asked_of(config)
    times = asked.answers(config.federation.rounds)
    table = Table("question", "figures", "a count, +-", "first, +-", "with sampling", "widest, +-")
    table.title = (
        f"{'an answer' if times == 1 else f'{times} answers, each'} with all "
        f"{len(config.sites)} sites: half widths that 19 of 20 keep to; epsilon {asked.epsilon:g} "
        "together"
    )
    for each in precisions(config):
        table.add_row(
            each.question,
            f"{each.cells:,}",
            f"{each.count:.1f}",
            *(width(half, each.figure) for half in (each.share, each.sampling, each.widest)),
        )
    console.print(table)
    if any(each.figure and each.share is None for each in precisions(config)):
        say("nothing  more than one answer in 20 would say nothing of that: ask fewer things at")
        say("         once, or with more epsilon")


def width(half: float | None, figure: str) -> str:
    """A half width in words, in the figure's own units: 0.021 of a share is 2.1 points."""
    if half is None:
        return "nothing" if figure else "only counts"
    return f"{half:.3f}"


def show_answer(answer: Answer) -> None:
    """An answer with its intervals, what it cost, and what it is not."""
    from fmfl_secure.planning.answers import asked_of
    from fmfl_secure.run.answer_record import ONE_SITE

    for question, figures in answer.figures.items():
        table = Table(question, "value", "95 %, of the noise", "95 %, with sampling")
        for name, figure in figures.items():
            table.add_row(name, *written(figure))
        console.print(table)
    asked = asked_of(answer.config)
    facts(
        "answer",
        {
            "of": f"{len(answer.cohort)} sites: {', '.join(answer.cohort)}",
            "at": answer.at,
            "charged": f"nothing: asked before, and kept in {answer.folder}"
            if answer.was_kept
            else f"epsilon {asked.epsilon:g} at delta {answer.config.privacy.delta:g}, at most, "
            "in every site's ledger",
        },
    )
    say(ONE_SITE)


def sites_answered(answer: Answer) -> SitesAnswered:
    """An answer of sites, for programs."""
    from fmfl_secure.planning.answers import asked_of

    return SitesAnswered(
        figures=_figures(answer),
        sites=answer.cohort,
        at=answer.at,
        epsilon=0.0 if answer.was_kept else asked_of(answer.config).epsilon,
        delta=answer.config.privacy.delta,
        folder=str(answer.folder),
    )


def _figures(answer: Answer) -> Figures:
    return {
        question: {name: shown(each, FigureShown) for name, each in figures.items()}
        for question, figures in answer.figures.items()
    }


def written(figure: Figure) -> tuple[str, str, str]:
    """A figure and its two intervals, as text."""
    return (
        "nothing can be said" if figure.value is None else f"{figure.value:.4g}",
        _interval(figure.noise),
        _interval(figure.sampling),
    )


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def words(text: str) -> list[str]:
    """Words with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]
