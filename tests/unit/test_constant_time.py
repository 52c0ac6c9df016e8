"""`privacy.constant_time`: what settings may say, when a site answers, and who is told of what."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from support import make_federation, settings
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.doctor.federation import examine_federation
from fmfl_secure.errors import ConfigError
from fmfl_secure.planning.work import describe_work, step_work
from fmfl_secure.report.protection import limits
from fmfl_secure.settings.federation import (
    FederationConfig,
    convert_config,
    decode_config,
    encode_config,
)
from fmfl_secure.settings.templates import federation_toml
from fmfl_secure.tasks import TaskData
from fmfl_secure.training.constant_work import Declared, EvenRounds

ON = "constant_time = true\nmax_records_per_unit = 8\n"


def config(privacy: str = ON, *, unit: str = "patient", **more) -> FederationConfig:
    text = settings(Path("model"), privacy=privacy, task=f'unit = "{unit}"', **more)
    return convert_config(tomllib.loads(text), FederationConfig, source="test")


def test_settings_that_do_not_say_keep_digest_and_meaning() -> None:
    """Those of 0.1.0, and of runs that began with it: absent is neither true nor false."""
    silent = config("max_records_per_unit = 8")
    encoded = msgspec.json.decode(encode_config(silent))
    assert not {"constant_time", "length_shares"} & set(encoded["privacy"])
    assert all("records" not in site for site in encoded["sites"])
    assert not silent.constant_work
    assert not decode_config(encode_config(silent)).constant_work
    assert not config("").constant_work
    said = config("constant_time = false")
    assert not said.constant_work
    assert len({silent.digest, said.digest, config().digest}) == 3
    assert decode_config(encode_config(config())).constant_work


def test_new_settings_ask_for_it_where_the_unit_is_a_column() -> None:
    text = federation_toml("pilot", 3)
    fresh = convert_config(tomllib.loads(text), FederationConfig, source="init")
    assert not fresh.constant_work
    by_person = convert_config(
        tomllib.loads(text.replace('unit = "record"', 'unit = "patient_id"')),
        FederationConfig,
        source="init",
    )
    assert by_person.constant_work
    assert by_person.privacy.max_records_per_unit == 8


@pytest.mark.parametrize(
    ("privacy", "more", "complaint"),
    [
        ("constant_time = true", {}, "need an end for work to be constant. 8 is a good start"),
        (ON + "length_shares = [[16, 0.5]]", {}, "below model.max_length = 16"),
        (ON + "length_shares = [[9, 0.5], [4, 0.6]]", {}, "expected ascending ones"),
        (ON + "length_shares = [[9, 1.5]]", {}, "at most 1"),
    ],
    ids=["no-cap", "too-long", "order", "share"],
)
def test_what_cannot_be_constant_is_refused(privacy: str, more: dict, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config(privacy, **more)


def test_declared_records_fit_their_units() -> None:
    text = settings(Path("model"), privacy=ON, task='unit = "patient"')
    for records, fits in ((320, True), (321, False)):
        changed = tomllib.loads(text)
        changed["sites"][0]["records"] = records
        if fits:
            assert step_work(convert_config(changed, FederationConfig, source="x"), _first(changed))
        else:
            with pytest.raises(ConfigError, match="site-1 declares 321 records"):
                convert_config(changed, FederationConfig, source="x")


def _first(data: dict):
    return convert_config(data, FederationConfig, source="x").sites[0]


def test_declaring_fewer_records_and_shorter_ones_costs_less() -> None:
    data = tomllib.loads(settings(Path("model"), privacy=ON, task='unit = "patient"'))
    most = convert_config(data, FederationConfig, source="x")
    data["sites"][0]["records"] = 60
    fewer = convert_config(data, FederationConfig, source="x")
    data["privacy"]["length_shares"] = [[6, 0.1]]
    shorter = convert_config(data, FederationConfig, source="x")
    tokens = [step_work(c, c.sites[0]).total_tokens for c in (most, fewer, shorter)]
    assert tokens == sorted(tokens, reverse=True)
    assert len(set(tokens)) == 3
    assert "rows on average have a record" in describe_work(fewer, fewer.sites[0])


@dataclass
class Clock:
    now_s: float = 100.0
    slept_s: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


def even(clock: Clock, period_s: float) -> EvenRounds:
    return EvenRounds(
        "site-1", None, None, 2, 0.0, Declared(4, 2, ((5, 0.5),)),  # type: ignore[arg-type]
        clock=clock, sleep=clock.sleep, period_s=period_s,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("took_s", "ends_s"), [(0.0, 110.0), (3.0, 110.0), (10.0, 110.0), (10.5, 120.0), (34.0, 140.0)]
)
@pytest.mark.parametrize("fails", [False, True])
def test_an_answer_comes_at_the_end_of_a_period_or_of_a_later_one(
    took_s: float, ends_s: float, fails: bool
) -> None:
    """A failure too: it is told no earlier than an update would be."""
    clock = Clock()

    def work() -> None:
        with even(clock, 10.0).paced():
            clock.now_s += took_s
            if fails:
                raise ValueError

    if fails:
        with pytest.raises(ValueError):  # noqa: PT011
            work()
    else:
        work()
    assert clock.now_s == ends_s


def test_answers_have_a_period_of_their_own_made_on_records_that_are_made_up() -> None:
    """Made-up records take 1 s each; a person of any number of records has the same answer time."""
    clock = Clock()
    cost = np.ones(2, dtype=np.int64)
    made_up = TaskData(collate=lambda _: None, units=[], record_cost=cost)
    training = even(clock, 10.0)
    training.task = SimpleNamespace(synthetic=lambda: made_up)  # type: ignore[assignment]
    answers = training.for_answers()
    assert answers.period_s == 0.0

    def answer(data: TaskData) -> None:
        clock.now_s += data.records

    answers.prepare_answer(answer)
    assert answers.period_s == 1.5 * 2 * (4 / 2), "4 records are declared, of 1 s each, and room"
    answers.prepare_answer(answer)
    began_s, ends = clock.now_s, []
    for records in (1, 4, 6):
        clock.now_s = began_s
        with answers.paced():
            clock.now_s += records
        ends.append(clock.now_s - began_s)
    assert ends == [6.0, 6.0, 6.0]
    many = TaskData(collate=lambda _: None, units=[np.arange(9)], record_cost=np.ones(9, np.int64))
    assert len(answers.capped(many).units[0]) == 2, "at most as many of a person as are declared"
    assert training.period_s == 10.0


def test_nothing_waits_where_nothing_was_read() -> None:
    clock = Clock()
    with even(clock, 0.0).paced():
        pass
    assert clock.slept_s == []


def test_data_beyond_what_was_declared_are_told_to_the_site_alone() -> None:
    cost = np.array([1, 2, 9, 1, 1, 1], dtype=np.int64)
    units = [np.array([0, 1]), np.array([2, 3, 4, 5])]
    data = TaskData(collate=lambda _: None, units=units, record_cost=cost)
    assert Declared(4, 2, ((5, 0.5),)).exceeded_by(data) == []
    (records,) = Declared(3, 2, ()).exceeded_by(data)
    assert "4 records, at most 2 a person" in records
    (long,) = Declared(4, 2, ((5, 0.25),)).exceeded_by(data)
    assert "2 records belong to people with one of more than 5 tokens" in long


def said(folder: Path, model: Path, privacy: str) -> str:
    path = make_federation(
        folder, model, evaluation=False, privacy=privacy, task='unit = "patient"'
    )
    done = CliRunner().invoke(app, ["plan", str(path)])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.replace("│", " ").split())


def test_plan_says_what_it_costs_and_loudly_where_it_is_off(
    tmp_path: Path, tiny_model: Path
) -> None:
    on = said(tmp_path / "on", tiny_model, ON)
    assert "at most 8, drawn at random" in on
    assert "constant but for a chance of 2^-40" in on
    assert "declares no records: 8 of each person" in on
    off = said(tmp_path / "off", tiny_model, "")
    assert "NOT CONSTANT" in off
    assert "ALL: a person's work has no end" in off
    asked = {f.state for f in examine_federation(tmp_path / "off") if f.what == "round times"}
    assert asked == {"question"}
    assert not [f for f in examine_federation(tmp_path / "on") if f.what == "round times"]


def test_check_counts_what_is_more_than_declared_at_the_site(
    tmp_path: Path, tiny_model: Path
) -> None:
    path = make_federation(
        tmp_path, tiny_model, evaluation=False, privacy=ON, task='unit = "patient"'
    )
    rows = "".join(f"alpha beta,yes,p{n % 20}\n" for n in range(80))
    (tmp_path / "data/site-1.csv").write_text("text,label,patient\n" + rows)
    text = path.read_text().replace("population = 40", "population = 40\nrecords = 40", 1)
    path.write_text(text)
    done = CliRunner().invoke(app, ["check", str(path), "site-1"])
    assert done.exit_code == 0, done.output
    assert "80 records, at most 8 a person, are more than the 40 declared" in done.output


def test_the_report_says_which_it_was() -> None:
    from test_report_records import finished

    def named(privacy: dict, unit: str) -> set[str]:
        record = finished(settings={"privacy": privacy})
        mechanism = msgspec.structs.replace(record.mechanism, unit=unit)
        return {each.name for each in limits(msgspec.structs.replace(record, mechanism=mechanism))}

    assert "Round times." in named({}, "patient")
    assert "Round times." in named({"constant_time": False}, "patient")
    on = named({"constant_time": True}, "patient")
    assert "What constant work does not hide." in on
    assert "Round times." not in on
    assert "Round times." not in named({}, "record")
