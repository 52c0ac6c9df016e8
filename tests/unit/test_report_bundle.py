"""A signed report holds by itself, and no byte of it can be changed unnoticed."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import msgspec
import pytest
from support import make_federation
from typer.testing import CliRunner

from aggregation import Identity
from fmfl_secure import Federation, Run
from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError, ModelError, RunError
from fmfl_secure.report import render_html
from fmfl_secure.report.bundle import FORMAT, bundle_run, load_bundle, verify_bundle, write_bundle
from fmfl_secure.report.dpia import write_dpia
from fmfl_secure.report.export import export_run
from fmfl_secure.run.ledger_statement import sign_statement
from fmfl_secure.run.record import decode_record, encode_record


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    folder = tmp_path_factory.mktemp("bundle")
    make_federation(folder, tiny_model, rounds=1, privacy="delta = 1e-4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("privacy.training.check_admission", lambda *_, **__: None)
        return Federation(folder).run(folder / "run")


@pytest.fixture(scope="module")
def bundle(finished: Run) -> bytes:
    file = finished.folder.parent / "pilot.report"
    bundle_run(finished.folder, file)
    return load_bundle(file)


def coordinator(finished: Run) -> Identity:
    return Identity.load(finished.folder.parent / "coordinator/identity.pem", "coordinator")


def test_it_holds_without_the_run(finished: Run, bundle: bytes, tmp_path: Path) -> None:
    file = tmp_path / "pilot.report"
    file.write_bytes(bundle)
    away = tmp_path / "away"
    shutil.move(finished.folder, away)
    try:
        checked = verify_bundle(load_bundle(file))
        arguments = ["report", "verify", str(file), "--extract", str(tmp_path / "out")]
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    finally:
        shutil.move(away, finished.folder)
    assert checked.ended
    assert checked.rendered_again
    assert checked.record.status == "finished"
    assert set(checked.fingerprints) == {"coordinator", "site-1", "site-2", "site-3"}
    assert checked.fingerprints["coordinator"] == coordinator(finished).public.fingerprint
    assert done.exit_code == 0, done.output
    assert "who signed   NOT CHECKED" in done.output
    for fingerprint in checked.fingerprints.values():
        assert fingerprint in done.output
    assert (tmp_path / "out/report.html").read_text() == checked.page
    assert decode_record((tmp_path / "out/report.json").read_bytes()) == checked.record


def test_a_run_s_figures_may_come_in_any_order(finished: Run) -> None:
    """The file sorts its keys; the page is made of the file."""
    replace = msgspec.structs.replace
    (only,) = finished.record.rounds
    record = replace(
        finished.record,
        status="interrupted",  # one that has finished needs a signed end of these rounds
        initial_metrics={"macro_f1": 0.2, "accuracy": 0.3},
        rounds=(replace(only, metrics={"macro_f1": 0.4, "accuracy": 0.5}),),
    )
    checked = verify_bundle(write_bundle(record, b"", coordinator(finished)))
    assert checked.rendered_again
    assert checked.record.rounds == record.rounds


def test_any_changed_byte_is_noticed(bundle: bytes) -> None:
    chance = random.Random(5)
    places = {0, 1, len(bundle) // 2, len(bundle) - 2, len(bundle) - 1}
    places |= {chance.randrange(len(bundle)) for _ in range(400)}
    for place in places:
        changed = bytearray(bundle)
        changed[place] ^= 1 << chance.randrange(8)
        with pytest.raises(RunError):
            verify_bundle(bytes(changed))


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_part_of_it_is_not_it(bundle: bytes, cut: int) -> None:
    with pytest.raises(RunError):
        verify_bundle(bundle[:cut])
    with pytest.raises(RunError):
        verify_bundle(bundle + b"\n")


def signed(finished: Run, bundle: bytes, **changes: str) -> bytes:
    """A bundle with other parts, signed by the coordinator as if it were right."""
    from fmfl_secure.report.bundle import _DOMAIN, _Bundle, _canonical

    parts = {**json.loads(bundle), **changes, "signature": ""}
    body = msgspec.convert(parts, _Bundle)
    signature = coordinator(finished).sign(_DOMAIN + _canonical(body)).hex()
    return _canonical(msgspec.structs.replace(body, signature=signature))


def test_signing_it_again_unchanged_holds(finished: Run, bundle: bytes) -> None:
    assert verify_bundle(signed(finished, bundle)).ended


def test_a_coordinator_that_lies_is_contradicted_by_what_others_signed(
    finished: Run, bundle: bytes
) -> None:
    record = decode_record(json.loads(bundle)["report_json"].encode())
    site = record.sites[0]
    assert site.statement is not None
    (grant,) = site.statement.grants
    kinder = msgspec.structs.replace(grant, epsilon_spent=grant.epsilon_spent / 2)
    statement = msgspec.structs.replace(site.statement, grants=(kinder,))
    sites = (msgspec.structs.replace(site, statement=statement), *record.sites[1:])
    less = encode_record(msgspec.structs.replace(record, sites=sites)).decode()
    with pytest.raises(RunError, match="does not hold"):
        verify_bundle(signed(finished, bundle, report_json=less))
    page = json.loads(bundle)["report_html"]
    with pytest.raises(RunError, match="does not say what the record says"):
        verify_bundle(signed(finished, bundle, report_html=page.replace("epsilon", "kindness")))
    with pytest.raises(RunError, match="no signed end"):
        verify_bundle(signed(finished, bundle, end=""))
    fewer = encode_record(msgspec.structs.replace(record, rounds=())).decode()
    with pytest.raises(RunError, match="has 0 of 1 planned rounds"):
        verify_bundle(signed(finished, bundle, report_json=fewer))
    (only,) = record.rounds
    other = msgspec.structs.replace(record, rounds=(msgspec.structs.replace(only, status="lost"),))
    with pytest.raises(RunError, match="not those of the run's signed end"):
        verify_bundle(signed(finished, bundle, report_json=encode_record(other).decode()))
    with pytest.raises(RunError, match="format"):
        verify_bundle(signed(finished, bundle, format="other"))


def test_no_picture_says_what_the_record_does_not(finished: Run, bundle: bytes) -> None:
    """Pictures are not compared, as libraries draw them otherwise: they are drawn anew."""
    page = json.loads(bundle)["report_html"]
    false = page.replace("</svg>", "<style>main { display: none }</style><text>0.01</text></svg>")
    assert false != page
    checked = verify_bundle(signed(finished, bundle, report_html=false))
    assert checked.page == verify_bundle(bundle).page == render_html(checked.record)


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("<script>1</script>", "<script>"),
        ('<a href="https://example.org">more</a>', "href of <a>"),
        ('<g onload="1"></g>', "onload of <g>"),
        ('<meta http-equiv="refresh" content="0">', "<meta http-equiv=refresh>"),
        ("<style>@import 'x.css';</style>", "<style> that loads something"),
        ('<p style="background: url(//x)">', "style of <p>"),
        ("<iframe></iframe>", "<iframe>"),
    ],
)
@pytest.mark.parametrize("version", ["", "0.0.1"])
def test_a_page_that_would_do_more_than_be_read_is_refused(
    finished: Run, bundle: bytes, part: str, named: str, version: str
) -> None:
    record = json.loads(json.loads(bundle)["report_json"])
    if version:
        record["versions"]["fmfl-secure"] = version
    changed = encode_record(decode_record(json.dumps(record).encode())).decode()
    page = json.loads(bundle)["report_html"].replace("</svg>", f"{part}</svg>", 1)
    with pytest.raises(RunError, match="would do more than be read") as refused:
        verify_bundle(signed(finished, bundle, report_html=page, report_json=changed))
    assert named in str(refused.value)


def test_another_signer_is_noticed(finished: Run, bundle: bytes, tmp_path: Path) -> None:
    other = Identity.generate("coordinator")
    with pytest.raises(RunError, match="is signed by"):
        verify_bundle(bundle, coordinator=other.public.fingerprint)
    own = coordinator(finished).public.fingerprint
    assert verify_bundle(bundle, coordinator=own).fingerprints["coordinator"] == own
    (tmp_path / "b.report").write_bytes(bundle)
    arguments = ["report", "verify", str(tmp_path / "b.report"), "--coordinator", own]
    said = CliRunner().invoke(app, arguments).output
    assert "NOT CHECKED of site-1, site-2, site-3:" in said
    for site in finished.record.sites:
        arguments += ["--site", f"{site.name}={site.identity}"]
    assert "NOT CHECKED" not in CliRunner().invoke(app, arguments).output
    for site in ("site-1", arguments[-1]):  # no fingerprint; and one that was given already
        wrong = CliRunner().invoke(app, [*arguments, "--site", site])
        assert isinstance(wrong.exception, ConfigError)
    with pytest.raises(RunError, match="the run's coordinator is"):
        write_bundle(finished.record, b"", other)


def test_a_page_of_another_version_is_not_made_again(finished: Run) -> None:
    record = finished.record
    versions = {**record.versions, "fmfl-secure": "0.0.1"}
    older = msgspec.structs.replace(record, versions=versions, status="interrupted")
    checked = verify_bundle(write_bundle(older, b"", coordinator(finished)))
    assert not checked.rendered_again
    assert not checked.ended


def test_what_cannot_be_read_or_written_is_told(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot read"):
        load_bundle(tmp_path / "nothing")
    with pytest.raises(RunError, match="cannot write"):
        bundle_run(finished.folder, finished.folder / "report.json" / "file")
    assert FORMAT.endswith("v1")


def test_report_run_is_report_show_run(finished: Run) -> None:
    for arguments in (["report", str(finished.folder)], ["report", "show", str(finished.folder)]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        assert "report.html" in done.output


def test_a_statement_of_another_run_is_noticed(finished: Run) -> None:
    """What a site signed when an earlier run ended says less than was spent since."""
    replace = msgspec.structs.replace
    record = finished.record
    other = replace(record, run=16 * "0", looked_at=msgspec.UNSET)
    with pytest.raises(RunError, match="site-1's statement is of another run"):
        verify_bundle(write_bundle(other, b"", coordinator(finished)))
    twice = replace(record, sites=(*record.sites, record.sites[0]))
    with pytest.raises(RunError, match="site-1 stands twice"):
        verify_bundle(write_bundle(twice, b"", coordinator(finished)))
    fewer = replace(record, sites=record.sites[1:])
    with pytest.raises(RunError, match="site-1 was in a round, and is not among"):
        verify_bundle(write_bundle(fewer, b"", coordinator(finished)))


def test_a_statement_from_before_a_round_says_so(finished: Run) -> None:
    """A site that is gone once it uploaded has stated what it had spent before."""
    replace = msgspec.structs.replace
    record = finished.record
    assert "made its statement before" not in render_html(record)
    site = record.sites[0]
    assert site.statement is not None
    runs = tuple(replace(each, rounds_trained=()) for each in site.statement.runs)
    early = replace(site, statement=replace(site.statement, runs=runs))
    page = render_html(replace(record, sites=(early, *record.sites[1:])))
    assert "site-1 made its statement before round 1, which it was in" in page


@pytest.mark.parametrize("name", ["", "report.json", "report.html"])
def test_what_is_no_bundle_is_told_how_to_make_one(finished: Run, name: str) -> None:
    done = CliRunner().invoke(app, ["report", "verify", str(finished.folder / name)])
    assert isinstance(done.exception, RunError)
    assert "fmfl-secure report bundle" in done.exception.hint


def test_no_draft_and_no_card_is_made_of_a_report_that_was_altered(
    finished: Run, tmp_path: Path
) -> None:
    """Neither of one whose figures were changed, nor of another run's."""
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    report = run / "report.json"
    own = json.loads(report.read_text())
    changed = json.loads(report.read_text())
    changed["sites"][0]["statement"]["grants"][0]["epsilon_spent"] /= 2
    for text, told in (
        (changed, "is not what its sites signed"),
        ({**own, "run": 16 * "0"}, f"is of run {16 * '0'}, and its folder of run {own['run']}"),
    ):
        report.write_text(json.dumps(text))
        for write in (write_dpia, lambda run: export_run(run, tmp_path / "model")):
            with pytest.raises(RunError, match=told) as refused:
                write(run)
            assert "fmfl-secure report" in refused.value.hint
    assert not (run / "dpia.md").exists()
    assert not (tmp_path / "model").exists()


def test_another_run_s_adapter_is_handed_on_by_no_card(finished: Run, tmp_path: Path) -> None:
    """One bit of it is enough; so it is where it is evaluated, asked or attacked."""
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    file = run / "adapter/head.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    rows = finished.folder.parent / "data/site-1.csv"
    for use in (
        lambda: export_run(run, tmp_path / "model"),
        lambda: export_run(run, tmp_path / "merged", merged=True),
        lambda: Run(run).evaluate(rows),
        lambda: Run(run).predict(rows),
    ):
        with pytest.raises(ModelError, match="is not the adapter that this run released last"):
            use()
    assert not (tmp_path / "model").exists()


def test_a_key_in_a_site_s_place_is_told_from_its_own(finished: Run) -> None:
    """A coordinator can sign as a site with a key that it made, and only its own key tells."""
    replace = msgspec.structs.replace
    site = finished.record.sites[1]
    other = Identity.generate("site-2")
    assert site.statement is not None
    (grant,) = site.statement.grants
    kinder = replace(site.statement, grants=(replace(grant, epsilon_spent=0.1),))
    false = replace(
        site,
        identity=other.public.fingerprint,
        public_key=other.public.text,
        statement=kinder,
        statement_signature=sign_statement(other, kinder),
    )
    sites = (finished.record.sites[0], false, finished.record.sites[2])
    lie = write_bundle(
        replace(finished.record, sites=sites, status="interrupted"), b"", coordinator(finished)
    )
    own = {each.name: each.identity for each in finished.record.sites}
    assert verify_bundle(lie, sites={"site-1": own["site-1"]})
    with pytest.raises(RunError, match=r"site-2 has the key ed25519:.*, and the bundle says"):
        verify_bundle(lie, sites=own)
    with pytest.raises(RunError, match="has no site of that name"):
        verify_bundle(lie, sites={"site-9": own["site-1"]})
