"""A coordinator that signs its own report anew cannot say what others' signatures contradict.

Each field of a report is changed in turn and signed again, with the run's end and the page, as a
coordinator could. Either it is refused, or the field is on the list of what only the coordinator
says, which `report verify` prints.
"""

from __future__ import annotations

import copy
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from asked import ask, question
from support import make_federation
from typer.testing import CliRunner

from aggregation import Identity
from fmfl_secure import Federation
from fmfl_secure.cli import app
from fmfl_secure.errors import KNOWN_ERRORS, RunError
from fmfl_secure.report.bundle import CheckedBundle, verify_bundle, write_bundle
from fmfl_secure.report.derived import mechanism_of
from fmfl_secure.report.on_its_word import OF_ANOTHER_VERSION, ON_ITS_WORD
from fmfl_secure.report.signed import check_statements
from fmfl_secure.run.end import sign_end
from fmfl_secure.run.ledger_statement import describe_ledger, sign_statement
from fmfl_secure.run.record import decode_record, encode_record
from fmfl_secure.run.statement import SiteStatement
from fmfl_secure.settings.federation import FederationConfig, convert_config
from privacy import Ledger, PoissonSampledGaussian, PoissonSampledSkellam

Place = tuple[str | int, ...]
OLD = Path(__file__).parents[1] / "fixtures/0.1.0.zip"
KINDS = ("trained", "answered", "asked", "shares")
# Of words with few meanings, another that is one too.
OTHERS = {
    "released": "lost", "finished": "stopped", "private": "public", "local": "distributed",
    "distributed": "local", "record": "patient",
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """Runs that train, ask besides, only ask, and have noise in shares."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privacy.training.check_admission", lambda *_, **__: None)
        for kind in KINDS:
            folder = tmp_path_factory.mktemp(kind)
            privacy = "delta = 1e-4"
            if kind == "shares":
                privacy += '\nnoise = "distributed"\ninsider_epsilon = 30.0'
            steps = 1 if kind == "shares" else 2
            make_federation(folder, tiny_model, rounds=2, steps=steps, grant=40.0, privacy=privacy)
            if kind in {"trained", "shares"}:
                Federation(folder).run(folder / "run")
            else:
                ask(folder, question(every=int(kind == "answered")), "run")
            found[kind] = folder / "run"
    return found


def record_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text())


def signed_again(run: Path, changed: dict[str, Any]) -> bytes:
    """The bundle that the coordinator makes of whatever it likes."""
    coordinator = Identity.load(run.parent / "coordinator/identity.pem", "coordinator")
    record = decode_record(json.dumps(changed).encode())
    return write_bundle(record, sign_end(coordinator, record.run, record.rounds), coordinator)


def verified(run: Path, changed: dict[str, Any]) -> CheckedBundle:
    return verify_bundle(signed_again(run, changed))


def leaves(value: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every figure and word of a record, and every container, with its place."""
    if at:
        yield at, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*at, name))
    elif isinstance(value, list):
        for number in {0, len(value) - 1} if value else ():  # those between are as these
            yield from leaves(value[number], (*at, number))


def others(value: Any) -> Iterator[Any]:
    """Other values of the same type."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, 2 * value + 3, max(0, value - 1))
        case float():
            yield from (value * 1.5 + 0.01, value / 2)
        case None:
            yield from ("x", 1.0)
        case str():
            yield OTHERS.get(value, value + "x")
            if value:
                yield value[:-1] + ("0" if value[-1] != "0" else "1")
                yield ""
        case list():
            yield from (value[:-1], value[::-1]) if value else (["x"],)
        case dict():
            yield {}


def with_other(record: dict[str, Any], at: Place, other: Any) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    inner: Any = changed
    for step in at[:-1]:
        inner = inner[step]
    inner[at[-1]] = other
    return changed


def is_listed(at: Place, listed: set[str]) -> bool:
    """Whether a place, or what it is within, is on the list."""
    words = [str(step) for step in at]
    for length in range(1, len(words) + 1):
        for each in listed:
            pattern = each.split(".")
            if len(pattern) == length and all(
                one in {"*", other} for one, other in zip(pattern, words, strict=False)
            ):
                return True
    return False


def let_pass(run: Path, record: dict[str, Any]) -> Iterator[tuple[Place, Any]]:
    """What a coordinator may change without being refused."""
    for at, value in leaves(record):
        for other in others(value):
            if other == value:
                continue
            try:
                verified(run, with_other(record, at, other))
            except RunError:
                continue
            yield at, other


@pytest.mark.parametrize(
    ("kind", "version"),
    [*((kind, "") for kind in KINDS), ("answered", "0.0.1"), ("shares", "0.0.1")],
)
def test_each_field_is_held_by_another_s_word_or_said_to_be_the_coordinator_s(
    runs: dict[str, Path], kind: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The page is made of the record by whoever signs it: it is of no help to anybody.
    monkeypatch.setattr("fmfl_secure.report.bundle.render_html", lambda _: "page")
    run = runs[kind]
    record = record_of(run)
    listed = {field for fields in ON_ITS_WORD.values() for field in fields}
    if version:
        record["versions"]["fmfl-secure"] = version
        listed |= {*OF_ANOTHER_VERSION}
    checked = verified(run, record)
    assert all(phrase in checked.unsigned[-1] for phrase in ON_ITS_WORD)
    assert len(checked.unsigned) == (2 if version else 1)
    passed = list(let_pass(run, record))
    assert [each for each in passed if not is_listed(each[0], listed)] == []
    assert passed, "an arm that finds what a coordinator may say"


@pytest.mark.parametrize("kind", ["trained", "asked"])
def test_other_settings_are_refused_with_all_that_follows_from_them(
    runs: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coordinator works out digest, mechanism and copies anew: each site signed the digest."""
    monkeypatch.setattr("fmfl_secure.report.bundle.render_html", lambda _: "page")
    record = record_of(runs[kind])
    signed = 0
    for at, value in leaves(record["settings"]):
        for other in others(value):
            settings = with_other(record["settings"], at, other)
            if settings == record["settings"]:
                continue
            found = following(record, settings)
            if found is not None:
                with pytest.raises(RunError) as refused:
                    verified(runs[kind], found)
                signed += "signed that" in str(refused.value)
    assert signed > 30, "nothing but what sites signed holds these"


def following(record: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any] | None:
    """A record with other settings and what follows from them; None where they are none."""
    text = msgspec.json.encode(settings, order="sorted")
    try:
        config = convert_config(settings, FederationConfig, source="settings")
        mechanism = mechanism_of(config, record["encryption"]["parameters"])
    except KNOWN_ERRORS:
        return None
    return {
        **{name: value for name, value in record.items() if name != "looked_at"},
        "settings": settings,
        "settings_digest": "sha256:" + hashlib.sha256(text).hexdigest(),
        "mechanism": msgspec.to_builtins(mechanism),
        "federation": config.federation.name,
        "evaluation": Path(config.evaluation.file).name,
        "sites": [
            {**site, "name": entry.name, "population": entry.population}
            for site, entry in zip(record["sites"], config.sites, strict=False)
        ],
    }


def told(run: Path, changed: dict[str, Any], file: Path) -> str:
    file.write_bytes(signed_again(run, changed))
    done = CliRunner().invoke(app, ["report", "verify", str(file)])
    assert done.exit_code == 0, done.output
    return done.output


def test_no_word_of_a_report_rules_the_terminal(runs: dict[str, Path], tmp_path: Path) -> None:
    """Nor does it look like another line of what was checked."""
    record = record_of(runs["trained"])
    record["versions"]["fmfl-secure"] = "0.0.1\nwho signed   all was checked\x1b[8m\u202e"
    said = told(runs["trained"], record, tmp_path / "b.report")
    assert not {"\x1b", "\u202e"} & {*said}
    assert sum(line.startswith("who signed") for line in said.splitlines()) == 1


def test_a_site_that_is_left_out_is_named(runs: dict[str, Path], tmp_path: Path) -> None:
    run = runs["trained"]
    file = tmp_path / "b.report"
    assert "site-2 was" not in told(run, record_of(run), file)
    silent = record_of(run)
    silent["sites"][1] |= {"statement": None, "statement_signature": ""}
    assert "site-2 was in 2 rounds, and nothing is here that it signed" in told(run, silent, file)
    nobody = copy.deepcopy(record_of(run))
    for site in nobody["sites"]:
        site |= {"statement": None, "statement_signature": ""}
    assert "its mechanism and its noise, too, only the coordinator says" in told(run, nobody, file)
    # Nor does it help to say that it was not there.
    silent["sites"][1]["rounds"] = []
    for each in silent["rounds"]:
        each["cohort"] = ["site-1", "site-3"]
    assert "Nothing is here that site-2 signed: that it was in no round" in told(run, silent, file)


def test_what_a_site_signed_before_the_end_is_told_from_its_last_word(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    """Each site signs when it joins, and when it ends; a coordinator has both."""
    run = runs["trained"]
    record = decode_record((run / "report.json").read_bytes())
    identity = Identity.load(run.parent / "sites/site-1/identity.pem", "site-1")
    replace = msgspec.structs.replace

    def with_charge(**changes: Any) -> dict[str, Any]:
        site = record.sites[0]
        assert site.statement is not None
        (charge,) = site.statement.runs
        statement = replace(site.statement, runs=(replace(charge, **changes),))
        signature = sign_statement(identity, statement)
        early = replace(site, statement=statement, statement_signature=signature)
        sites = (early, *record.sites[1:])
        return json.loads(encode_record(replace(record, sites=sites)))

    first = told(run, with_charge(rounds_trained=(), open=True), tmp_path / "b.report")
    assert "site-1 signed its statement before round 1, which it was in" in first
    later = told(run, with_charge(open=True), tmp_path / "b.report")
    assert "site-1 signed its statement before the run's end" in later
    for changes, refusal in (
        ({"rounds_trained": (1,)}, "never trained round 2, in which it was"),
        ({"rounds_trained": (1, 2, 3)}, "trained round 3, and the report ends at 2"),
        ({"rounds_reserved": 7}, "7 rounds were reserved"),
        ({"purpose": "another"}, "were reserved for “another”"),
        ({"plan": "sha256:0"}, "ran by settings sha256:0"),
    ):
        with pytest.raises(RunError, match=refusal):
            verified(run, with_charge(**changes))


@pytest.mark.parametrize("told_of", ["plan", "event", "rounds_trained", "run"])
def test_one_site_that_signs_something_else_spoils_no_report(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, told_of: str
) -> None:
    """Its statement is not shown, the report says why, and the signed report holds."""
    make_federation(
        tmp_path, tiny_model, rounds=1, steps=1, privacy="delta = 1e-4", evaluation=False
    )
    other = {
        "plan": "sha256:0",
        "event": PoissonSampledGaussian(0.25, 9.0, 1).canonical(),
        "rounds_trained": (),
        "run": "0" * 16,
    }[told_of]

    def describe(ledger: Ledger, *, site: str, **named: Any) -> SiteStatement:
        found = describe_ledger(ledger, site=site, **named)
        if site != "site-2" or not found.runs or found.runs[0].open:
            return found
        (charge,) = found.runs
        return msgspec.structs.replace(
            found, runs=(msgspec.structs.replace(charge, **{told_of: other}),)
        )

    monkeypatch.setattr("fmfl_secure.parties.site.describe_ledger", describe)
    record = Federation(tmp_path).run(tmp_path / "run").record
    assert [site.statement is None for site in record.sites] == [False, True, False]
    assert "site-2" in str(record.sites[1].not_shown)
    coordinator = Identity.load(tmp_path / "coordinator/identity.pem", "coordinator")
    end = sign_end(coordinator, record.run, record.rounds)
    checked = verify_bundle(write_bundle(record, end, coordinator))
    assert "site-2's statement is not shown" in checked.unsigned[0]
    assert "site-2&#39;s statement is not shown: site-2" in checked.page


def test_a_report_of_0_1_0_holds_and_its_noise_is_held_to_what_it_cost(tmp_path: Path) -> None:
    with zipfile.ZipFile(OLD) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "federation/coordinator/identity.pem").chmod(0o600)
    run = tmp_path / "federation/finished"
    bundle = json.loads((tmp_path / "finished.report").read_bytes())
    record = json.loads(bundle["report_json"])
    checked = verify_bundle((tmp_path / "finished.report").read_bytes())
    assert checked.ended
    assert not checked.rendered_again
    assert "signed no settings, as earlier versions did not" in checked.unsigned[0]
    assert "agrees with the cost that was signed" in checked.unsigned[0]
    assert "is of version 0.1.0" in checked.unsigned[1]
    for factor in (0.5, 1.2, 10.0):
        record = json.loads(bundle["report_json"])
        record["mechanism"]["noise_multiplier"] *= factor
        with pytest.raises(RunError, match="signed that the run cost epsilon"):
            verified(run, record)
    record = json.loads(bundle["report_json"])
    record["settings"]["privacy"]["epsilon"] = 1.0
    with pytest.raises(RunError, match="not those of their digest"):
        verified(run, record)


def test_the_report_s_noise_is_that_of_the_round_that_trains_most(
    tiny_models: Callable[[str], Path], tmp_path: Path, quick: None
) -> None:
    """Rounds of unlike length have one event, which ledgers are charged and a report says."""
    make_federation(
        tmp_path, tiny_models("qwen2"), rounds=2, steps=1, grant=40.0, evaluation=False, plain=True,
        adapter='kind = "rolora"\nrank = 2\ntarget_modules = ["o_proj", "down_proj"]',
        privacy='delta = 1e-4\nnoise = "distributed"\ninsider_epsilon = 30.0',
    )  # fmt: skip
    record = Federation(tmp_path).run(tmp_path / "run").record
    ledger = Ledger(tmp_path / "sites/site-1/ledger.sqlite")
    event = ledger.budget().reservations[record.run].event
    assert isinstance(event, PoissonSampledSkellam)
    assert record.mechanism.noise_multiplier == event.noise_multiplier
    check_statements(record)


def test_the_list_is_in_the_guide_to_reports() -> None:
    guide = " ".join(
        (Path(__file__).parents[2] / "docs/how-to-read-a-report.md").read_text().split()
    )
    assert [phrase for phrase in ON_ITS_WORD if phrase not in guide] == []
