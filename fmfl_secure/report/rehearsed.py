"""A run's rehearsals judged again, from what was kept of them: by anybody, who trusts no keeper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aggregation import DEVIATIONS, MOST_EVIDENCE, AggregationError, judge, read_evidence
from fmfl_secure.errors import RunDamaged, RunError
from fmfl_secure.outside import MALFORMED, read_regular
from fmfl_secure.parties.membership import MembershipFolder
from fmfl_secure.parties.workspace import Members
from fmfl_secure.run.record import RehearsalRecord, decode_round
from fmfl_secure.run.rehearsal_words import rehearsals_of
from fmfl_secure.storage.run_store import RunStore

FOLDER = "rehearsals"  # of a run's folder: one file a rehearsal, N.msgpack


@dataclass(frozen=True, slots=True)
class JudgedRehearsal:
    """The judgement of a rehearsal by its evidence.

    Attributes:
        file: Where the evidence is, or should be.
        run: The run that it is of; empty where the evidence does not hold.
        number: Which of the run's; 0 where the evidence does not hold and nothing else says.
        cohort: Sites that took part.
        holds: Whether the sum of the public numbers was released.
        named: By party why it is to blame: a word of `DEVIATIONS`.
        recorded: What the run's record says of it; None where there is no record.
        fault: Why the evidence is none, or says something else than the record; empty where
            neither is so.
    """

    file: Path
    run: str
    number: int
    cohort: tuple[str, ...] = ()
    holds: bool = False
    named: Mapping[str, str] | None = None
    recorded: RehearsalRecord | None = None
    fault: str = ""


def judge_kept(path: Path, *, pinned: Path | None = None) -> list[JudgedRehearsal]:
    """Judge a run's rehearsals, or a single one.

    Args:
        path: A run's folder, or a file of evidence.
        pinned: Folder or kit of the party whose pinned keys count; None takes those of the run's
            own federation.

    Returns:
        In order; of a run all of which something is kept, or should be.

    Raises:
        RunDamaged: Its state is.
        RunError: There is no such run, or of a single file nobody says whose keys count.
        ConfigError: The pinned keys cannot be read.
    """
    if not path.is_dir():
        if pinned is None:
            raise RunError(
                "a file of evidence does not say whose keys to believe",
                hint="--pinned FOLDER, of a party whose members.json is known to be right.",
            )
        return [_judge_file(path, MembershipFolder(pinned).members())]
    store = RunStore(path)
    members = MembershipFolder(pinned or store.state.origin).members()
    try:
        records = {one.number: one for one in rehearsals_of(map(decode_round, store.rounds()))}
    except MALFORMED as error:
        raise RunDamaged(f"the run in {path} is damaged: {error}") from error
    files = {_number(file): file for file in sorted((path / FOLDER).glob("*.msgpack"))}
    due = {n for n, one in records.items() if one.cohort and (one.named or not one.holds)}
    found = []
    for number in sorted({*files, *due}):
        file, record = files.get(number), records.get(number)
        if file is None:
            missing = path / FOLDER / f"{number}.msgpack"
            fault = "it is missing, and the record names somebody by it"
            found.append(
                JudgedRehearsal(missing, store.state.run, number, recorded=record, fault=fault)
            )
            continue
        judged = replace(_judge_file(file, members), recorded=record)
        if not judged.fault:
            judged = replace(judged, fault=_other_than_said(judged, store.state.run, number))
        found.append(judged)
    return found


def _judge_file(file: Path, members: Members) -> JudgedRehearsal:
    try:
        raw = read_regular(file, most_bytes=MOST_EVIDENCE)
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}") from error
    try:
        cohort, kept = read_evidence(raw, members.coordinator, members.pinned)
        found = judge(cohort, kept)
    except AggregationError as error:
        return JudgedRehearsal(file, "", _number(file), fault=f"it is no evidence: {error}")
    plan = cohort.round.plan
    return JudgedRehearsal(file, plan.run, plan.round, cohort.names, found.holds, found.named)


def _other_than_said(judged: JudgedRehearsal, run: str, number: int) -> str:
    """What the record says otherwise; what it says of silence in an attempt is the server's own."""
    record = judged.recorded
    if (judged.run, judged.number) != (run, number):
        return f"it is of rehearsal {judged.number} of {judged.run}"
    if record is None:
        return ""
    said = {name: word for name, word in record.named.items() if word in DEVIATIONS}
    if said != judged.named:
        return f"it names {_listed(judged.named or {})}, and the record {_listed(said)}"
    if (record.holds, record.cohort) != (judged.holds, judged.cohort):
        return "the record says something else of its sites, or of its sum"
    return ""


def _listed(named: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({word})" for name, word in named.items()) or "nobody"


def _number(file: Path) -> int:
    return int(file.stem) if file.stem.isdecimal() else 0
