"""Units set apart: by a key of the site's own, the same for ever, whoever else there is."""

from __future__ import annotations

import csv
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support import settings, write_tiny_bert

from fmfl_secure.data import DataError
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.holdout import HoldoutKey
from fmfl_secure.parties.site_data import SiteSource
from fmfl_secure.planning.noise import privacy_plan
from fmfl_secure.planning.plans import predict
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.settings.site import SiteBudget, SiteConfig, SiteData
from fmfl_secure.tasks import Task, TaskData

IDS = [f"p{n}" for n in range(4000)]


def key(folder: Path, population: str = "patients") -> HoldoutKey:
    return HoldoutKey.open(folder / "holdout.key", population)


def test_a_share_is_set_apart_and_stays_so(tmp_path: Path) -> None:
    first = key(tmp_path).sets_apart(IDS, 0.1)
    assert 0.08 < first.mean() < 0.12
    assert np.array_equal(key(tmp_path).sets_apart(IDS, 0.1), first)
    larger = key(tmp_path).sets_apart(IDS, 0.3)
    assert larger[first].all(), "a larger share takes in what a smaller one did"


def test_a_units_part_does_not_depend_on_the_others(tmp_path: Path) -> None:
    whole = dict(zip(IDS, key(tmp_path).sets_apart(IDS, 0.1), strict=True))
    others = [name for name in reversed(IDS) if name != "p7"]
    assert all(
        whole[name] == apart
        for name, apart in zip(others, key(tmp_path).sets_apart(others, 0.1), strict=True)
    )


def test_another_key_or_population_sets_others_apart(tmp_path: Path) -> None:
    own = key(tmp_path).sets_apart(IDS, 0.5)
    (tmp_path / "other").mkdir()
    for other in (key(tmp_path / "other"), key(tmp_path, "staff")):
        assert 0.4 < (own == other.sets_apart(IDS, 0.5)).mean() < 0.6


def test_the_key_is_its_owners_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "holdout.key"
    secret = key(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes().hex() not in repr(secret)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        key(tmp_path)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match="does not hold a key") as refused:
        key(tmp_path)
    assert "backup" in refused.value.hint


COLUMNS = ("text", "label", "patient", "sex")


def write(path: Path, people: list[str], rows: int = 2) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for n, person in enumerate(people * rows):
            writer.writerow([f"alpha beta {n}", "yes", person, ("f", "m", "x")[n % 3]])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FederationConfig, Task, Path]:
    folder = tmp_path_factory.mktemp("holdout")
    text = settings(write_tiny_bert(folder / "model"), task='unit = "patient"', evaluation=False)
    text = text.replace('visibility = "public"', "holdout = 0.5")
    (folder / "federation.toml").write_text(text)
    config = load_federation(folder / "federation.toml")
    return config, build_task(config, relative_to=folder), folder


def source(made, folder: Path, *, file: str = "", **evaluation: object) -> SiteSource:
    config, task, _ = made
    config = msgspec.structs.replace(
        config, evaluation=msgspec.structs.replace(config.evaluation, **evaluation)
    )
    site = SiteConfig(
        data=SiteData(path="data.csv", holdout=file), budget=SiteBudget(population="patients")
    )
    return SiteSource(folder, site, config, task)


def people(data: TaskData) -> set[str]:
    return set(data.ids)


def test_what_is_set_apart_is_not_trained_on(made, tmp_path: Path) -> None:
    write(tmp_path / "data.csv", IDS[:40])
    data = source(made, tmp_path).read()
    apart = {name for name, held in zip(data.ids, data.held_out, strict=True) if held}
    assert 5 < len(apart) < 35
    assert people(data.to_train()) == set(IDS[:40]) - apart
    assert len(data.to_train().units) == 40 - len(apart)
    assert f"{len(apart)} of 40 units" in data.said_of_held_out


def test_who_is_in_the_file_of_held_out_units_is_in_no_other(made, tmp_path: Path) -> None:
    """A person in both files is one unit, and never trained on."""
    write(tmp_path / "data.csv", IDS[:10])
    write(tmp_path / "apart.csv", IDS[8:14])
    data = source(made, tmp_path, file="apart.csv", holdout=0.0).read()
    assert sorted(data.ids) == sorted(IDS[:14])
    assert people(data.to_train()) == set(IDS[:8])
    assert {n for n, held in zip(data.ids, data.held_out, strict=True) if held} == set(IDS[8:14])


def test_a_site_with_nobody_left_to_train_on_is_refused(made, tmp_path: Path) -> None:
    """Else its update would be noise, and it would be charged for that."""
    write(tmp_path / "data.csv", IDS[:10])
    write(tmp_path / "apart.csv", IDS[:14])
    with pytest.raises(DataError, match="none is left to train on") as refusal:
        source(made, tmp_path, file="apart.csv", holdout=0.0).read()
    assert "data.holdout" in refusal.value.hint


def test_without_either_all_are_trained_on(made, tmp_path: Path) -> None:
    write(tmp_path / "data.csv", IDS[:5])
    data = source(made, tmp_path, holdout=0.0).read()
    assert data.to_train() is data
    assert not data.said_of_held_out


def test_records_without_ids_are_not_split(made) -> None:
    _, _, folder = made
    text = (folder / "federation.toml").read_text().replace('unit = "patient"', "")
    (folder / "records.toml").write_text(text)
    with pytest.raises(ConfigError, match="there are none: name the column"):
        load_federation(folder / "records.toml")


def test_held_out_units_are_not_asked_where_there_are_none(made, tmp_path: Path) -> None:
    config, task, _ = made
    write(tmp_path / "data.csv", IDS[:5])
    asks = msgspec.structs.replace(config, question=QuestionSection(what=("accuracy",), epsilon=1))
    without = source((asks, task, tmp_path), tmp_path, holdout=0.0)
    with pytest.raises(ConfigError, match="none are set apart") as refused:
        without.check()
    assert "data.holdout in site.toml" in refused.value.hint
    source((asks, task, tmp_path), tmp_path).check()


def test_a_declared_subgroup_is_read_beside_and_makes_no_row_bad(made, tmp_path: Path) -> None:
    write(tmp_path / "data.csv", IDS[:6], rows=1)
    own = source(made, tmp_path, subgroup_column="sex", subgroups=("m", "f"))
    assert own.read().groups.tolist() == [1, 0, -1, 1, 0, -1]
    missing = source(made, tmp_path, subgroup_column="age", subgroups=("m", "f"))
    with pytest.raises(DataError, match="there is no column 'age'"):
        missing.check()


def test_rates_count_who_is_trained_on_and_the_ledger_everybody(made) -> None:
    config, _, _ = made
    site = config.sites[0]
    assert site.population == 40
    assert privacy_plan(config, site).population == config.trained_units(site) == 20
    assert predict(config, 100).sites[0].expected_batch_size == 20 * config.privacy.sample_rate
