"""A held-out unit is planted at a site, and found in no batch that a gradient is taken of."""

from __future__ import annotations

import csv
import threading
from pathlib import Path

import numpy as np
import pytest
from support import WORDS, Quiet, make_federation, open_own_site

import fmfl_secure.parties.site_training as site_module
from aggregation import Identity
from fmfl_secure import Federation
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.site_data import SiteSource
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger, PoissonSampledGaussian

PEOPLE = 20
CONSTANT = "constant_time = true\nmax_records_per_unit = 2"


def write(path: Path) -> None:
    rows = [
        (" ".join(WORDS[(n * 7 + k) % 16] for k in range(3 + n % 5)), "yes" if n % 3 else "no", who)
        for n, who in enumerate([f"p{n}" for n in range(PEOPLE)] * 2)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "patient_id"), *rows])


@pytest.mark.parametrize("privacy", ["", CONSTANT], ids=["plain", "constant-time"])
def test_a_planted_unit_is_in_no_gradient(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, privacy: str
) -> None:
    federation = make_federation(
        tmp_path, tiny_model, evaluation=False, task='unit = "patient_id"', rounds=1,
        privacy=privacy,
    )  # fmt: skip
    text = federation.read_text().replace('visibility = "public"', "holdout = 0.3")
    federation.write_text(text.replace("sample_rate = 0.25", "sample_rate = 1.0"))
    for number in (1, 2, 3):
        write(tmp_path / f"data/site-{number}.csv")
    seen: list[set[int]] = []
    apart: list[set[int]] = []
    read, train = SiteSource.read, site_module.train_locally

    def reading(source, **more):
        data = read(source, **more)
        records = [data.units[unit] for unit in np.flatnonzero(data.held_out)]
        apart.append({int(record) for own in records for record in own})
        assert apart[-1], "nobody is set apart: the test would show nothing"
        return data

    def training(model, adapter, data, **more):
        batches: set[int] = set()
        seen.append(batches)
        collate = data.collate

        def collating(records):
            batches.update(int(record) for record in records)
            return collate(records)

        object.__setattr__(data, "collate", collating)
        return train(model, adapter, data, **more)

    # Constant work has its own way from records to batches, made when data are read.
    def even(rounds, data, model):
        batches: set[int] = set()
        seen.append(batches)
        batches.update(int(record) for unit in data.units for record in unit)
        return work_on(rounds, data, model)

    monkeypatch.setattr("fmfl_secure.report.write.render_html", lambda _: "")
    monkeypatch.setattr(SiteSource, "read", reading)
    if privacy:
        work_on = site_module.even_rounds.__globals__["EvenRounds"].work_on
        monkeypatch.setattr(site_module.even_rounds.__globals__["EvenRounds"], "work_on", even)
    else:
        monkeypatch.setattr(site_module, "train_locally", training)
    LocalEngine(federation, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert len(seen) == len(apart) == 3
    for trained, held in zip(seen, apart, strict=True):
        assert trained
        assert trained | held == set(range(2 * PEOPLE)), "all others are in one"
        assert not trained & held
    # What the ledger counts is everybody: held-out units are asked, and are people too.
    reserved = Ledger(tmp_path / "sites/site-1/ledger.sqlite").budget()
    (held_run,) = reserved.reservations.values()
    assert held_run.population_size == 40


def test_a_site_that_was_in_a_run_makes_no_other_key(tmp_path: Path, tiny_model: Path) -> None:
    federation = make_federation(
        tmp_path, tiny_model, evaluation=False, task='unit = "patient_id"', rounds=1
    )
    text = federation.read_text().replace('visibility = "public"', "holdout = 0.3")
    federation.write_text(text)
    for number in (1, 2, 3):
        write(tmp_path / f"data/site-{number}.csv")
    config, place = load_federation(federation), tmp_path / "sites/site-1"

    def check() -> None:
        building = threading.Lock()
        open_own_site(tmp_path, "site-1", "run", config=config, building=building).check()

    check()
    key = (place / "holdout.key").read_bytes()
    signer = Identity.load(place / "identity.pem")
    ledger = Ledger(place / "ledger.sqlite", signer=signer)
    event = PoissonSampledGaussian(0.01, 20.0, 1)
    ledger.reserve(run="earlier", event=event, rounds=1, plan="p")
    check()
    (place / "holdout.key").unlink()
    with pytest.raises(ConfigError, match="the ledger holds earlier runs"):
        check()
    assert not (place / "holdout.key").exists()
    # The owner may say that no earlier run set anybody apart.
    Federation(federation).check("site-1")
    check()
    assert (place / "holdout.key").read_bytes() != key
