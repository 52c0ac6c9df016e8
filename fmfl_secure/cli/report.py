"""`fmfl-secure report`: of a run or of a site's data over all runs; signed, and checked later.

`cli` registers the group `report`. Its commands write pages and files from what a run or a ledger
has kept, and change neither's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import facts, say
from fmfl_secure.cli.acting import READS, Act, beside_key_or_run, beside_ledger
from fmfl_secure.cli.answers.base import Written
from fmfl_secure.cli.answers.reports import (
    DatasetReported,
    RehearsalJudged,
    RehearsalsJudged,
    ReportBundled,
    ReportVerified,
    SchemaPrinted,
)


class _RunByDefault(Group):
    """`report RUN` is `report show RUN`: the first word is a command only if one has its name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="Privacy-budget reports: of a run, and of one site's data over all runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@command(app, answers=Written, acts="it writes a run's report anew, from the run's own state")
def show(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print report.pdf too, with this machine's Chromium.")
    ] = False,
) -> Written:
    """Rebuild report.html, report.json and metrics.json from a run's state; `report RUN` in short.

    Example: fmfl-secure report show pilot/run-1 --pdf
    """
    from fmfl_secure.report.results import write_results
    from fmfl_secure.storage.run_store import RunStore

    write_results(RunStore(run_folder))
    page = run_folder / "report.html"
    return Written(files=_say_page(page, printed=pdf))


def _say_page(page: Path, *, printed: bool) -> tuple[str, ...]:
    """Say where a page is, and print it where that was asked for."""
    from fmfl_secure.report.pdf import print_pdf

    say(f"{page}")
    if not printed:
        return (str(page),)
    pdf = page.with_suffix(".pdf")
    print_pdf(page, pdf)
    say(f"{pdf}")
    return str(page), str(pdf)


@command(
    app,
    answers=DatasetReported,
    acts=Act(
        "report dataset",
        beside_ledger,
        keeps=("output", "run"),
        when=lambda given: not given["ledger"].endswith(".json"),
    ),
)
def dataset(
    ledger: Annotated[
        str,
        typer.Argument(
            metavar="LEDGER",
            help="A site's folder, a ledger's file or PostgreSQL URL, or an export of one (.json).",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for dataset.html and dataset.json.")] = Path(
        "dataset-report"
    ),
    run: Annotated[
        list[Path] | None,
        typer.Option(
            help="A run's folder or report.json, for what no ledger holds: refusals, and who saw "
            "its sums; may be repeated."
        ),
    ] = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(help="File or folder of anchors to look for in it; may be repeated."),
    ] = None,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print dataset.pdf too, with this machine's Chromium.")
    ] = False,
) -> DatasetReported:
    """Report on one site's data over all runs: what its ledger granted, paid for and has left.

    Exit code 1, with the report written all the same, if it lacks a head that others kept of it.

    Example: fmfl-secure report dataset pilot/sites/site-1 --run pilot/run-1 --run pilot/run-2
    --output site-1-report
    """
    from fmfl_secure.report.dataset import open_source, read_reports, record_of, write_dataset
    from privacy import missing_heads, read_anchors

    record = record_of(
        open_source(ledger),
        reports=read_reports(run or ()),
        anchors=[one for path in anchor or () for one in read_anchors(path)],
    )
    files = _say_page(write_dataset(record, output), printed=pdf)
    if record.heads_missing:
        raise missing_heads(record.heads_missing, of=record.heads_checked, end=record.head_sequence)
    return DatasetReported(files=files, heads_checked=record.heads_checked)


@command(
    app,
    answers=ReportBundled,
    acts=Act("report bundle", beside_key_or_run, keeps=("run_folder", "output")),
)
def bundle(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    output: Annotated[Path, typer.Option(help="File to write.")],
    identity: Annotated[
        Path | None,
        typer.Option(help="The coordinator's identity.pem; default: the federation's own."),
    ] = None,
) -> ReportBundled:
    """Sign a run's report for people who will have neither the run nor this machine.

    Example: fmfl-secure report bundle pilot/run-1 --output pilot-2026.report
    """
    from fmfl_secure.report.bundle import bundle_run
    from fmfl_secure.storage.files import require_new

    require_new(output)
    fingerprint = bundle_run(run_folder, output, identity=identity)
    say(f"{output}: signed by {fingerprint}")
    return ReportBundled(file=str(output), signed_by=fingerprint)


@command(app, answers=SchemaPrinted, acts=READS)
def schema(
    of_dataset: Annotated[
        bool, typer.Option("--dataset", help="That of dataset.json instead.")
    ] = False,
) -> SchemaPrinted:
    """Print the JSON Schema of report.json, for whoever reads reports by program.

    Example: fmfl-secure report schema --dataset
    """
    from fmfl_secure.report.schema import dataset_schema, report_schema, schema_text

    found = dataset_schema() if of_dataset else report_schema()
    say(schema_text(found).removesuffix("\n"))
    return SchemaPrinted(schema=found)


@command(app, answers=ReportVerified, acts=READS)
def verify(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A signed report.")],
    coordinator: Annotated[
        str, typer.Option(help="Fingerprint that its coordinator must have, from elsewhere.")
    ] = "",
    site: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FINGERPRINT",
            help="Fingerprint that a site must have, from elsewhere; may be repeated.",
        ),
    ] = None,
    extract: Annotated[
        Path | None, typer.Option(help="Folder to write report.html and report.json to.")
    ] = None,
) -> ReportVerified:
    """Check a signed report: every signature in it, and that its parts agree.

    Needs neither the run nor its machine. Compare the fingerprints with those that you were given
    by other means, sites' too: a bundle that names its own keys does not prove who holds them.
    What no site signed, and nobody but the coordinator says, is told at the end.
    Example: fmfl-secure report verify pilot-2026.report --extract pilot-2026
    """
    from fmfl_secure.report.bundle import extract_bundle, load_bundle, verify_bundle

    expected = _expected(site or ())
    checked = verify_bundle(load_bundle(file), coordinator=coordinator, sites=expected)
    record = checked.record
    facts(
        f"{file.name} holds",
        {
            "run": f"{record.run} of {record.federation}, {record.status}",
            "end of the run": "signed by the coordinator" if checked.ended else "not signed",
            "page": "says what the record says; its pictures are drawn anew"
            if checked.rendered_again
            else "signed, and made by another version: not made again",
        },
    )
    for name, fingerprint in checked.fingerprints.items():
        say(f"{name:<12} {fingerprint}")
    known = {*expected, *(("coordinator",) if coordinator else ())}
    if unknown := [name for name in checked.fingerprints if name not in known]:
        say(
            f"who signed   NOT CHECKED of {', '.join(unknown)}: these fingerprints are the "
            "bundle's own. Anybody can make a bundle with keys of their own, and a coordinator can "
            "put one in a site's place. Compare them with those that you were given by other "
            "means, or give them: --coordinator FINGERPRINT, --site NAME=FINGERPRINT"
        )
    for text in checked.unsigned:
        say(f"not signed   {text}")
    files: tuple[str, ...] = ()
    if extract is not None:
        extract_bundle(checked, extract)
        files = tuple(str(extract / name) for name in ("report.html", "report.json"))
        say(files[0])
    return ReportVerified(
        run=record.run,
        federation=record.federation,
        status=record.status,
        ended=checked.ended,
        page_made_again=checked.rendered_again,
        coordinator_expected=bool(coordinator),
        sites_expected=tuple(expected),
        fingerprints=dict(checked.fingerprints),
        unsigned=checked.unsigned,
        files=files,
    )


def _expected(given: Sequence[str]) -> dict[str, str]:
    """Sites' fingerprints as they were given, by name."""
    from fmfl_secure.errors import ConfigError

    found: dict[str, str] = {}
    for each in given:
        name, _, fingerprint = each.partition("=")
        if not name or not fingerprint.startswith("ed25519:") or name in found:
            raise ConfigError(
                f"--site {each}: expected a site's name and its fingerprint, and each site once",
                hint="For example: --site site-1=ed25519:86f0d38f...",
            )
        found[name] = fingerprint
    return found


@command(app, answers=RehearsalsJudged, ends=lambda found: 1 if found.faults else 0, acts=READS)
def rehearsals(
    path: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, or one N.msgpack of it.")
    ],
    pinned: Annotated[
        Path | None,
        typer.Option(
            help="Folder or kit of a party: its pinned keys count. Default: the run's federation."
        ),
    ] = None,
) -> RehearsalsJudged:
    """Judge again whom a run's rehearsals named, from what every party signed in them.

    Whoever has rehearsals/N.msgpack and the parties' public keys can: it takes no private key and
    believes no server. Exit code 1 if evidence is missing, was altered, or names others than the
    run's record does. That a party revealed nothing rests on the server's word.
    Example: fmfl-secure report rehearsals pilot/run-1
    """
    from fmfl_secure.report.rehearsed import judge_kept
    from fmfl_secure.run.rehearsal_words import judged_in_words

    answers = []
    for one in judge_kept(path, pinned=pinned):
        answer = RehearsalJudged(
            file=str(one.file),
            run=one.run,
            number=one.number,
            cohort=one.cohort,
            sum_came_out=one.holds,
            named=dict(one.named or {}),
            recorded=None if one.recorded is None else one.recorded.named,
            fault=one.fault,
        )
        answers.append(answer)
        for line in judged_in_words(answer.number, answer.named, answer.recorded, answer.fault):
            say(line)
    if not answers:
        say("nothing is kept: no rehearsal of this run named anybody")
    return RehearsalsJudged(rehearsals=tuple(answers), faults=sum(bool(a.fault) for a in answers))
