"""What becomes of a run when parties fail, the same over every transport, with real parties.

The embedded engine is what a person pilots, HTTPS and Flower what is deployed. All three are
driven by one orchestrator, and this holds them to one contract.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import msgspec
import pytest
from asked import PRIVACY, question
from contract_worlds import WORLDS, ContractWorld, Killed, charged, world_of
from support import make_federation

from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.stops import Stops, stop_run
from fmfl_secure.planning.answers import answer_plan, figures_of
from fmfl_secure.run.stop import RunHalted
from fmfl_secure.settings.written import with_question
from privacy import Ledger

SITES = ("site-1", "site-2", "site-3", "site-4")
OTHERS = ("site-1", "site-3", "site-4")
pytestmark = pytest.mark.usefixtures("quick_worlds")
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("contract")
    common = {"sites": 4, "rounds": 2, "steps": 1, "evaluation": False}
    make_federation(folder / "plain", tiny_model, **common)
    make_federation(folder / "kept", tiny_model, aggregation='custodians = ["board"]', **common)
    for noise, privacy in PRIVACY.items():
        federation = make_federation(
            folder / noise, tiny_model, **common, privacy=privacy, grant=20.0
        )
        asked = question("units", "labels", every=2)
        federation.write_text(with_question(federation.read_text(), asked))
    return {name: folder / name for name in ("plain", "kept", *PRIVACY)}


@pytest.fixture
def world(transport: str, templates: dict[str, Path], tmp_path: Path) -> ContractWorld:
    return world_of(transport, templates["plain"], tmp_path)


@pytest.fixture
def kept(templates: dict[str, Path], tmp_path: Path) -> Path:
    """A federation's folder with a custodian."""
    return Path(shutil.copytree(templates["kept"], tmp_path / "federation"))


def check(world: ContractWorld, records, *cohorts: tuple[str, ...]) -> None:
    """Released rounds of these cohorts; whoever verified a sum computed the next adapter."""
    assert [record.status for record in records] == ["released"] * len(cohorts)
    assert [record.cohort for record in records] == list(cohorts)
    run = world.observer.run
    for record in records:
        said = [world.said(name, run, record.round) for name in record.cohort]
        verified = [each.after for each in said if each is not None]
        assert len(verified) >= 2
        assert set(verified) == {record.adapter_digest}


def test_everybody_comes(world: ContractWorld) -> None:
    check(world, world.finish(), SITES, SITES)
    assert [charged(world, name) for name in SITES] == [[1, 2]] * 4


@pytest.mark.parametrize("noise", PRIVACY)
@pytest.mark.parametrize("dies", ["", "upload"], ids=["all", "one-dies"])
def test_sites_are_asked_after_they_were_trained(
    transport: str, noise: str, dies: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    """Two rounds of training, and an answer: charged beside them, and no adapter changes."""
    world = world_of(transport, templates[noise], tmp_path)
    if dies:
        world.dies("site-2", dies, number=3)
    *trained, answered = world.finish()
    check(world, [*trained, answered], SITES, SITES, OTHERS if dies else SITES)
    assert answered.attempts == (2 if dies else 1)
    assert answered.adapter_digest == trained[-1].adapter_digest != trained[0].adapter_digest
    assert [record.answer for record in trained] == [msgspec.UNSET] * 2
    said = figures_of(world.config, answered.answer, len(answered.cohort))
    plan = answer_plan(world.config)
    units, labels = plan.release.queries
    for query, truth in ((units, 40.0), (labels, 20.0 * len(answered.cohort))):
        for cell in query.cells:
            here = 0.0 if dies and cell == "site-2" else truth
            stddev = plan.answer_stddev(query, len(answered.cohort))
            assert abs(said[query.name][cell].value - here) < 7 * stddev
    for name in SITES:
        held = Ledger(world.workspace.site(name) / "ledger.sqlite").budget().reservations
        rounds = {n: [r for r, _ in one.commits] for n, one in held.items()}
        run = world.observer.run
        assert rounds == {run: [1, 2], f"{run}.answers": [3]}, "also of one that died: it had read"


@pytest.mark.parametrize(
    ("at", "attempts"), [("ready", 1), ("exchange", 2), ("upload", 2), ("chunks", 2)]
)
def test_a_site_that_dies_before_the_list_costs_an_attempt_at_most(
    world: ContractWorld, at: str, attempts: int
) -> None:
    world.dies("site-2", at)
    records = world.finish()
    check(world, records, OTHERS, OTHERS)
    assert [record.attempts for record in records] == [attempts, 1]
    assert charged(world, "site-1") == [1, 2], "an attempt that is repeated costs nothing"


def test_a_site_that_dies_before_it_opens_loses_the_round(world: ContractWorld) -> None:
    world.dies("site-2", "opening", back="next round")
    lost, released = world.finish()
    assert lost.status == "lost", "three opened, and one is too few for another sum"
    check(world, [released], SITES)
    assert charged(world, "site-1") == [1, 2]


def test_an_opening_that_was_recorded_and_never_sent_is_sent_by_who_comes_back(
    world: ContractWorld,
) -> None:
    world.dies("site-2", "opening", back="at once")
    records = world.finish()
    check(world, records, SITES, SITES)
    assert [record.attempts for record in records] == [1, 1]
    assert charged(world, "site-2") == [1, 2]


def test_a_site_that_dies_after_it_opened_costs_nothing(world: ContractWorld) -> None:
    world.dies("site-2", "verdict")
    check(world, world.finish(), SITES, OTHERS)


@pytest.mark.parametrize("at", ["exchange", "upload"])
def test_a_site_that_comes_back_at_once_sends_what_it_had_stored(
    world: ContractWorld, at: str
) -> None:
    world.dies("site-2", at, back="at once")
    records = world.finish()
    check(world, records, SITES, SITES)
    assert records[0].attempts == 2
    assert charged(world, "site-2") == [1, 2]


@pytest.mark.parametrize("at", ["ready", "upload"])
def test_a_site_that_missed_a_round_is_in_the_next(world: ContractWorld, at: str) -> None:
    """It has not seen the sum, and takes the word of those that have for the next adapter."""
    world.dies("site-2", at, back="next round")
    check(world, world.finish(), OTHERS, SITES)


def test_a_site_that_lost_its_secrets_before_it_verified_is_in_the_next_round(
    world: ContractWorld,
) -> None:
    world.dies("site-2", "opening", back="at once", sent=True)
    check(world, world.finish(), SITES, SITES)


@pytest.mark.parametrize("rule", ["c + 1 verified it", "of 0.1.0"])
def test_a_release_that_no_site_could_verify_is_not_applied(
    templates: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """All lose their secrets once they opened. 0.1.0 applied what the decryptor says."""
    if rule == "of 0.1.0":
        monkeypatch.setattr(Coordinator, "witnesses", 0)
    world = world_of("local", templates["plain"], tmp_path)
    for name in SITES:
        world.dies(name, "opening", back="at once", sent=True)
    first = world.finish()[0]
    assert first.status == ("released" if rule == "of 0.1.0" else "lost")


def test_a_site_that_refuses_is_named_and_gone_on_without(
    transport: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(templates["plain"], tmp_path / "federation"))
    site = folder / "sites/site-2/site.toml"
    text = site.read_text()
    assert "min_sites = 3" in text
    site.write_text(text.replace("min_sites = 3", "max_epsilon_per_run = 3.0", 1))
    world = WORLDS[transport](folder)
    records = world.finish()
    check(world, records, OTHERS, OTHERS)
    assert [record.refusals for record in records] == [{"site-2": "policy.epsilon_per_run"}] * 2
    assert charged(world, "site-2") == []


def test_a_decryptor_that_lost_its_keys_costs_an_attempt(world: ContractWorld) -> None:
    world.dies("decryptor", "confirmation", back="at once")
    records = world.finish()
    check(world, records, SITES, SITES)
    assert records[0].attempts == 2


def test_a_release_that_was_lost_on_its_way_is_sent_again(world: ContractWorld) -> None:
    world.dies("decryptor", "release", back="at once")
    records = world.finish()
    check(world, records, SITES, SITES)
    assert records[0].attempts == 1


def test_a_custodian_s_no_ends_the_run_before_anybody_trains(transport: str, kept: Path) -> None:
    (kept / "custodians/board/custodian.toml").write_text("[policy]\nmin_sites = 9\n")
    world = WORLDS[transport](kept)
    assert world.finish() == []
    assert "board does not let round 1 open" in world.reason
    assert [charged(world, name) for name in SITES] == [[]] * 4


def test_with_a_custodian_s_word_it_opens(transport: str, kept: Path) -> None:
    world = WORLDS[transport](kept)
    check(world, world.finish(), SITES, SITES)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_whoever_comes_back_is_in_the_last_round_whatever_happened(
    transport: str, templates: dict[str, Path], tmp_path: Path, seed: int
) -> None:
    """One party dies in each round but the last, wherever it is, and comes back."""
    folder = Path(shutil.copytree(templates["plain"], tmp_path / "federation"))
    settings = folder / "federation.toml"
    settings.write_text(settings.read_text().replace("rounds = 2", "rounds = 4", 1))
    world = WORLDS[transport](folder)
    chance = random.Random(seed)
    kinds = ("ready", "exchange", "upload", "chunks", "opening", "verdict")
    for number, name in enumerate(chance.sample(SITES, 3), start=1):
        back = chance.choice(["at once", "next round"])
        world.dies(name, chance.choice(kinds), number=number, back=back, sent=chance.random() < 0.5)
    records = world.finish()
    assert [record.round for record in records] == [1, 2, 3, 4]
    assert records[-1].cohort == SITES
    assert not any(record.refusals for record in records)
    check(world, [r for r in records if r.status == "released"],
          *(r.cohort for r in records if r.status == "released"))  # fmt: skip
    assert all(sorted(set(charged(world, name))) == charged(world, name) for name in SITES)


def test_a_run_that_was_killed_goes_on(world: ContractWorld) -> None:
    world.killed(after=1)
    with pytest.raises(Killed):
        world.finish()
    again = type(world)(world.folder)
    records = again.finish()
    check(again, records, SITES, SITES)
    assert [charged(again, name) for name in SITES] == [[1, 2]] * 4


def test_a_custodian_s_stop_reaches_every_party_in_band(transport: str, kept: Path) -> None:
    """Signed at one party's machine, and carried by nothing but the run's own messages."""
    world = WORLDS[transport](kept)
    between = world.between_rounds

    def stop(number: int) -> None:
        between(number)
        stop_run(kept / "custodians/board", world.observer.run, "consent was withdrawn")

    world.between_rounds = stop  # type: ignore[method-assign]
    assert len(world.finish()) == 1
    assert "board stopped run" in world.reason
    assert [charged(world, name) for name in SITES] == [[1]] * 4, "no data were read after it"
    folders = [kept, kept / "decryptor", *(kept / "sites" / name for name in SITES)]
    for folder in folders:
        with pytest.raises(RunHalted, match="consent was withdrawn"):
            Stops(folder, world.members).require_none(world.observer.run)
