"""`fmfl-secure dpia`: a draft of a data protection impact assessment from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.answers.reports import AssessmentDrafted

app = typer.Typer()


@command(app, answers=AssessmentDrafted, acts="it drafts a text from a report")
def dpia(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or its report.json.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: dpia.md beside the report.")
    ] = None,
) -> AssessmentDrafted:
    """Draft a data protection impact assessment: facts from the run, questions left open.

    Help with drafting, not legal advice. A file that exists is never replaced.
    Example: fmfl-secure dpia pilot/run-1
    """
    from fmfl_secure.report.dpia import open_questions, write_dpia

    path = write_dpia(run_folder, output)
    found = open_questions(path.read_text(encoding="utf-8"))
    say(f"{path}: {found} questions are open, for people to answer")
    return AssessmentDrafted(file=str(path), open_questions=found)
