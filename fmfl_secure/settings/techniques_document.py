"""`docs/survey.md`, made from the table of techniques.

python -m fmfl_secure.settings.techniques_document > docs/survey.md
"""

from __future__ import annotations

import sys

from fmfl_secure.settings.techniques import TECHNIQUES, Technique

_INTRODUCTION = """\
# The survey's map

Which techniques of foundation models and federated learning work here, after the branches of the
survey "Synergizing Foundation Models and Federated Learning" (arXiv 2406.12844). The page is made
from the table that refusals are made from (`python -m
fmfl_secure.settings.techniques_document`); `fmfl-secure techniques NAME` shows a row, under any of
the names that it goes by.

- **works**: the admission gate passes, sites train it under encryption and a ledger, and its files
  open again. The test that shows it is named; for kinds of adapter besides, in a federation of
  its own, `tests/integration/test_local_run.py::test_every_kind_of_adapter_runs`.
- **refused**: it cannot be had under what is promised here: a weighted sum of updates is all that
  is opened, and a record's gradient depends on that record alone. What to use instead is named.
- **not yet**: what is missing is named.
"""


def survey_document() -> str:
    """Writes the survey's page as Markdown."""
    parts = [_INTRODUCTION]
    works = sum(technique.status == "works" for technique in TECHNIQUES)
    refused = sum(technique.status == "refused" for technique in TECHNIQUES)
    parts.append(
        f"Of {len(TECHNIQUES)} techniques, {works} work, {refused} are refused, and "
        f"{len(TECHNIQUES) - works - refused} are not there yet.\n"
    )
    for area in dict.fromkeys(technique.area for technique in TECHNIQUES):
        parts.append(f"## {area}\n")
        parts.append("| technique | here | how, why, or what is missing |\n| --- | --- | --- |")
        parts.append(
            "\n".join(_row(technique) for technique in TECHNIQUES if technique.area == area) + "\n"
        )
    return "\n".join(parts)


def _row(technique: Technique) -> str:
    source = f" ([{technique.source}](https://arxiv.org/abs/{technique.source}))"
    name = technique.name + (source if technique.source else "")
    if technique.status == "works":
        said = f"`{technique.said}`" if " = " in technique.said[:40] else technique.said
        return f"| {name} | **works** | {said}; `{technique.shown_by}` |"
    return f"| {name} | {technique.status} | {technique.said}. Use {technique.instead} |"


if __name__ == "__main__":
    sys.stdout.write(survey_document())
