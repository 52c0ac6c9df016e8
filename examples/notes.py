"""Synthetic clinical notes: with names, dates and places in them tagged, or filed by department."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
from tables import parts, write_table

from fmfl_secure.demonstration.notes import write_demo_notes

_PER_SITE, _HOLDOUT = 500, 300
_FIRST = ["Anna", "Jonas", "Mira", "Peter", "Leila", "Ola", "Sofia", "Karim", "Ingrid", "Tomas"]
_LAST = ["Berg", "Haugen", "Silva", "Novak", "Osei", "Lund", "Farah", "Moen", "Costa", "Weiss"]
_PLACES = ["Bergen", "Lyon", "Porto", "Graz", "Aarhus", "Turin", "Ghent", "Malmo", "Split", "Cork"]
_MONTHS = ["January", "March", "April", "June", "July", "August", "October", "December"]
_TEMPLATES = (
    "NAME was admitted on DATE with chest pain .",
    "Seen in PLACE on DATE by Dr NAME for a follow-up .",
    "NAME reports that the pain began in PLACE .",
    "The patient was transferred from PLACE and is stable .",
    "No fever since DATE ; blood pressure is normal .",
    "Mr NAME and his sister NAME were informed in PLACE .",
    "The wound is dry and the march of symptoms has stopped .",
    "Plan : review by Dr NAME , then discharge on DATE .",
)


def write(out: Path, *, sites: int) -> None:
    """JSON Lines with `tokens`, `tags` and `patient_id`, for each site and a holdout."""
    generator = np.random.default_rng(7)
    data = out / "data"
    data.mkdir(parents=True, exist_ok=True)
    for name, count in parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items():
        rows = []
        for number in range(count):
            tokens, tags = _note(generator)
            patient = f"{name}-{number // 2}"
            rows.append(json.dumps({"patient_id": patient, "tokens": tokens, "tags": tags}))
        (data / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_departments(out: Path, *, sites: int) -> None:
    """Tables of `patient_id`, `note`, `age_group` and `category`; a patient has one to three notes.

    They are the demonstration's notes: about one in nine fits two departments, and one in
    seventeen is filed under a wrong one. `new.csv` has notes that come in at one hospital later.
    """
    data = out / "data"
    made = write_demo_notes(data, sites=sites, per_site=1100, holdout=500, seed=7, overwrite=True)
    for file in (*made.sites, made.holdout.replace(data / "new.csv")):
        with file.open(encoding="utf-8", newline="") as opened:
            header, *rows = csv.reader(opened)
        place = header.index("note")
        grouped = [[*row, _age_group(row[place])] for row in rows]
        write_table(file, [*header, "age_group"], grouped)


def _age_group(note: str) -> str:
    age = re.search(r"([0-9]+)-year-old", note)
    if age is None:
        raise ValueError("a note without an age")
    return "65 and over" if int(age[1]) >= 65 else "under 65"


def _note(generator: np.random.Generator) -> tuple[list[str], list[str]]:
    tokens: list[str] = []
    tags: list[str] = []
    for template in generator.choice(_TEMPLATES, size=2, replace=False):
        for word in str(template).split():
            found = _entity(word, generator)
            tokens += found or [word]
            tags += [f"{'I' if i else 'B'}-{word}" for i in range(len(found))] or ["O"]
    return tokens, tags


def _entity(word: str, generator: np.random.Generator) -> list[str]:
    match word:
        case "NAME":
            last = [str(generator.choice(_LAST))]
            return last if generator.random() < 0.4 else [str(generator.choice(_FIRST)), *last]
        case "PLACE":
            return [str(generator.choice(_PLACES))]
        case "DATE":
            return [str(generator.integers(1, 29)), str(generator.choice(_MONTHS))]
    return []
