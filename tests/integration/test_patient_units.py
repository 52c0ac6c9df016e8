"""One patient of 500 records, from the file to the ledger: sampled as one, clipped as one."""

from __future__ import annotations

import ast
import csv
import random
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from support import WORDS, Quiet, make_federation

import privacy.mechanism.noise
import privacy.mechanism.training
from fmfl_secure.errors import RunError
from fmfl_secure.run.record import RunRecord, decode_record
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger
from privacy.accounting.rdp import RDP_UNIT
from privacy.mechanism.training import PrivateTrainer

PATIENTS, HEAVY = 20, 500  # patients of two records at each site; records of one more at site-1
BATCH = 8  # records in memory at once, `support.settings`
C = 0.5


GATE = "privacy.training.check_admission"  # which has tests of its own


def write_site(path: Path, *, heavy: int) -> None:
    """The heavy patient's records lie between the others', which are the same with and without."""
    rows = [row(n, f"p{n % PATIENTS}") for n in range(2 * PATIENTS)]
    for n in range(heavy):
        rows.insert(n * len(rows) // heavy, row(n, "heavy"))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "patient_id"), *rows])


def row(n: int, owner: str) -> tuple[str, str, str]:
    words = " ".join(WORDS[(n * 7 + k) % 16] for k in range(3 + n % 5))
    return words, "yes" if n % 3 else "no", owner


def prepare(folder: Path, model: Path, *, heavy: int, unit: str = "patient_id", **more) -> Path:
    path = make_federation(
        folder, model, evaluation=False, task=f'unit = "{unit}"', **({"rounds": 1} | more)
    )
    text = path.read_text().replace("population = 40", f"population = {PATIENTS}")
    path.write_text(text)
    for number in (1, 2, 3):
        data = folder / f"data/site-{number}.csv"
        write_site(data, heavy=heavy if number == 1 else 0)
    return path


class Watch:
    """What went through the trainers: sizes of physical batches, and the updates they made."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[np.ndarray]] = []  # by round, in the order of sites
        self.moves: list[np.ndarray] = []
        build, train = PrivateTrainer.__init__, PrivateTrainer.train_round

        def building(trainer, model, *, collate, **settings):
            seen: list[np.ndarray] = []
            self.batches.append(seen)

            def collating(records):
                seen.append(np.array(records))
                return collate(records)

            build(trainer, model, collate=collating, **settings)
            trainer.watched = model

        def training(trainer, on_step=None):
            before = weights(trainer.watched)
            train(trainer, on_step)
            self.moves.append(weights(trainer.watched) - before)

        patch.setattr(PrivateTrainer, "__init__", building)
        patch.setattr(PrivateTrainer, "train_round", training)


def weights(model) -> np.ndarray:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return np.concatenate([p.detach().double().numpy().ravel() for p in parameters])


def run(path: Path) -> RunRecord:
    return LocalEngine(path, path.parent / "run", resume=False, observer=Quiet()).run()


def moved(
    folder: Path, model: Path, *, heavy: int, unit: str = "patient_id", cap: int = 0
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Site-1's update, and its physical batches, of one step on everybody.

    The noise is the same in every run, as are the coins of a cap: what is left of the difference
    between two is what a patient does to what is released.
    """
    privacy_ = f"max_grad_norm = {C}\nmax_records_per_unit = {cap}"
    path = prepare(folder, model, heavy=heavy, unit=unit, privacy=privacy_)
    text = path.read_text().replace("sample_rate = 0.25", "sample_rate = 1.0")
    text = text.replace("steps_per_round = 2", "steps_per_round = 1")
    sgd = 'optimizer = "sgd"\nlearning_rate = 1.0\nhead_learning_rate = 1.0'
    path.write_text(text.replace("[training]", f"[training]\n{sgd}"))
    noise = np.random.default_rng(7).standard_normal(10_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            privacy.mechanism.noise.GaussianSource, "normal", lambda _, n: noise[:n].copy()
        )
        patch.setattr("privacy.mechanism.sampling.random.SystemRandom", lambda: random.Random(7))
        patch.setattr(GATE, lambda *_, **__: None)
        patch.setattr("fmfl_secure.report.write.render_html", lambda _: "")
        watch = Watch(patch)
        run(path)
    return watch.moves[0], watch.batches[0]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> np.ndarray:
    """The update of the other patients alone."""
    return moved(tmp_path_factory.mktemp("without"), tiny_model, heavy=0)[0]


@pytest.mark.parametrize("cap", [0, 16])
def test_a_patient_of_500_records_moves_the_update_by_what_one_may(
    tmp_path: Path, tiny_model: Path, without: np.ndarray, cap: int
) -> None:
    update, batches = moved(tmp_path, tiny_model, heavy=HEAVY, cap=cap)
    one = C / PATIENTS  # over the declared population, at sample rate 1
    change = float(np.linalg.norm(update - without))
    assert change <= one * (1 + 1e-3)
    assert change > 0.9 * one, "a large gradient is clipped to C, not lost"
    records = [len(batch) for batch in batches]
    assert sum(records) == 2 * PATIENTS + (cap or HEAVY)
    assert max(records) <= BATCH, "so the patient was spread over many"


@pytest.mark.slow
def test_the_same_records_as_units_of_their_own_move_it_by_far_more(
    tmp_path: Path, tiny_model: Path
) -> None:
    """The reject arm: what the bound above looks like where records are what is clipped."""
    updates = [
        moved(tmp_path / str(heavy), tiny_model, heavy=heavy, unit="record")[0]
        for heavy in (HEAVY, 0)
    ]
    assert np.linalg.norm(updates[0] - updates[1]) > 20 * C / PATIENTS


def test_ledger_and_report_speak_of_patients(tmp_path: Path, tiny_model: Path) -> None:
    """With noise and sampling: the cost is that of the event, however many records there are."""
    path = prepare(tmp_path, tiny_model, heavy=HEAVY, rounds=2, privacy="max_records_per_unit = 16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GATE, lambda *_, **__: None)
        watch = Watch(patch)
        record = run(path)
    ledger = Ledger(tmp_path / "sites/site-1/ledger.sqlite")
    budget = ledger.budget()
    assert budget.unit == "patient_id"
    (held,) = budget.reservations.values()
    mechanism = record.mechanism
    assert (held.event.sample_rate, held.event.steps) == (0.25, 2)
    accountant = RdpAccountant(list(ledger.status()[0].grant.orders))
    gaussian = dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(0.25, gaussian)
    accountant.compose(dp_accounting.SelfComposedDpEvent(sampled, 4))
    for rho, cost in zip(accountant.rdp, ledger.status()[0].committed.values(), strict=True):
        assert rho <= cost / RDP_UNIT <= rho + 1e-6
    others = Ledger(tmp_path / "sites/site-2/ledger.sqlite").budget().reservations.values()
    assert [other.event for other in others] == [held.event], "the same as at sites without"

    stored = decode_record((tmp_path / "run/report.json").read_bytes())
    assert stored.mechanism.unit == "patient_id"
    assert {site.population for site in stored.sites} == {PATIENTS}, "declared, and patients"
    assert stored.sites[0].statement is not None
    assert stored.sites[0].statement.unit == "patient_id"
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "one person (all records with one value of “patient_id”)" in page
    assert "People with several records." not in page, "they are what is protected"

    # A patient is in a step with all that the cap leaves of them, or not at all.
    text = (tmp_path / "data/site-1.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    heavy = {n for n, row in enumerate(rows) if row["patient_id"] == "heavy"}
    for batches in watch.batches[::3]:  # site-1's
        own = sum(int(n) in heavy for batch in batches for n in batch)
        assert own in {0, 16, 32}


def test_a_ledger_of_records_is_not_charged_for_patients(tmp_path: Path, tiny_model: Path) -> None:
    path = prepare(tmp_path, tiny_model, heavy=0, unit="record")
    path.write_text(path.read_text().replace('unit = "record"', 'unit = "patient_id"'))
    with pytest.raises(RunError, match="0 of 3 sites take part") as stop:
        run(path)
    assert stop.value.hint.count("configuration") == 3


SPELLINGS = [
    *("H7", "H7 ", " H7", "\N{NO-BREAK SPACE}H7", "H\u200b7", "\ufeffH7", "H7\t"),
    *("h7", "H-7", "H007"),  # a person's spelling too, if the settings say so
]


def respell(path: Path) -> None:
    """The site's side of it: the heavy patient's rows take turns at ten spellings of one id."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    heavy = (n for n, one in enumerate(rows) if one[2] == "heavy")
    for turn, n in enumerate(heavy):
        rows[n][2] = SPELLINGS[turn % len(SPELLINGS)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize(
    ("rules", "people"), [('["case", "punctuation", "zeros"]', 1), ('["exact"]', 4)]
)
def test_a_patient_of_ten_spellings_is_one_unit_of_the_sampler(
    tmp_path: Path, tiny_model: Path, without: np.ndarray, rules: str, people: int
) -> None:
    """The update moves by what one person may, C; of ids declared different, by what each may."""
    path = prepare(tmp_path, tiny_model, heavy=50, privacy=f"max_grad_norm = {C}")
    respell(tmp_path / "data/site-1.csv")
    text = path.read_text().replace("sample_rate = 0.25", "sample_rate = 1.0")
    text = text.replace("steps_per_round = 2", "steps_per_round = 1")
    text = text.replace("[adapter]", f"unit_normalisation = {rules}\n[adapter]")
    sgd = 'optimizer = "sgd"\nlearning_rate = 1.0\nhead_learning_rate = 1.0'
    path.write_text(text.replace("[training]", f"[training]\n{sgd}"))
    sampled: list[int] = []
    draw = privacy.mechanism.training.sampled_units

    def sampling(units, rate, cost=None):
        sampled.append(len(units))
        return draw(units, rate, cost)

    noise = np.random.default_rng(7).standard_normal(10_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            privacy.mechanism.noise.GaussianSource, "normal", lambda _, n: noise[:n].copy()
        )
        patch.setattr(privacy.mechanism.training, "sampled_units", sampling)
        patch.setattr(GATE, lambda *_, **__: None)
        watch = Watch(patch)
        record = run(path)
    assert sampled[0] == PATIENTS + people
    one = C / PATIENTS  # over the declared population, at sample rate 1
    change = float(np.linalg.norm(watch.moves[0] - without))
    if people == 1:
        assert 0.9 * one < change <= one * (1 + 1e-3)
    else:  # the reject arm: had they been one person, the ledger would have counted too little
        assert change > 1.5 * one
    assert record.settings["task"]["unit_normalisation"] == ast.literal_eval(rules)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert ("leading zeros" in page) == (people == 1)
    assert ("declared to be different people" in page) == (people == 4)
