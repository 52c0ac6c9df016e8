"""Another package's adapter and task: named everywhere, allowed by name, held to the same gate."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from support import Quiet, make_federation
from task_cases import task_on

from fmfl_secure.api import Federation
from fmfl_secure.data import DataError, read_records, text_field
from fmfl_secure.data.formats import FORMATS
from fmfl_secure.errors import ConfigError, UnknownKind
from fmfl_secure.extensions import ADAPTERS_GROUP, READERS_GROUP, TASKS_GROUP, is_extension
from fmfl_secure.models.adapters import ADAPTERS
from fmfl_secure.planning.plans import run_proposal
from fmfl_secure.planning.task import build_task
from fmfl_secure.report.export import export_run
from fmfl_secure.run.record import decode_record
from fmfl_secure.settings.federation import (
    convert_config,
    decode_config,
    encode_config,
    load_federation,
    load_site,
)
from fmfl_secure.settings.site import SiteConfig
from fmfl_secure.settings.tasks import ExtensionSection
from fmfl_secure.tasks import TASKS
from fmfl_secure.training.admission import check_admission
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import AdmissionError, PolicyRefusal, SitePolicy, check_policy

CODE = Path(__file__).parents[1] / "outside_kinds.py"
ENTRIES = f"""\
[{ADAPTERS_GROUP}]
query = acme_kinds:QUERY
impostor = acme_kinds:IMPOSTOR
missing = acme_kinds:MISSING
broken = acme_broken:ANYTHING
task = acme_kinds:SMOOTH

[{TASKS_GROUP}]
smooth = acme_kinds:SMOOTH
coupled = acme_kinds:COUPLED
nothing = acme_kinds:NOTHING

[{READERS_GROUP}]
columns = acme_kinds:COLUMNS
careless = acme_kinds:CARELESS
usurper = acme_kinds:USURPER
query = acme_kinds:QUERY
"""
TASK = {
    "kind": "extension",
    "name": "acme-kinds:smooth",
    "options": {"text_columns": ["text"], "label_column": "label", "labels": ["no", "yes"]},
}
ALLOWED = 'extensions = ["acme-kinds:query", "acme-kinds:smooth"]'


@pytest.fixture(autouse=True)
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as an installer leaves it: modules, and metadata beside them."""
    site = tmp_path / "site-packages"
    metadata = site / "acme_kinds-1.4.dist-info"
    metadata.mkdir(parents=True)
    shutil.copyfile(CODE, site / "acme_kinds.py")
    (site / "acme_broken.py").write_text("raise RuntimeError('no such device')\n")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-kinds\nVersion: 1.4\n")
    (metadata / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "acme_kinds", raising=False)


@pytest.fixture
def federation(tmp_path: Path, tiny_model: Path) -> Path:
    path = make_federation(tmp_path / "federation", tiny_model, rounds=1, steps=1)
    text = path.read_text()
    start, end = text.index("[task]"), text.index("[privacy]")
    changed = """\
[task]
kind = "extension"
name = "acme-kinds:smooth"
[task.options]
text_columns = ["text"]
label_column = "label"
labels = ["no", "yes"]
smoothing = 0.2
[adapter]
kind = "acme-kinds:query"
"""
    path.write_text(text[:start] + changed + text[end:])
    return path


def allow(federation: Path, *sites: str) -> None:
    for site in sites:
        file = federation.parent / "sites" / site / "site.toml"
        file.write_text(file.read_text().replace("min_sites = 3", f"min_sites = 3\n{ALLOWED}", 1))


READERS = 'readers = ["acme-kinds:columns"]'
LEAK = b"Jane Doe, HIV positive"


@pytest.fixture
def fixed_width(tmp_path: Path, tiny_model: Path) -> Path:
    """A federation of which one site has its data in a form of another package."""
    path = make_federation(tmp_path / "fixed", tiny_model, rounds=1, steps=1, task=READERS)
    folder = path.parent / "data"
    rows = (folder / "site-3.csv").read_text().splitlines()[1:]
    lines = ["acme 1", *(f"{text:<80}{label:<4}" for text, label in (r.split(",") for r in rows))]
    (folder / "site-3.fixed").write_text("\n".join(lines) + "\n")
    (folder / "site-3.csv").unlink()
    settings = path.parent / "sites/site-3/site.toml"
    settings.write_text(settings.read_text().replace("site-3.csv", "site-3.fixed"))
    return path


def allow_reader(federation: Path, *sites: str) -> None:
    for site in sites:
        file = federation.parent / "sites" / site / "site.toml"
        named = 'min_sites = 3\nextensions = ["acme-kinds:columns"]'
        file.write_text(file.read_text().replace("min_sites = 3", named, 1))


def test_a_site_reads_its_data_in_another_packages_form_and_all_say_so(fixed_width: Path) -> None:
    allow_reader(fixed_width, "site-1", "site-2", "site-3")
    assert Federation(fixed_width).check("site-3").records == 40
    output = fixed_width.parent / "run"
    LocalEngine(fixed_width, output, resume=False, observer=Quiet()).run()
    record = decode_record((output / "report.json").read_bytes())
    assert record.extensions == ("acme-kinds:columns",)
    assert record.rounds[0].cohort == ("site-1", "site-2", "site-3")
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Code of other packages took part: acme-kinds:columns (1.4)" in page


def test_a_form_is_imported_and_read_only_where_the_policy_names_it(fixed_width: Path) -> None:
    allow_reader(fixed_width, "site-1", "site-2")
    for look in (Federation.check, Federation.check_units):
        with pytest.raises(PolicyRefusal, match="acme-kinds:columns is code of another") as refusal:
            look(Federation(fixed_width), "site-3")
        assert refusal.value.code == "policy.extension"
    assert "acme_kinds" not in sys.modules


def test_a_form_that_settings_do_not_name_is_none(fixed_width: Path) -> None:
    data = fixed_width.parent / "data/site-3.fixed"
    fields = [text_field("text_columns", ("text",))]
    with pytest.raises(DataError, match=r"the extension is '\.fixed'"):
        read_records(data, fields)
    assert "acme_kinds" not in sys.modules
    assert len(read_records(data, fields, readers=["acme-kinds:columns"]).units) == 40
    with pytest.raises(DataError, match=r"expected one of .*\.fixed"):
        read_records(data.with_suffix(".other"), fields, readers=["acme-kinds:columns"])


def test_a_form_that_takes_files_of_another_is_refused(fixed_width: Path) -> None:
    text = fixed_width.read_text()
    fixed_width.write_text(text.replace("acme-kinds:columns", "acme-kinds:usurper"))
    with pytest.raises(ConfigError, match=r"takes files that end in \.csv, which are CSV"):
        build_task(load_federation(fixed_width), relative_to=fixed_width.parent)


def test_what_a_form_fails_by_quotes_no_record(tmp_path: Path) -> None:
    data = tmp_path / "data.careless"
    data.write_bytes(LEAK)
    with pytest.raises(DataError, match="acme-kinds:careless failed: ValueError") as error:
        read_records(data, [text_field("text", ("text",))], readers=["acme-kinds:careless"])
    assert "Jane" not in f"{error.value} {error.value.hint}"
    assert error.value.__cause__ is None


def test_settings_without_forms_of_others_keep_their_digest(fixed_width: Path) -> None:
    config = load_federation(fixed_width)
    fixed_width.write_text(fixed_width.read_text().replace(READERS, ""))
    without = load_federation(fixed_width)
    assert b"readers" not in encode_config(without)
    assert without.digest != config.digest


def section(**changes: object) -> ExtensionSection:
    return msgspec.convert({**TASK, **changes}, ExtensionSection)


def test_a_run_trains_with_both_and_says_so(federation: Path) -> None:
    allow(federation, "site-1", "site-2", "site-3")
    output = federation.parent / "run"
    LocalEngine(federation, output, resume=False, observer=Quiet()).run()
    record = decode_record((output / "report.json").read_bytes())
    assert record.status == "finished"
    assert record.extensions == ("acme-kinds:query", "acme-kinds:smooth")
    assert record.versions["acme-kinds"] == "1.4"
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Code of other packages took part: acme-kinds:query (1.4) and acme-kinds:smooth" in page
    export_run(output, federation.parent / "out")
    card = (federation.parent / "out/README.md").read_text()
    assert "the code of another package: acme-kinds:smooth, acme-kinds:query" in card


def test_a_site_whose_policy_names_neither_takes_no_part(federation: Path) -> None:
    allow(federation, "site-1", "site-2")
    config, settings = load_federation(federation), None
    for site, allowed in (("site-1", True), ("site-3", False)):
        settings = load_site(federation.parent / "sites" / site / "site.toml")
        proposal = run_proposal(config, settings, "sha256:" + "a" * 64, 48, unlisted="")
        if allowed:
            check_policy(settings.policy, proposal, now=datetime.now(UTC))
            continue
        with pytest.raises(PolicyRefusal, match="acme-kinds:query is code of another") as refusal:
            check_policy(settings.policy, proposal, now=datetime.now(UTC))
        assert refusal.value.code == "policy.extension"


def test_nothing_is_imported_where_the_policy_does_not_allow_it(federation: Path) -> None:
    pilot = Federation(federation)
    with pytest.raises(PolicyRefusal, match="acme-kinds:query"):
        pilot.check("site-1")
    assert "acme_kinds" not in sys.modules
    allow(federation, "site-1")
    pilot.check("site-1")
    assert "acme_kinds" in sys.modules


def test_a_policy_of_0_1_0_allows_none() -> None:
    old = {"data": {"path": "x.csv"}, "budget": {"population": "p"}, "policy": {"min_sites": 3}}
    policy = convert_config(old, SiteConfig, source="site.toml").policy
    assert policy.extensions == SitePolicy().extensions == ()


def test_settings_are_read_by_parties_that_do_not_have_the_package(federation: Path) -> None:
    config = load_federation(federation)
    assert config.extensions == ("acme-kinds:query", "acme-kinds:smooth")
    assert config.task.kind == "acme-kinds:smooth"
    again = decode_config(encode_config(config))
    assert (again, again.digest, hash(again)) == (config, config.digest, hash(config))
    assert "acme_kinds" not in sys.modules


def test_a_coupled_loss_does_not_pass_the_gate(federation: Path) -> None:
    config = load_federation(federation)
    options = {n: v for n, v in config.task.options.items() if n != "smoothing"}
    other = section(name="acme-kinds:coupled", options=options)
    for changed, passes in ((config.task, True), (other, False)):
        settings = msgspec.structs.replace(config, task=changed)
        task = build_task(settings, relative_to=federation.parent)
        model = task.build_model(seed=1)
        if passes:
            check_admission(settings, task, model)
            continue
        with pytest.raises(AdmissionError):
            check_admission(settings, task, model)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acme-kinds:absent", "0 entries of the package 'acme-kinds'"),
        ("no-such-package-here:x", "which is not installed here"),
        ("acme-kinds:smooth", "0 entries"),  # a task, and no adapter
    ],
)
def test_what_is_not_there_is_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(UnknownKind, match=said) as refusal:
        ADAPTERS.get(name)
    assert name in str(refusal.value)
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("acme-kinds:impostor", "calls itself 'acme-kinds:query'"),
        ("acme-kinds:missing", "cannot be imported: AttributeError"),
        ("acme-kinds:broken", "cannot be imported: RuntimeError: no such device"),
        ("acme-kinds:task", "is no Adapter"),
    ],
)
def test_an_entry_that_is_not_what_it_should_be_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ADAPTERS.get(name)


def test_an_entry_of_another_type_is_no_form() -> None:
    with pytest.raises(ConfigError, match="is no Format"):
        FORMATS.get("acme-kinds:query")


def test_an_entry_of_another_type_is_no_task() -> None:
    with pytest.raises(ConfigError, match="is no TaskKind"):
        TASKS.get("acme-kinds:nothing")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({**TASK["options"], "smooting": 0.2}, "task.options has 'smooting'"),
        ({**TASK["options"], "smoothing": "much"}, "Expected `float`"),
        ({"labels": ["no", "yes"]}, "missing required field"),
        ({**TASK["options"], "unit": "patient"}, "task.options has 'unit'"),
    ],
)
def test_options_are_read_strictly(tiny_models, options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        task_on(tiny_models("bert"), section(options=options))


@pytest.mark.parametrize(
    "name",
    ["acme", ":x", "acme:", "Acme:x", "acme_kinds:x", "acme:x:y", "acme:x\n", "../acme:x", "a.b:x"],
    ids=repr,
)
def test_a_name_has_one_spelling(name: str) -> None:
    assert not is_extension(name)
    with pytest.raises(msgspec.ValidationError):
        section(name=name)
    with pytest.raises(UnknownKind):
        ADAPTERS.get(name)


def test_a_task_keeps_its_settings(tiny_models) -> None:
    settings = section(options={**TASK["options"], "smoothing": 0.3}, on_bad_row="error")
    task = task_on(tiny_models("bert"), settings)
    assert task.kind == "acme-kinds:smooth"
    assert (task.settings.smoothing, task.settings.on_bad_row) == (0.3, "error")
    assert dataclasses.replace(task, cache_bytes=0).labels == ("no", "yes")
