"""Made-up clinical notes for the demo: nobody's data, and marked so in every row.

The notes are assembled from a small grammar (`_vocabulary`). A share of them cannot be told
apart, most mention a second department in passing, and some labels are wrong, so that the best
classifier stays well below 100 % and the number of examples matters, as with real notes.

`write_demo_notes` is called by `demonstration.federation`, for `fmfl-secure demo federation`, and
by measurements that want such texts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fmfl_secure.data.errors import DataArgumentError, OutputError
from fmfl_secure.data.output import write_files
from fmfl_secure.demonstration import _vocabulary as words

DEMO_CATEGORIES = ("cardiology", "neurology", "oncology", "gastroenterology", "respiratory")
DEMO_COLUMNS = ("note_id", "patient_id", "synthetic", "note", "category")
MARK = "SYNTHETIC NOTE."

_LABEL_NOISE = 0.06  # notes filed under a wrong category
_AMBIGUOUS = 0.11  # notes whose findings fit two categories
_SITE_TILT = 1.5  # weight of a site's two favoured categories, against 1
_NOTES_PER_PATIENT = (0.6, 0.25, 0.15)  # probabilities of 1, 2 and 3
_REDRAWS = 100  # for a note that is there already

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DemoNotes:
    """Where `write_demo_notes` put the files.

    Attributes:
        sites: One CSV file per site, in order.
        holdout: CSV file for evaluation; no patient of it is at a site.
        categories: The labels, in the order to configure.
    """

    sites: tuple[Path, ...]
    holdout: Path
    categories: tuple[str, ...]


def write_demo_notes(
    out: Path,
    *,
    sites: int,
    per_site: int,
    holdout: int,
    seed: int,
    overwrite: bool = False,
) -> DemoNotes:
    """Writes `site-1.csv`, `site-2.csv`, ... and `holdout.csv` with generated notes.

    Columns: `note_id, patient_id, synthetic, note, category`. A patient has one to three notes,
    all in one file. `synthetic` is always "true" and every note begins with "SYNTHETIC NOTE.".
    The same arguments give the same files, and no two notes are alike unless so many are asked
    for that chance cannot find another.

    Args:
        out: Directory, made if missing.
        sites: Number of sites, at least 1. Each favours two categories mildly.
        per_site: Notes per site, at least 1.
        holdout: Notes in the holdout file, at least 1; all categories alike.
        seed: Not negative.
        overwrite: Replace files that are there.

    Raises:
        DataArgumentError: A number is out of range.
        OutputError: A file exists already, or cannot be written.
    """
    for name, value, least in (
        ("sites", sites, 1),
        ("per_site", per_site, 1),
        ("holdout", holdout, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise DataArgumentError(f"{name} is {value}; expected at least {least}")
    names = [f"site-{number}.csv" for number in range(1, sites + 1)]
    present = [name for name in (*names, "holdout.csv") if (out / name).exists()]
    if present and not overwrite:
        raise OutputError(
            f"there are files already: {', '.join(present[:5])}",
            hint="name another directory, or ask to overwrite",
            path=out,
        )
    seen: set[str] = set()
    flat = np.full(len(DEMO_CATEGORIES), 1 / len(DEMO_CATEGORIES))
    contents = {"holdout.csv": _csv("H", holdout, flat, np.random.default_rng([seed, 0]), seen)}
    for number, name in enumerate(names, start=1):
        mix = np.ones(len(DEMO_CATEGORIES))
        mix[[number % len(mix), (number + 1) % len(mix)]] = _SITE_TILT
        rng = np.random.default_rng([seed, number])
        contents[name] = _csv(f"S{number}", per_site, mix / mix.sum(), rng, seen)
    write_files(out, contents)
    return DemoNotes(
        sites=tuple(out / name for name in names),
        holdout=out / "holdout.csv",
        categories=DEMO_CATEGORIES,
    )


def _csv(
    prefix: str,
    count: int,
    mix: np.typing.NDArray[np.float64],
    rng: np.random.Generator,
    seen: set[str],
) -> bytes:
    """One file's bytes. `seen` holds the notes of all files so far."""
    rows: list[tuple[str, str, str]] = []  # patient, note, category
    patient = 0
    while len(rows) < count:
        patient += 1
        category = DEMO_CATEGORIES[rng.choice(len(mix), p=mix)]
        visits = 1 + int(rng.choice(len(_NOTES_PER_PATIENT), p=_NOTES_PER_PATIENT))
        for _ in range(min(visits, count - len(rows))):
            for _ in range(_REDRAWS):
                note = _note(category, rng)
                if note not in seen:
                    break
            seen.add(note)
            filed = category
            if rng.random() < _LABEL_NOISE:
                filed = _pick(rng, [other for other in DEMO_CATEGORIES if other != category])
            rows.append((f"P-{prefix}-{patient:05d}", note, filed))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(DEMO_COLUMNS)
    for number, index in enumerate(rng.permutation(count), start=1):
        owner, note, filed = rows[index]
        writer.writerow((f"N-{prefix}-{number:05d}", owner, "true", note, filed))
    return buffer.getvalue().encode()


def _note(category: str, rng: np.random.Generator) -> str:
    """Two to four sentences: why the patient came, and up to three more."""
    ambiguous = rng.random() < _AMBIGUOUS
    if ambiguous:
        pair = _pick(rng, [pair for pair in words.SHARED if category in pair])
        findings = words.SHARED[pair]
    else:
        findings = words.FINDINGS[category]
    first, second = (findings[index] for index in rng.choice(len(findings), 2, replace=False))
    age = int(rng.integers(19, 92))
    article = "An" if age // 10 == 8 else "A"
    opening = (
        f"{article} {age}-year-old {_pick(rng, words.PEOPLE)} {_pick(rng, words.ARRIVALS)} "
        f"with {first}"
    )
    extra = [_pick(rng, words.DISTRACTORS)]
    # What a person had before, or a relative has, is often another department's affair.
    if rng.random() < 0.6:
        other = _pick(rng, DEMO_CATEGORIES)
        whose = _pick(rng, ("There is", "The family has", "The chart lists"))
        extra.append(f"{whose} a history of {_pick(rng, words.BACKGROUND[other])}")
    if rng.random() < 0.45:
        extra.append(f"{_pick(rng, words.CONNECTIVES)} {second}")
    if not ambiguous and rng.random() < 0.3:
        extra.append(_pick(rng, words.PLANS[category]))
    kept = [extra[index] for index in rng.permutation(len(extra))[:3]]
    filled = [_fill(sentence, rng) for sentence in (opening, *kept)]
    return " ".join((MARK, *(f"{sentence}." for sentence in filled)))


def _fill(sentence: str, rng: np.random.Generator) -> str:
    if "{" not in sentence:
        return sentence
    return (
        sentence.format(
            span=_pick(rng, words.SPANS),
            grade=_pick(rng, words.GRADES),
            side=_pick(rng, words.SIDES),
        )
        .replace(" a occasional", " an occasional")
        .replace(" a intermittent", " an intermittent")
    )


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
