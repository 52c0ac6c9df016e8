"""Answers of the commands on reports, and of those on this machine and this program.

`cli.report`, `cli.doctor`, `cli.techniques` and others return these, and `--json` prints them;
`docs/answers.schema.json` is made from the types.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fmfl_secure.cli.answers.base import Answer


class DatasetReported(Answer, frozen=True, kw_only=True):
    """A report on one site's data over all runs.

    Attributes:
        files: That were written.
        heads_checked: Heads of its ledger, kept by others, that were looked for.
    """

    files: tuple[str, ...]
    heads_checked: int


class ReportBundled(Answer, frozen=True, kw_only=True):
    """A signed report.

    Attributes:
        file: That was written.
        signed_by: The coordinator's fingerprint.
    """

    file: str
    signed_by: str


class ReportVerified(Answer, frozen=True, kw_only=True):
    """A signed report that holds.

    Attributes:
        run: Its id.
        federation: Its name.
        status: What became of the run.
        ended: Whether the coordinator signed the run's end.
        page_made_again: Whether the page is the one that this version makes of the record.
        coordinator_expected: Whether its coordinator has the fingerprint that was asked for;
            false where none was named: then nobody checked who signed.
        sites_expected: Sites of which the same holds; of others nobody checked whose key it is.
        fingerprints: Of all whose signatures were checked, by name.
        unsigned: What in it nobody but the coordinator says, in sentences.
        files: That were written.
    """

    run: str
    federation: str
    status: str
    ended: bool
    page_made_again: bool
    coordinator_expected: bool
    sites_expected: tuple[str, ...]
    fingerprints: dict[str, str]
    unsigned: tuple[str, ...]
    files: tuple[str, ...]


class RehearsalJudged(msgspec.Struct, frozen=True, kw_only=True):
    """One rehearsal, judged again from what was kept of it.

    Attributes:
        file: The evidence.
        run: That it is of; empty where the evidence does not hold.
        number: Which of the run's; 0 where nothing says.
        cohort: Sites that took part.
        sum_came_out: Whether the sum of the public numbers was released.
        named: By party, the word for why it is to blame.
        recorded: By party, what the run's record says; null where there is none.
        fault: Why it is no evidence, or what the record says otherwise; empty where all agrees.
    """

    file: str
    run: str
    number: int
    cohort: tuple[str, ...]
    sum_came_out: bool
    named: dict[str, str]
    recorded: dict[str, str] | None
    fault: str


class RehearsalsJudged(Answer, frozen=True, kw_only=True):
    """Judgements of the rehearsals that were kept.

    Attributes:
        rehearsals: In order.
        faults: How many do not hold, or say something else than the record: with any, the exit
            code is 1.
    """

    rehearsals: tuple[RehearsalJudged, ...]
    faults: int


class SchemaPrinted(Answer, frozen=True, kw_only=True):
    """A JSON Schema.

    Attributes:
        schema: It itself.
    """

    schema: dict[str, Any]


class AssessmentDrafted(Answer, frozen=True, kw_only=True):
    """A draft of an assessment.

    Attributes:
        file: That was written.
        open_questions: How many are for people to answer.
    """

    file: str
    open_questions: int


class FindingShown(msgspec.Struct, frozen=True, kw_only=True):
    """One check's result.

    Attributes:
        what: What was looked at.
        state: `ok`, `missing` for what only some uses need, `question` for what people have to
            answer, or `fault`.
        found: What is there.
        advice: What to do; empty where all is well.
    """

    what: str
    state: Literal["ok", "missing", "question", "fault"]
    found: str
    advice: str


class Examined(Answer, frozen=True, kw_only=True):
    """A machine and a folder.

    Attributes:
        findings: All of them.
        faults: How many are at fault: with any, the exit code is 1.
    """

    findings: tuple[FindingShown, ...]
    faults: int


class TechniqueShown(msgspec.Struct, frozen=True, kw_only=True):
    """A technique of the literature.

    Attributes:
        name: As its authors call it.
        status: `works`, `refused` or `not yet`.
        said: The setting, the reason, or what is missing.
        instead: What to use where it does not work; may be empty.
        source: Number on arXiv; may be empty.
    """

    name: str
    status: str
    said: str
    instead: str
    source: str


class TechniquesShown(Answer, frozen=True, kw_only=True):
    """Techniques: the one that was named, or all.

    Attributes:
        techniques: In the order of the areas.
    """

    techniques: tuple[TechniqueShown, ...]


class JournalMade(Answer, frozen=True, kw_only=True):
    """A journal in place of a lost one.

    Attributes:
        party: Whose.
        barred: Runs that it joins nothing more of.
    """

    party: str
    barred: tuple[str, ...]


class AttacksShown(Answer, frozen=True, kw_only=True):
    """A demonstration in which every attack ended as expected.

    Attributes:
        page: Of all that was seen.
        attacks: How many were tried.
    """

    page: str
    attacks: int
