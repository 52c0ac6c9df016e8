"""A draft of a data protection impact assessment: facts from a run's record, questions left open.

The questions are for people, and nothing here answers one. `python -m fmfl_secure.report.dpia`
prints the template without a run, which is `docs/dpia-template.md`.

`fmfl-secure dpia` (`cli.dpia`) calls `write_dpia` and then says how many `open_questions` are
left.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fmfl_secure.errors import RunError
from fmfl_secure.report import (
    answers,
    attacked,
    deltas,
    empirical,
    officer,
    overview,
    protection,
    rounding,
    shares,
    wording,
)
from fmfl_secure.report.dpia_questions import QUESTIONS
from fmfl_secure.report.signed import read_report
from fmfl_secure.report.verdict import verdict
from fmfl_secure.run.attack_record import AttackRecord
from fmfl_secure.run.record import RunRecord
from fmfl_secure.storage.files import write_output

DPIA_NAME = "dpia.md"


def render_dpia(record: RunRecord | None) -> str:
    """The draft as Markdown.

    Everything taken from the record is escaped: a name cannot become markup, a link or a row.

    Args:
        record: The run; None for the template without one.
    """
    environment = Environment(  # noqa: S701 - Markdown, escaped value by value
        loader=PackageLoader("fmfl_secure.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "plain": plain,
        "code": _code,
        "count": rounding.count,
        "left": rounding.left,
        "small": rounding.small,
        "spent": rounding.spent,
        "typed": rounding.typed,
    }
    facts = {} if record is None else _facts(record)
    numbered = [question for part in QUESTIONS.values() for question in part]
    return environment.get_template("dpia.md.j2").render(
        record=record, questions=numbered, ask=_ask, **({"alarms": []} | facts)
    )


def write_dpia(run: Path, output: Path | None = None) -> Path:
    """Draft an assessment of a run.

    Args:
        run: The run's folder, or its `report.json`.
        output: File to write; `dpia.md` beside the report if None.

    Returns:
        The file written.

    Raises:
        RunError: There is no report, it is not what its sites signed, or the file exists: people
            write into it, so it is never replaced.
    """
    record = read_report(run)
    folder = run if run.is_dir() else run.parent
    target = output if output is not None else folder / DPIA_NAME
    text = render_dpia(record)
    if target.exists():
        raise RunError(
            f"{target} exists; what people wrote into it is not replaced",
            hint="Name another file with --output, or move this one.",
        )
    write_output(target, text.encode("utf-8"))
    return target


def open_questions(text: str) -> int:
    """How many questions of a draft are still marked open."""
    return len(re.findall(r"^- \*\*OPEN \w\d+\.\*\*", text, re.MULTILINE))


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", flat)


def _code(text: str) -> str:
    # Nothing can be escaped within a code span, so what would end it is left out.
    return " ".join(str(text).split()).replace("`", "").replace("|", "")


def _ask(part: str) -> str:
    lines = (
        f"- **OPEN {part}{number}.** {question}\n"
        for number, question in enumerate(QUESTIONS[part], start=1)
    )
    return "".join(lines)


def _facts(record: RunRecord) -> dict[str, object]:
    private = record.mechanism.noise_mechanism.private
    word, text = wording.status(record)
    statements = list(overview.statements(record))
    return {
        "private": private,
        "alarms": [
            *empirical.warnings(record),
            *attacked.warnings(record),
            *wording.warnings(record),
        ],
        "state": f"{word}. {text}",
        "task": record.task or "not stated",
        "unit": wording.unit(record),
        "purposes": officer.purposes(record),
        "asked": answers.planned(record) or "nothing",
        "evaluated": _evaluated(record),
        "steps": record.mechanism.steps_per_round * record.mechanism.rounds,
        "cohort": str(record.settings.get("federation", {}).get("min_sites", "not stated")),
        "promised": wording.promised(record),
        "meanings": wording.meaning_in_short(record),
        "spent": wording.spent(record),
        "left": wording.left(record),
        "visibility": wording.visibility(record),
        "promises": _promises(record) if private else [],
        "limits": protection.limits(record),
        "roles": protection.roles(record),
        "noise": _noise(record),
        "trust": _trust(record),
        "attacks": _attacks(record),
        "check": _check(record),
        "statements": statements,
        "accounts": overview.accounts(record),
        "populations": {site.name: one.population for site, one in statements},
        "sizes": {site.name: deltas.declared(one.population_size) for site, one in statements},
        "heads": {
            site.name: f"`{one.head_sequence}:{_code(one.head_digest)}`" for site, one in statements
        },
    }


def _evaluated(record: RunRecord) -> str:
    if record.evaluation:
        return f"{record.evaluation}, declared public"
    if record.asked:
        return "no file; see what was asked of the sites"
    return "nothing: no evaluation data were declared public"


def _promises(record: RunRecord) -> Sequence[tuple[str, overview.Promise, object]]:
    return [
        (
            wording.promise_label(one, len(record.sites)),
            one,
            verdict(one.epsilon, one.delta),
        )
        for one in overview.promises(record)
    ]


def _noise(record: RunRecord) -> str:
    mechanism = record.mechanism
    where = (
        "Skellam noise in shares, of all sites in a sum together"
        if mechanism.noise_mechanism.in_shares
        else "Gaussian noise, added at each site before anything leaves it"
    )
    return (
        f"{where}; noise multiplier {mechanism.noise_multiplier:.5g}, planned to cost "
        f"at most epsilon {rounding.typed(mechanism.target_epsilon)} at delta "
        f"{rounding.small(mechanism.delta)}, repeats included{shares.planned(record)}"
    )


def _trust(record: RunRecord) -> str:
    if record.mechanism.noise_mechanism.in_shares:
        return shares.trust(record)
    return "the site's own installed code; the bound holds against everybody else together"


def _attacks(record: RunRecord) -> str:
    if not isinstance(record.attack, AttackRecord):
        return "none in this record; fmfl-secure attack RUN --public-like FILE makes some"
    return " ".join(attacked.sentences(record.attack))


def _check(record: RunRecord) -> str:
    if record.audit is None:
        return "none was made; fmfl-secure audit RUN makes one"
    return " ".join(empirical.sentences(record.audit))


if __name__ == "__main__":
    import sys

    sys.stdout.write(render_dpia(None))
