"""Who was in a round, by how much a site computed: told without constant work, and not with it.

Operations are counted, and no clock is read: what a step computes is what its time would tell.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from support import WORDS, Quiet, make_federation

import privacy.mechanism.sampling
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.models.prefix import FrozenPrefix
from fmfl_secure.planning.plans import quantization, site_plan
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.planning.work import step_work
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.training.constant_work import even_rounds
from fmfl_secure.training.local_round import train_locally
from fmfl_secure.transports.local.engine import LocalEngine

PATIENTS, RECORDS = 20, 500  # others at the site, of two records each; records of the heavy one
ON = "max_records_per_unit = 8\nconstant_time = true"
SHARES = "\nlength_shares = [[10, 0.8]]"


def write_site(path: Path, *, heavy: bool) -> None:
    rows = [_row(n, f"p{n % PATIENTS}") for n in range(2 * PATIENTS)]
    rows += [_row(n, "heavy") for n in range(RECORDS * heavy)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label", "patient_id"), *rows])


def _row(n: int, owner: str) -> tuple[str, str, str]:
    words = " ".join(WORDS[(n * 7 + k) % 16] for k in range(3 + n % 9))
    return words, "yes" if n % 3 else "no", owner


def federation(folder: Path, model: Path, privacy: str, *, training: str = "", **more) -> Path:
    path = make_federation(
        folder, model, evaluation=False, task='unit = "patient_id"', privacy=privacy, rounds=1,
        **more,
    )  # fmt: skip
    text = path.read_text().replace("population = 40", f"population = {PATIENTS + 1}\nrecords = 60")
    path.write_text(text.replace("[training]", f"[training]\n{training}"))
    return path


class Counted:
    """Rows and tokens of every forward pass of a model, in order; rows that frozen layers saw."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.passes: list[tuple[int, int]] = []
        self.frozen = 0
        read = AdaptedModel.read_text

        def reading(model, batch, **settings):
            self.passes.append(tuple(batch.input_ids.shape))
            return read(model, batch, **settings)

        below = FrozenPrefix._run_alone

        def running(prefix, forward, rows):
            self.frozen += len(rows)
            return below(prefix, forward, rows)

        patch.setattr(AdaptedModel, "read_text", reading)
        patch.setattr(FrozenPrefix, "_run_alone", running)

    def take(self) -> list[tuple[int, int]]:
        taken, self.passes = self.passes, []
        return taken


class Site:
    """One site's rounds as its own code trains them, without the rest of a federation."""

    def __init__(self, folder: Path, config: FederationConfig, *, heavy: bool) -> None:
        self.config, self.entry = config, config.sites[0]
        self.task = build_task(config, relative_to=folder)
        self.model = self.task.build_model(seed=1)
        self.layout = largest_layout(self.task, self.model)
        self.start = adapter_bytes(self.model)
        write_site(folder / "data/site-1.csv", heavy=heavy)
        self.data = self.task.load(folder / "data/site-1.csv", unit="patient_id")
        self.even = even_rounds(config, self.entry, self.task, least_s=0.0)
        if self.even is not None:
            self.even.prepare(self.model)

    def train(self) -> np.ndarray:
        size = self.layout.size
        data, work = self.data, None
        if self.even is not None:
            data, work = self.even.work_on(self.data, self.model)
        return train_locally(
            self.model,
            self.start,
            data,
            config=self.config,
            task=self.task,
            plan=site_plan(self.config, self.entry, size),
            layout=self.layout,
            rank=self.config.adapter.rank,
            quantization=quantization(self.config, self.layout, size),
            work=work,
        )


class Sampling:
    """Has the heavy patient, the last of a site's units, in a round or not; others as drawn."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.heavy = False
        draw = privacy.mechanism.sampling.poisson_sample

        def decided(units: int, sample_rate: float) -> np.ndarray:
            drawn = draw(units, sample_rate)
            others = drawn[drawn != PATIENTS]
            return np.append(others, PATIENTS) if self.heavy and units > PATIENTS else others

        patch.setattr(privacy.mechanism.sampling, "poisson_sample", decided)


def rounds_of(
    folder: Path, model: Path, privacy: str, *, heavy: bool, rounds: int = 4, **more
) -> list[tuple[bool, list[tuple[int, int]]]]:
    """By round, whether the heavy patient was in it, and the passes that it took."""
    config = load_federation(federation(folder, model, privacy, **more))
    site = Site(folder, config, heavy=heavy)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        counted, sampling = Counted(patch), Sampling(patch)
        for number in range(rounds):
            sampling.heavy = number % 3 == 1
            site.train()
            frozen, counted.frozen = counted.frozen, 0
            # After the first round frozen layers have seen all that they will.
            assert not (site.even and number and frozen)
            seen.append((sampling.heavy, [*counted.take(), (frozen, 0)]))
    return seen


def test_without_constant_work_the_rounds_of_a_patient_of_500_records_are_told(
    tmp_path: Path, tiny_model: Path
) -> None:
    """The attack: a glance at each round's work, and the rounds of that patient are known."""
    seen = rounds_of(tmp_path, tiny_model, "", heavy=True, rounds=6)
    guesses = [sum(rows for rows, _ in passes) > RECORDS // 2 for _, passes in seen]
    assert guesses == [was_in for was_in, _ in seen]
    assert guesses == [False, True, False, False, True, False]


@pytest.mark.parametrize("lengths", ["", SHARES], ids=["one-length", "two-lengths"])
def test_with_it_every_round_is_the_same_work_with_and_without_the_patient(
    tmp_path: Path, tiny_model: Path, lengths: str
) -> None:
    with_patient = rounds_of(tmp_path / "in", tiny_model, ON + lengths, heavy=True)
    without = rounds_of(tmp_path / "out", tiny_model, ON + lengths, heavy=False, rounds=3)
    # The first round computes frozen layers, once, for as many rows as are declared.
    assert with_patient[0][1] == without[0][1]
    work = {tuple(passes) for _, passes in [*with_patient[1:], *without[1:]]}
    assert len(work) == 1
    config = load_federation(tmp_path / "in/federation.toml")
    step = step_work(config, config.sites[0])
    declared = [
        (step.rows, length)
        for length, passes in zip(step.lengths, step.passes, strict=True)
        for _ in range(passes)
    ]
    assert list(*work) == [*declared * config.privacy.steps_per_round, (0, 0)]


@pytest.mark.parametrize(
    ("privacy", "training"),
    [
        ('noise = "distributed"\ncolluding_sites = 0\ninsider_epsilon = 50.0\n', ""),
        ("", 'steps_at = "server"'),
    ],
    ids=["distributed-noise", "local-noise"],
)
def test_steps_at_the_server_are_of_constant_work_too(
    tmp_path: Path, tiny_model: Path, privacy: str, training: str
) -> None:
    found = [
        passes
        for heavy in (True, False)
        for _, passes in rounds_of(
            tmp_path / str(heavy), tiny_model, privacy + ON, heavy=heavy, steps=1,
            training=training,
        )
    ]  # fmt: skip
    assert len(found) == 8
    assert found[0] == found[4]
    assert all(passes == found[1] for passes in [*found[1:4], *found[5:]])


def test_a_whole_run_is_the_same_work_at_every_site(tmp_path: Path, tiny_model: Path) -> None:
    """By the real sites, from their files: measuring, and one round."""
    counts = {}
    for heavy in (True, False):
        folder = tmp_path / str(heavy)
        path = federation(folder, tiny_model, ON)
        for number in (1, 2, 3):
            write_site(folder / f"data/site-{number}.csv", heavy=heavy and number == 1)
        with pytest.MonkeyPatch.context() as patch:
            counted = Counted(patch)
            record = LocalEngine(path, folder / "run", resume=False, observer=Quiet()).run()
            counts[heavy] = counted.take(), counted.frozen
        assert [each.status for each in record.rounds] == ["released"]
    assert counts[True] == counts[False]
    assert len(counts[True][0]) > 0
    assert counts[True][1] > 0


@pytest.mark.parametrize("cache_mib", [0, 2048], ids=["nothing-kept", "kept"])
def test_frozen_layers_are_kept_for_all_that_is_declared_or_for_nothing(
    tmp_path: Path, tiny_model: Path, cache_mib: int
) -> None:
    """What is kept of some records only would be told by those that are not."""
    path = federation(tmp_path, tiny_model, ON)
    text = path.read_text().replace("[training]", f"[training]\ncache_mib = {cache_mib}")
    path.write_text(text)
    site = Site(tmp_path, load_federation(path), heavy=True)
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(patch)
        frozen = []
        for _ in range(3):
            site.train()
            frozen.append(counted.frozen)
            counted.frozen = 0
    if cache_mib:
        assert frozen[0] >= 2 * PATIENTS + 8
        assert frozen[1:] == [0, 0]
    else:
        assert frozen == [0, 0, 0], "no prefix at all: every layer runs in every pass"
