"""Questions to the sites: carried like training, charged like training, and nothing else said."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from asked import INSIDER, PRIVACY, ask, asking, ledger, question, silence
from dp_accounting.rdp import RdpAccountant
from msgspec.structs import replace
from support import Quiet, leave_no_records, make_federation

from fmfl_secure.errors import RunError
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.parties.site_training import SiteTraining
from fmfl_secure.planning.answers import answer_plan, figures_of
from fmfl_secure.planning.noise import privacy_plan
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.training import answering
from fmfl_secure.transports.local import engine
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot
from fmfl_secure.vectors.start import RunStart
from privacy import Grant, Ledger, filter_delta

pytestmark = pytest.mark.usefixtures("quick")

SITES = ("site-1", "site-2", "site-3")


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    found = {}
    for noise, privacy in PRIVACY.items():
        found[noise] = tmp_path_factory.mktemp("template") / noise
        steps = 2 if noise == "local" else 1
        make_federation(
            found[noise], tiny_model, grant=20.0, privacy=privacy, steps=steps, evaluation=False
        )
    return found


@pytest.fixture(params=PRIVACY)
def noise(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(templates: dict[str, Path], noise: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(templates[noise], tmp_path / "federation"))


@pytest.fixture
def local(templates: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(templates["local"], tmp_path / "federation"))


def figures(folder: Path, asked, round_record):
    config = asking(folder, asked)
    return figures_of(config, round_record.answer, len(round_record.cohort))


def test_without_its_noise_an_answer_is_what_the_data_hold(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silence(monkeypatch)
    asked = question("units", "labels", "lengths", lengths=(4, 8))
    record, _ = ask(folder, asked)
    (only,) = record.rounds
    assert only.status == "released"
    said = figures(folder, asked, only)
    for site in SITES:
        assert said["units"][site].value == pytest.approx(40, abs=0.2)
    assert said["labels"]["no"].value == pytest.approx(60, abs=0.2)
    assert said["labels"]["yes"].value == pytest.approx(60, abs=0.2)
    longest = sum(
        len(line.split(",")[0].split()) + 2 > 8
        for site in SITES
        for line in (folder / "data" / f"{site}.csv").read_text().splitlines()[1:]
    )
    assert 0 < longest < 120
    assert said["lengths"]["more than 8 tokens"].value == pytest.approx(longest, abs=0.2)


def test_an_answer_has_the_noise_that_its_interval_states(folder: Path) -> None:
    asked = question()
    record, _ = ask(folder, asked)
    (only,) = record.rounds
    plan = answer_plan(asking(folder, asked))
    said = figures(folder, asked, only)
    for query in plan.release.queries:
        stddev = plan.answer_stddev(query, 3)
        truths = {"units": 40.0, "labels": 60.0}
        for cell in query.cells:
            figure = said[query.name][cell]
            assert abs(figure.value - truths[query.name]) < 7.0 * stddev
            low, high = figure.noise
            assert high - low == pytest.approx(2 * 1.959964 * stddev, rel=1e-6)


def test_a_question_changes_no_adapter_and_keeps_its_own_name_in_the_ledger(folder: Path) -> None:
    record, _ = ask(folder, question())
    store = RunStore(folder / "answer")
    assert store.last_adapter() == store.public().initial_adapter
    assert not (folder / "answer" / "adapter").exists()
    for site in SITES:
        ((name, held),) = ledger(folder, site).budget().reservations.items()
        assert name == f"{record.run}.answers"
        assert held.purpose == "tiny: answers to units, labels"
        assert [number for number, _ in held.commits] == [1]
        assert not held.open


def apart(events: list[tuple[dp_accounting.DpEvent, int]], grant: Grant) -> float:
    """What dp-accounting says of these at a grant's orders, which share its delta."""
    found = []
    for order in grant.orders:
        accountant = RdpAccountant(orders=[order])
        for event, times in events:
            accountant.compose(event, times)
        delta = grant.delta if grant.insider_epsilon is None else filter_delta(grant.delta)
        found.append(accountant.get_epsilon(delta / len(grant.orders)))
    return min(found)


def test_a_mixed_history_costs_what_dp_accounting_says(local: Path) -> None:
    """Training with answers between, then a question by itself, and again: all on one ledger."""
    curve = question("labels", every=1)
    mixed, _ = ask(local, curve, "mixed")
    assert [len(r.answer) for r in mixed.rounds[1::2]] == [2, 2]
    once = question("units")
    ask(local, once, "once")
    ask(local, once, "again")
    training = privacy_plan(asking(local, curve), asking(local, curve).sites[0])
    step = dp_accounting.PoissonSampledDpEvent(
        training.sample_rate, dp_accounting.GaussianDpEvent(training.noise_multiplier)
    )
    events = [(step, 2 * training.steps_per_round)]
    for asked, times in ((curve, 2), (once, 2)):
        multiplier = answer_plan(asking(local, asked)).noise.noise_multiplier
        events.append((dp_accounting.GaussianDpEvent(multiplier), times))
    for site in SITES:
        (status,) = ledger(local, site).budget().status()
        expected = apart(events, status.grant)
        assert status.epsilon_committed == pytest.approx(expected, rel=1e-6)
        assert status.epsilon_committed >= expected * (1 - 1e-9)
        assert status.epsilon_charged >= status.epsilon_committed


def test_answers_between_rounds_of_training_follow_their_plan(folder: Path) -> None:
    asked = question("labels", every=2)
    record, _ = ask(folder, asked)
    assert record.status == "finished"
    kinds = ["asks" if isinstance(r.answer, tuple) else "trains" for r in record.rounds]
    assert kinds == ["trains", "trains", "asks"]
    digests = [r.adapter_digest for r in record.rounds]
    assert len(set(digests[:2])) == 2
    assert digests[2] == digests[1]
    budget = ledger(folder, "site-2").budget()
    trained = [n for n, _ in budget.reservations[record.run].commits]
    answered = [n for n, _ in budget.reservations[f"{record.run}.answers"].commits]
    assert (trained, answered) == ([1, 2], [3])
    statement = record.sites[1].statement
    assert len(statement.epsilon_by_round) == 3
    assert list(statement.epsilon_by_round) == sorted(statement.epsilon_by_round)


def test_a_question_asked_again_in_a_run_of_its_own_is_charged_again(local: Path) -> None:
    asked = question()
    first, _ = ask(local, asked, "first")
    spent = [s.statement.epsilon_by_round[-1] for s in first.sites]
    second, _ = ask(local, asked, "second")
    again = [s.statement.epsilon_by_round[-1] for s in second.sites]
    assert all(b > a for a, b in zip(spent, again, strict=True))
    assert first.rounds[0].answer != second.rounds[0].answer


# Who refuses, and when.


def test_a_policy_that_allows_no_question_refuses_before_data_are_read(local: Path) -> None:
    leave_no_records(local / "data")
    for site in SITES:
        file = local / "sites" / site / "site.toml"
        file.write_text(
            file.read_text().replace('queries = "statistics"', 'queries = "evaluation"')
        )
    with pytest.raises(RunError, match="nothing was charged"):
        ask(local, question())
    for site in SITES:
        assert ledger(local, site).budget().reservations == {}


def test_the_answers_of_a_year_have_an_end(local: Path) -> None:
    file = local / "sites" / "site-2" / "site.toml"
    file.write_text(
        file.read_text().replace("# max_answers_per_year = 20", "max_answers_per_year = 1")
    )
    ask(local, question(), "first")
    with pytest.raises(RunError, match="2 of 3 sites"):
        ask(local, question(), "second")
    record = RunStore(local / "second").state
    assert record.refusals["site-2"] == "policy.answers_per_year"


def test_a_question_that_the_budget_does_not_cover_reads_nothing(local: Path) -> None:
    leave_no_records(local / "data")
    with pytest.raises(RunError, match="nothing was charged"):
        ask(local, question(epsilon=25.0))


def test_when_answers_do_not_fit_beside_training_nothing_is_trained(local: Path) -> None:
    """Each fits alone. What training had reserved comes back with the end of the run."""
    with pytest.raises(RunError, match="nothing was charged"):
        ask(local, question(epsilon=19.0, every=1))
    for site in SITES:
        budget = ledger(local, site).budget()
        assert budget.status()[0].epsilon_committed == 0.0
        assert all(not held.commits for held in budget.reservations.values())


def of_another_name(start: RunStart) -> RunStart:
    first, *rest = start.answer_layout.slots
    other = TensorSlot("answer:income", first.shape)
    grid = replace(
        start.answer_grid,
        segments=(replace(start.answer_grid.segments[0], name="answer:income"),
                  *start.answer_grid.segments[1:]),
    )  # fmt: skip
    return dataclasses.replace(start, answer_layout=FlatLayout((other, *rest)), answer_grid=grid)


def of_other_steps(start: RunStart) -> RunStart:
    wider = tuple(replace(s, range=s.range * 2) for s in start.answer_grid.segments)
    return dataclasses.replace(start, answer_grid=replace(start.answer_grid, segments=wider))


@pytest.mark.parametrize(
    ("lie", "code", "what"),
    [(of_another_name, "model", "layouts differ"), (of_other_steps, "run", "quantisation")],
    ids=["answer_layout", "answer_grid"],
)
def test_sites_refuse_a_server_that_lies_about_an_answer(
    local: Path, monkeypatch: pytest.MonkeyPatch, lie, code: str, what: str
) -> None:
    leave_no_records(local / "data")
    told = engine.start_of
    monkeypatch.setattr(engine, "start_of", lambda *a, **more: lie(told(*a, **more)))
    observer = Quiet()
    config = asking(local, question())
    made = engine.LocalEngine(
        local / "federation.toml", local / "lied", resume=False, observer=observer, config=config
    )
    with pytest.raises(RunError):
        made.run()
    assert observer.refused
    assert all(c == code and what in reason for c, reason in observer.refused.values())
    for site in SITES:
        assert ledger(local, site).budget().status()[0].epsilon_committed == 0.0


# What goes wrong on the way.


class Crash(BaseException):
    pass


def crashing(monkeypatch: pytest.MonkeyPatch, target: object, name: str, *, before: bool) -> None:
    """The second site's process ends at a call, once."""
    original, calls = getattr(target, name), []

    def crash(*args: object, **more: object) -> object:
        calls.append(None)
        if len(calls) == 2 and before:
            raise Crash
        found = original(*args, **more)
        if len(calls) == 2:
            raise Crash
        return found

    monkeypatch.setattr(target, name, crash)


@pytest.mark.parametrize(
    ("target", "name", "before", "charged"),
    [
        (Ledger, "commit", True, 1),
        (Ledger, "commit", False, 2),
        (answering.ProtectedSum, "integers", False, 2),
        (UpdateStore, "put", False, 1),
    ],
    ids=["before-charge", "after-charge", "after-answer", "after-store"],
)
def test_a_site_that_is_killed_is_never_charged_too_little(
    local: Path, monkeypatch: pytest.MonkeyPatch, target: object, name: str, before: bool,
    charged: int,
) -> None:  # fmt: skip
    asked = question(repeats=1)
    with monkeypatch.context() as patch:
        crashing(patch, target, name, before=before)
        with pytest.raises(Crash):
            ask(local, asked)
    record, _ = ask(local, asked, resume=True)
    assert record.rounds[0].cohort == SITES
    held = ledger(local, "site-2").budget().reservations[f"{record.run}.answers"]
    assert len(held.commits) == charged
    others = ledger(local, "site-1").budget().reservations[f"{record.run}.answers"]
    assert len(others.commits) == 1


def test_without_repeats_a_site_that_lost_its_answer_is_missing_in_it(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crashing(patch, Ledger, "commit", before=False)
        with pytest.raises(Crash):
            ask(local, question())
    with pytest.raises(RunError):  # of three sites all are needed
        ask(local, question(), resume=True)
    budget = ledger(local, "site-2").budget()
    ((_, held),) = budget.reservations.items()
    assert len(held.commits) == 1


def test_a_unit_that_breaks_the_bound_sends_no_signal(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vectors beyond the bound, infinite ones too: same messages, same charge, nobody hears."""
    silence(monkeypatch)
    from fmfl_secure.questions.counts import Labels

    calm, _ = ask(local, question("labels"), "calm")
    original = Labels.vectors

    def monster(self, asked, respondent):
        vectors = original(self, asked, respondent)
        if respondent.site == "site-2" and len(vectors) == 40:
            vectors[0], vectors[1] = 1e300, np.inf
        return vectors

    monkeypatch.setattr(Labels, "vectors", monster)
    odd, observer = ask(local, question("labels"), "odd")
    assert observer.refused == {}
    assert [s.refusal for s in odd.sites] == [None] * 3
    plan = answer_plan(asking(local, question("labels")))
    moved = np.subtract(odd.rounds[0].answer, calm.rounds[0].answer) * plan.granularity
    assert np.linalg.norm(moved) <= 2 * 2 + 1e-6  # two units, each by its old and its new vector
    spent = [{s.statement.epsilon_by_round[-1] - s.statement.epsilon_before for s in r.sites}
             for r in (calm, odd)]  # fmt: skip
    assert len(spent[0]) == len(spent[1]) == 1


def test_one_dishonest_site_moves_any_answer_and_nobody_can_tell(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a guarantee: what `docs/private-answers.md` says of liars, shown."""
    original = SiteTraining._answer

    def lie(self, plan, adapter, on_step):
        integers = original(self, plan, adapter, on_step)
        if self.name == "site-3":
            integers[0] += 30_000
        return integers

    monkeypatch.setattr(SiteTraining, "_answer", lie)
    asked = question("labels")
    record, observer = ask(local, asked)
    assert observer.refused == {}
    plan = answer_plan(asking(local, asked))
    said = figures(local, asked, record.rounds[0])["labels"]["no"]
    assert said.value > 60 + 30 - 7 * plan.answer_stddev(plan.release.queries[0], 3)


def test_an_adapter_that_is_asked_about_is_the_one_that_settings_name(local: Path) -> None:
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.planning.task import build_task
    from fmfl_secure.vectors.adapter import adapter_digest

    config = asking(local, question("labels"))
    task = build_task(config, relative_to=local)
    other = adapter_bytes(task.build_model(seed=77))
    asked = question("labels", adapter=adapter_digest(other))
    record, _ = ask(local, asked, adapter=other)
    assert record.rounds[0].adapter_digest == asked.adapter
    with pytest.raises(ConfigError, match=r"not the one that question\.adapter names"):
        ask(local, asked, "wrong")


def test_an_answer_is_dearer_to_other_sites_and_settings_say_so(
    templates: dict[str, Path], tmp_path: Path
) -> None:
    from privacy import PlanError

    folder = Path(shutil.copytree(templates["distributed"], tmp_path / "federation"))
    with pytest.raises(PlanError, match=r"question\.insider_epsilon allows 0\.5") as refused:
        ask(folder, question(insider_epsilon=0.5))
    assert "question.insider_epsilon =" in refused.value.hint
    assert INSIDER > 2.0
