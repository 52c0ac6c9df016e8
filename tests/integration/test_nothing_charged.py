"""No site is charged, nor reserves, for what could be known before a record is read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from support import Quiet, initialise, make_federation
from tiny_models import IMAGE_SIZE, png, write_tiny

from fmfl_secure import Federation
from fmfl_secure.asking import RunAsked
from fmfl_secure.data import DataError, label_field, text_field
from fmfl_secure.data.headers import check_header, check_image_folder
from fmfl_secure.errors import ConfigError, ModelError, RunError
from fmfl_secure.parties.site import Site
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.transports.https.processes.site import require_data
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import AdmissionError, Ledger

SITES = ("site-1", "site-2", "site-3")


def commits(folder: Path) -> dict[str, int]:
    """Charged rounds of each site."""
    found = {}
    for site in SITES:
        held = Ledger(folder / "sites" / site / "ledger.sqlite").budget().reservations.values()
        found[site] = sum(len(reservation.commits) for reservation in held)
    return found


def reservations(folder: Path) -> int:
    return sum(
        len(Ledger(folder / "sites" / site / "ledger.sqlite").budget().reservations)
        for site in SITES
    )


def run(file: Path) -> tuple[Quiet, str]:
    """What a run that has to stop says, to its observer and as its error."""
    observer = Quiet()
    engine = LocalEngine(file, file.parent / "run", resume=False, observer=observer)
    with pytest.raises(RunError) as refusal:
        engine.run()
    return observer, str(refusal.value)


def spoil(path: Path, fault: str) -> None:
    match fault:
        case "no file":
            path.unlink()
        case "no column":
            path.write_text(path.read_text().replace("text,label", "text,lable", 1))
        case "empty":
            path.write_bytes(b"")
        case "a folder":
            path.unlink()
            path.mkdir()
        case "UTF-16":
            path.write_bytes(path.read_text().encode("utf-16"))
        case "no rows":
            path.write_text("text,label\n")


FAULTS = ["no file", "no column", "empty", "a folder", "UTF-16", "no rows"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_site_without_usable_data_is_out_before_anybody_reserves(
    tiny_model: Path, tmp_path: Path, fault: str
) -> None:
    file = make_federation(tmp_path, tiny_model)
    spoil(tmp_path / "data/site-3.csv", fault)  # the last: the others were asked before it
    observer, error = run(file)
    assert "2 of 3 sites take part" in error
    assert observer.refused["site-3"][0] == "failed", "others hear the generic word"
    assert reservations(tmp_path) == 0
    assert observer.trained == []


@pytest.mark.parametrize("fault", FAULTS)
def test_public_data_for_figures_are_read_before_anybody_reserves(
    tiny_model: Path, tmp_path: Path, fault: str
) -> None:
    file = make_federation(tmp_path, tiny_model)
    spoil(tmp_path / "data/holdout.csv", fault)
    with pytest.raises(DataError, match=r"holdout\.csv"):
        LocalEngine(file, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert reservations(tmp_path) == 0
    assert not (tmp_path / "run").exists()


def test_the_others_go_on_where_they_are_enough(tiny_model: Path, tmp_path: Path) -> None:
    file = make_federation(tmp_path, tiny_model, sites=4, rounds=1)
    spoil(tmp_path / "data/site-1.csv", "no file")
    LocalEngine(file, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert commits(tmp_path) == {"site-1": 0, "site-2": 1, "site-3": 1}


@pytest.mark.parametrize("fault", ["no file", "no rows"])
def test_data_that_change_once_a_run_has_begun_are_looked_at_before_the_charge(
    tiny_model: Path, tmp_path: Path, monkeypatch, fault: str
) -> None:
    file = make_federation(tmp_path, tiny_model, rounds=1)
    begin = Site.begin

    def begin_and_change(self: Site, call: bytes | None) -> None:
        begin(self, call)
        if self.name == "site-1":
            spoil(tmp_path / "data/site-1.csv", fault)

    monkeypatch.setattr(Site, "begin", begin_and_change)
    observer, error = run(file)
    assert "2 sites are left for round 1" in error
    assert observer.refused["site-1"][0] == "failed"
    assert commits(tmp_path) == {"site-1": 0, "site-2": 0, "site-3": 0}


def test_once_too_few_are_left_no_further_site_trains(tiny_model: Path, tmp_path: Path) -> None:
    file = make_federation(tmp_path, tiny_model, task='on_bad_row = "error"')
    data = tmp_path / "data/site-1.csv"
    data.write_text(data.read_text().replace(",yes", ",Positive"))  # known from records alone
    observer, error = run(file)
    assert "fewer than min_sites = 3" in error
    assert observer.refused["site-1"][0] == "failed"
    assert commits(tmp_path) == {"site-1": 1, "site-2": 0, "site-3": 0}


def with_people(folder: Path, file: Path) -> None:
    """Give every row of the sites' files a person, of whom a fifth are set apart."""
    for site in SITES:
        data = folder / f"data/{site}.csv"
        head, *rows = data.read_text().splitlines()
        rows = [f"{row},p{number}" for number, row in enumerate(rows)]
        data.write_text("\n".join([f"{head},who", *rows, ""]))
    file.write_text(file.read_text().replace("[evaluation]\n", "[evaluation]\nholdout = 0.2\n"))


def test_a_key_that_sets_units_apart_is_looked_at_before_anybody_reserves(
    tiny_model: Path, tmp_path: Path
) -> None:
    privacy = "max_records_per_unit = 1"
    file = make_federation(tmp_path, tiny_model, privacy=privacy, task='unit = "who"', rounds=1)
    with_people(tmp_path, file)
    key = tmp_path / "sites/site-3/holdout.key"
    key.write_bytes(b"cut short")
    key.chmod(0o600)
    observer, error = run(file)
    assert "2 of 3 sites take part" in error
    assert "does not hold a key of 32 bytes" in observer.refused["site-3"][1]
    assert reservations(tmp_path) == 0


def test_a_process_of_a_site_finds_a_split_behind_the_file_that_has_it(
    tiny_model: Path, tmp_path: Path
) -> None:
    make_federation(tmp_path, tiny_model)
    own = tmp_path / "sites/site-3/site.toml"
    own.write_text(own.read_text().replace("site-3.csv", "all.npz/train"))
    with pytest.raises(ConfigError, match="does not exist"):
        require_data(own.parent)
    np.savez(tmp_path / "data/all.npz", train_text=np.array(["a"]), train_label=np.array(["no"]))
    require_data(own.parent)


@pytest.mark.parametrize("apart", ["../data/site-3.csv", "copy.csv"])
def test_what_is_trained_on_is_not_set_apart_as_well(
    tiny_model: Path, tmp_path: Path, apart: str
) -> None:
    file = make_federation(tmp_path, tiny_model)
    shutil.copyfile(tmp_path / "data/site-3.csv", tmp_path / "data/copy.csv")
    own = tmp_path / "sites/site-3/site.toml"
    named = f'[data]\nholdout = "../../data/{apart}"\n'
    own.write_text(own.read_text().replace("[data]\n", named, 1))
    observer, error = run(file)
    assert "2 of 3 sites take part" in error
    assert "are one file" in observer.refused["site-3"][1]
    assert reservations(tmp_path) == 0
    with pytest.raises(ConfigError, match="are one file"):
        Federation(tmp_path).check("site-3")


@pytest.mark.parametrize("fault", ["damaged", "of another model"])
def test_a_site_s_own_parts_are_looked_at_before_anybody_reserves(
    tiny_model: Path, tmp_path: Path, fault: str
) -> None:
    adapter = "last_layers = 1\npersonal_head = true"
    file = make_federation(
        tmp_path, tiny_model, adapter=adapter, evaluation=False, rounds=1, grant=60.0
    )
    first = LocalEngine(file, tmp_path / "first", resume=False, observer=Quiet()).run()
    file.write_text(file.read_text().replace(adapter, f'{adapter}\ninitial = "first"'))
    parts = tmp_path / f"sites/site-3/heads/{first.run}.safetensors"
    parts.write_bytes(
        b"damaged"
        if fault == "damaged"
        else safetensors.torch.save({"weight": torch.zeros(3, 5), "bias": torch.zeros(3)})
    )
    observer, error = run(file)
    assert "2 of 3 sites take part" in error
    assert "site-3: " in observer.refused["site-3"][1]
    assert reservations(tmp_path) == 3
    assert set(commits(tmp_path).values()) == {1}, "of the first run alone"


def other_base(base: Path) -> None:
    """Change one weight: another base model, whose adapters have the same layout."""
    file = base / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    first = min(tensors)
    tensors[first] = tensors[first] + 1
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("what", ["base model", "adapter that training starts from"])
def test_a_site_of_another_base_model_or_start_is_out_before_anybody_trains(
    tiny_model: Path, tmp_path: Path, monkeypatch, what: str
) -> None:
    file = make_federation(tmp_path, tiny_model)
    shutil.copytree(tiny_model, tmp_path / "other")
    config = load_federation(file)
    seed = config.federation.seed + 1
    if what == "base model":
        other_base(tmp_path / "other")
        seed -= 1
    model = msgspec.structs.replace(config.model, base=str(tmp_path / "other"))
    task = build_task(msgspec.structs.replace(config, model=model), relative_to=tmp_path)

    class Other(Site):
        def __init__(self, folder: Path, **named) -> None:
            if named["entry"].name == "site-3":
                named |= {"task": task, "model": task.build_model(seed=seed)}
            super().__init__(folder, **named)

    monkeypatch.setattr("fmfl_secure.transports.local.engine.Site", Other)
    observer, error = run(file)
    assert "2 of 3 sites take part" in error
    assert f"the {what} is not the one" in observer.refused["site-3"][1]
    assert set(commits(tmp_path).values()) == {0}


def test_a_run_goes_on_and_is_asked_about_on_its_own_base_model_alone(
    tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "base")
    file = make_federation(tmp_path, tmp_path / "base")

    class Cut(Quiet):
        def round_finished(self, *_: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalEngine(file, tmp_path / "run", resume=False, observer=Cut()).run()
    assert set(commits(tmp_path).values()) == {1}
    other_base(tmp_path / "base")
    with pytest.raises(RunError, match="was started with another base model"):
        LocalEngine(file, tmp_path / "run", resume=True, observer=Quiet()).run()
    with pytest.raises(ModelError, match=r"has digest .*, expected"):
        RunAsked.of(tmp_path / "run")
    assert set(commits(tmp_path).values()) == {1}


PICTURES = """
[federation]
name = "tiny"
rounds = 1
[model]
base = "base"
[task]
kind = "image-classification"
labels = ["dark", "bright"]
[adapter]
kind = "head"
[privacy]
noise = "none"
sample_rate = 0.5
steps_per_round = 1
"""


def test_no_ledger_ends_by_a_run_without_noise_that_could_never_train(tmp_path: Path) -> None:
    write_tiny(tmp_path / "base", "vit")
    processor = tmp_path / "base/preprocessor_config.json"
    processor.write_text(processor.read_text().replace(str(IMAGE_SIZE), str(2 * IMAGE_SIZE)))
    sites = [f'[[sites]]\nname = "{site}"\npopulation = 40\n' for site in SITES]
    file = tmp_path / "federation.toml"
    file.write_text("\n".join([PICTURES, *sites]))
    initialise(tmp_path, epsilon=None, delta=None, simulated=True)
    for site in SITES:
        for label in ("dark", "bright"):
            place = tmp_path / f"sites/{site}/pictures/{label}"
            place.mkdir(parents=True)
            (place / "1.png").write_bytes(png(seed=1, bright=label == "bright"))
        own = tmp_path / f"sites/{site}/site.toml"
        text = re.sub("^path = .*$", 'path = "pictures"', own.read_text(), flags=re.MULTILINE)
        own.write_text(text.replace('non_private = "refuse"', 'non_private = "exhaust"'))
    with pytest.raises(AdmissionError, match="makes no loss of a synthetic record"):
        LocalEngine(file, tmp_path / "run", resume=False, observer=Quiet()).run()
    for site in SITES:
        assert not Ledger(tmp_path / f"sites/{site}/ledger.sqlite").budget().non_private


FIELDS = (text_field("text_columns", ("text",)), label_field("label_column", "label", ("a", "b")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'"te\nxt",text,label\n'),
        ("a.csv", b"\xef\xbb\xbftext,label\r\nx,unknown\r\n"),
        ("a.tsv", b"text\tlabel\n\xff\xff\tc\n"),
        ("a.jsonl", b'{"other": 1}\n'),
    ],
)
def test_records_are_not_looked_at(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    check_header(path, FIELDS)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"text,labels\nx,a\n", "there is no column 'label'"),
        ("a.csv", b"text,label,text\n", "must be distinct"),
        ("a.xlsx", b"PK", "the extension is '.xlsx'"),
        ("a.jsonl", b"", "the file is empty"),
        ("a.parquet", b"PAR1", "not readable as Parquet"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected):
        check_header(path, FIELDS)


def test_a_type_of_the_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [["a"]], "label": ["a"], "who": ["x"]}), path)
    with pytest.raises(DataError, match="column 'text' holds lists of texts; expected texts or"):
        check_header(path, FIELDS)
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), path)
    with pytest.raises(DataError, match="column 'label' holds numbers; expected one of 'a', 'b'"):
        check_header(path, FIELDS)
    pq.write_table(pa.table({"text": ["a"], "label": ["a"]}), path)
    check_header(path, FIELDS)
    with pytest.raises(DataError, match="there is no column 'who'"):
        check_header(path, FIELDS, unit="who")


def test_a_folder_without_a_label_s_subfolder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dark").mkdir()
    check_image_folder(tmp_path, ("dark", "bright"))
    check_image_folder(tmp_path, ("night", "day"), aliases=(("dark", "night"),))
    with pytest.raises(DataError, match="no subfolder named after a label"):
        check_image_folder(tmp_path, ("clear", "nodule"))
    with pytest.raises(DataError, match="the file cannot be read"):
        check_image_folder(tmp_path / "nowhere", ("dark",))
