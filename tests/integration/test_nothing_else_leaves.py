"""What leaves a site has the same form whatever its data: pairs of runs that differ in one unit.

Compared is everything that others get to see: each message's kind, size and order, every site's
statement and refusal, the report, and the adapter's files. Content that is random or noised
(digests, signatures, ciphertexts, weights) is compared by its size alone.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import WORDS, Quiet, make_federation

import privacy.mechanism.sampling
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import TrainingError
from privacy.mechanism.training import PrivateTrainer

RANDOM = re.compile(
    r"[0-9a-f]{16,}"  # digests, signatures, run ids
    r"|[A-Za-z0-9+/]{40,}={0,2}"  # keys
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00"
)
SECRET = "Mrs Quimby of Elm Street"


def form(value: Any) -> Any:
    """A value with what is random replaced by its length, and everything else as it is."""
    if isinstance(value, dict):
        return {name: form(each) for name, each in value.items()}
    if isinstance(value, list):
        return [form(each) for each in value]
    if isinstance(value, str):
        return RANDOM.sub(lambda found: f"<{len(found[0])}>", value)
    return value


@dataclass(frozen=True)
class Seen:
    """What a run shows to others, less what is random.

    Attributes:
        messages: Every line of the transcript.
        report: All of `report.json`: statements, refusals, mechanism, rounds.
        adapter: Size of each of its files.
    """

    messages: list[dict[str, Any]]
    report: dict[str, Any]
    adapter: dict[str, int]


def seen(folder: Path) -> Seen:
    text = (folder / "run/transcript.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        line["message"] = len(line.get("message", ""))
    return Seen(
        messages=form(lines),
        report=form(json.loads((folder / "run/report.json").read_bytes())),
        adapter={file.name: file.stat().st_size for file in (folder / "run/adapter").iterdir()},
    )


def quicken(patch: pytest.MonkeyPatch) -> None:
    """The gate looks at synthetic records only, and the page at what the report holds."""
    patch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    patch.setattr("fmfl_secure.report.write.render_html", lambda _: "")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


def federation(folder: Path, model: Path, **more: Any) -> Path:
    return make_federation(folder, model, rounds=1, evaluation=False, **more)


def go(path: Path) -> Quiet:
    observer = Quiet()
    LocalEngine(path, path.parent / "run", resume=False, observer=observer).run()
    return observer


def rows_of(folder: Path, site: str = "site-2") -> Path:
    return folder / f"data/{site}.csv"


def edit_line(folder: Path, number: int, line: str | None) -> None:
    """Replace a line of site-2's data, or leave it out."""
    path = rows_of(folder)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[number : number + 1] = [] if line is None else [line]
    path.write_text("".join(lines), encoding="utf-8")


# One unit more or less, of any kind.


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Seen:
    """A run that each of the following differs from in one record of site-2."""
    folder = tmp_path_factory.mktemp("ordinary")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        go(federation(folder, tiny_model))
    return seen(folder)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(None, id="left out"),
        pytest.param(",yes\n", id="empty"),
        pytest.param("alpha,beta,yes\n", id="with a column too many"),
        pytest.param(f"{' '.join(WORDS * 2000)},yes\n", id="far too long"),
        pytest.param("alpha beta,perhaps\n", id="of another label", marks=pytest.mark.slow),
        pytest.param("alpha,no\n", id="of one word", marks=pytest.mark.slow),
        pytest.param("\u00e6\u00f8 \U0001f600,no\n", id="unknown words", marks=pytest.mark.slow),
    ],
)
def test_one_record_changes_no_form_no_size_and_no_code(
    tmp_path: Path, tiny_model: Path, ordinary: Seen, line: str | None
) -> None:
    path = federation(tmp_path, tiny_model)
    edit_line(tmp_path, 17, line)
    assert go(path).refused == {}
    assert seen(tmp_path) == ordinary


def test_a_unit_whose_gradient_is_not_finite_changes_none_either(
    tmp_path: Path, tiny_model: Path, ordinary: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = spoil_record(monkeypatch, 16)
    go(federation(tmp_path, tiny_model))
    assert len(met) == 6, "once in each of two steps at three sites"
    assert seen(tmp_path) == ordinary


def spoil_record(monkeypatch: pytest.MonkeyPatch, record: int) -> list[int]:
    """Make the loss of one record infinite, and sample it always; lists where that was met."""
    original, met = PrivateTrainer.__init__, []
    sample = privacy.mechanism.sampling.poisson_sample

    def spoiling(self, model, *, loss, collate, **settings):
        last: list[np.ndarray] = []

        def collate_and_note(records):
            last[:] = [records]
            return collate(records)

        def infinite_for_one(model, batch):
            losses, hit = loss(model, batch), torch.from_numpy(last[0] == record)
            met.extend([record] * int(hit.sum()))
            return torch.where(hit, losses * torch.inf, losses)

        original(self, model, loss=infinite_for_one, collate=collate_and_note, **settings)

    monkeypatch.setattr(PrivateTrainer, "__init__", spoiling)
    monkeypatch.setattr(
        privacy.mechanism.sampling,
        "poisson_sample",
        lambda *some: np.union1d(sample(*some), [record]),
    )
    return met


def write_patients(folder: Path, *, heavy: bool) -> None:
    """Twenty patients of two records at site-2, and, if wanted, one of sixty."""
    for site in ("site-1", "site-2", "site-3"):
        patients = [f"p{n // 2}" for n in range(40)]
        if heavy and site == "site-2":
            patients[7:7] = ["heavy"] * 60
        with rows_of(folder, site).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "patient_id"])
            for n, patient in enumerate(patients):
                words = " ".join(WORDS[(n + k) % 16] for k in range(3 + n % 5))
                writer.writerow([words, "yes" if n % 2 else "no", patient])


def run_patients(folder: Path, model: Path, *, heavy: bool, cap: int) -> Seen:
    path = federation(
        folder,
        model,
        task='unit = "patient_id"',
        privacy=f"max_records_per_unit = {cap}",
    )
    write_patients(folder, heavy=heavy)
    go(path)
    return seen(folder)


@pytest.mark.parametrize("cap", [0, 4])
def test_a_patient_of_many_records_changes_none_either(
    tmp_path: Path, tiny_model: Path, cap: int
) -> None:
    with_patient = run_patients(tmp_path / "with", tiny_model, heavy=True, cap=cap)
    without = run_patients(tmp_path / "without", tiny_model, heavy=False, cap=cap)
    assert with_patient == without
    assert with_patient.report["mechanism"]["unit"] == "patient_id"


# One failure looks like another.


def unusable_row(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit_line(folder, 17, f"{SECRET},perhaps\n")


def broken_quoting(folder: Path, patch: pytest.MonkeyPatch) -> None:
    edit_line(folder, 17, f'"{SECRET}\n')


def raising(
    error: Exception, owner: type = PrivateTrainer, call: str = "train_round"
) -> Callable[[Path, pytest.MonkeyPatch], None]:
    """The second such call fails; sites train in their order."""

    def prepare(folder: Path, patch: pytest.MonkeyPatch) -> None:
        original, calls = getattr(owner, call), []

        def failing(self, *rest, **named):
            calls.append(None)
            if len(calls) == 2:
                raise error
            return original(self, *rest, **named)

        patch.setattr(owner, call, failing)

    return prepare


CAUSES: dict[str, Callable[[Path, pytest.MonkeyPatch], None]] = {
    "an unusable row": unusable_row,
    "broken quoting": broken_quoting,
    "a private step's own check": raising(TrainingError(f"{SECRET} exceeds the norm")),
    "no memory": raising(MemoryError()),
    "a library's error": raising(RuntimeError(f"cannot broadcast {SECRET}")),
    "a bad byte": raising(UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, "invalid")),
    "a full disk": raising(OSError(28, f"no space for {SECRET}"), UpdateStore, "put"),
}
SLOW = {"broken quoting", "a library's error", "a bad byte"}


def failed(folder: Path, model: Path, cause: str, patch: pytest.MonkeyPatch) -> tuple[Seen, Quiet]:
    path = federation(folder, model, sites=4, task='on_bad_row = "error"')
    CAUSES[cause](folder, patch)
    observer = go(path)
    return seen(folder), observer


@pytest.fixture(scope="module")
def failure(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Seen:
    """How a failure at site-2 looks to others."""
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        found, _ = failed(tmp_path_factory.mktemp("failure"), tiny_model, "no memory", patch)
    return found


@pytest.mark.parametrize(
    "cause",
    [
        pytest.param(cause, marks=[pytest.mark.slow] if cause in SLOW else [])
        for cause in CAUSES
        if cause != "no memory"
    ],
)
def test_a_failure_looks_the_same_whatever_its_cause(
    tmp_path: Path, tiny_model: Path, failure: Seen, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, observer = failed(tmp_path, tiny_model, cause, monkeypatch)
    assert observer.refused["site-2"][0] == "failed"
    assert found == failure
    assert found.report["rounds"][0]["refusals"] == {"site-2": "failed"}
    for file in (tmp_path / "run").rglob("*"):
        if file.is_file():
            assert b"Quimby" not in file.read_bytes(), file


def test_the_comparison_sees_what_differs(ordinary: Seen, failure: Seen) -> None:
    """The reject arm: a site that drops out is another form, another statement, another report."""
    assert failure.messages != ordinary.messages
    assert failure.report["sites"][1] != ordinary.report["sites"][1]
    # The card beside the adapter says who took part, as the report does.
    card = "README.md"
    assert {**failure.adapter, card: 0} == {**ordinary.adapter, card: 0}
