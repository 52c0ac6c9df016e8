"""Files that somebody else made: typed errors, bounded memory, nothing of a record quoted."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from support import settings
from text_dataset import read_text_dataset

from fmfl_secure import outside
from fmfl_secure.data import fields
from fmfl_secure.data.errors import DataError, MissingColumnError
from fmfl_secure.data.fields import text_field
from fmfl_secure.data.headers import check_header
from fmfl_secure.errors import ConfigError, FmflError, ModelError, RunError
from fmfl_secure.models import find_base_model
from fmfl_secure.planning.task import build_task
from fmfl_secure.report.bundle import load_bundle, verify_bundle
from fmfl_secure.run.audit_check import decode_audit
from fmfl_secure.run.record import decode_record
from fmfl_secure.settings.federation import load_federation, load_site
from fmfl_secure.settings.service import ClientSettings, load_settings
from fmfl_secure.vectors.start_file import read_start

DEEP = 100_000


def nested_toml(path: Path) -> Path:
    path.write_text("x = " + "[" * DEEP + "]" * DEEP)
    return path


SETTINGS: dict[str, Callable[[Path], object]] = {
    "federation": load_federation,
    "site": load_site,
    "service": lambda path: load_settings(path, ClientSettings),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_nested_without_end_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match="nested too deeply"):
        SETTINGS[kind](nested_toml(tmp_path / "x.toml"))
    (tmp_path / "y.toml").write_text("a" + ".a" * DEEP + " = 1")
    with pytest.raises(ConfigError):
        SETTINGS[kind](tmp_path / "y.toml")


def others(folder: Path) -> dict[str, Path]:
    """What is no file, in a file's place."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket"))
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "zero").symlink_to("/dev/zero")
    names = ("pipe", "socket", "folder", "loop", "zero", "absent")
    return {name: folder / name for name in names}


@pytest.mark.parametrize("kind", SETTINGS)
def test_no_pipe_and_no_device_is_waited_for_in_the_place_of_settings(tmp_path, kind: str) -> None:
    for path in others(tmp_path).values():
        with pytest.raises(ConfigError):
            SETTINGS[kind](path)


@pytest.mark.parametrize(
    "suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet", ".csv.gz", ".npz", ".conll", ".arrow"]
)
def test_no_pipe_and_no_device_is_waited_for_in_the_place_of_data(tmp_path, suffix: str) -> None:
    for name, path in others(tmp_path).items():
        if name == "folder":
            continue
        place = tmp_path / f"{name}{suffix}"
        path.rename(place) if path.exists() or path.is_symlink() else None
        for look in (
            lambda place=place: check_header(place, (text_field("text_column", ("text",)),)),
            lambda place=place: read_text_dataset(
                place, text_column="text", label_column="label", labels=["a"]
            ),
        ):
            with pytest.raises(DataError):
                look()


def test_settings_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "MOST_SETTINGS", 1000)
    (tmp_path / "x.toml").write_text("# " + "x" * 2000)
    with pytest.raises(ConfigError, match="more than 1000 bytes"):
        load_federation(tmp_path / "x.toml")


def test_a_name_that_no_file_can_have_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="NUL"):
        outside.read_regular(tmp_path / "a\0b.csv")


def test_reading_a_regular_file_reads_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert outside.read_regular(tmp_path / "x") == b"12345"
    assert outside.read_regular(tmp_path / "x", most_bytes=5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        outside.read_regular(tmp_path / "x", most_bytes=4)
    with pytest.raises(ValueError, match="nested"):
        outside.parse_json("[" * DEEP)
    with pytest.raises(tomllib.TOMLDecodeError):
        outside.parse_toml("x = " + "[" * DEEP)


@pytest.mark.parametrize("read", [decode_record, decode_audit, verify_bundle])
def test_documents_nested_without_end_are_refused(read) -> None:
    for text in (b"[" * DEEP, b'{"format":' + b"[" * DEEP, b'{"settings":' + b'{"a":' * DEEP):
        with pytest.raises(RunError):
            read(text)


def test_a_bundle_is_no_pipe(tmp_path: Path) -> None:
    for path in others(tmp_path).values():
        with pytest.raises(RunError):
            load_bundle(path)


# Models.


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    shutil.copytree(tiny_model, tmp_path / "model")
    return tmp_path / "model"


def rewrite(model: Path, **changes) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 10**400},
        {"num_labels": 10**9},
        {"vocab_size": 10**12},
        {"hidden_size": 2**31},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"depths": [2, 10**9]},
        {"num_experts": 10**7},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_model_of_a_billion_layers_is_refused_before_it_is_built(model: Path, changes) -> None:
    rewrite(model, **changes)
    with pytest.raises(ModelError, match="expected at most"):
        find_base_model(str(model))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 1 << 20},
        {"num_attention_heads": 0},
        {"num_attention_heads": -3},
        {"hidden_size": -1},
        {"hidden_size": 0},
        {"vocab_size": 0},
        {"num_hidden_layers": 200},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 1.5},
        {"max_position_embeddings": 1 << 18},
        {"hidden_act": "none"},
        {"hidden_size": "x"},
        {"model_type": "no-such-model"},
        {"model_type": ["bert"]},
    ],
    ids=str,
)
def test_any_other_absurd_model_is_a_typed_error(model: Path, tmp_path: Path, changes) -> None:
    rewrite(model, **changes)
    path = tmp_path / "federation.toml"
    path.write_text(settings(model, sites=3))
    config = load_federation(path)
    with pytest.raises(FmflError):
        build_task(config, relative_to=tmp_path).build_model(seed=1)


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
@pytest.mark.parametrize("content", ["nested", "nested-within", "pipe", "empty", "garbage"])
def test_any_file_of_a_model_may_be_nonsense(
    model: Path, tmp_path: Path, file: str, content: str
) -> None:
    place = model / file
    place.unlink(missing_ok=True)
    if content == "pipe":
        os.mkfifo(place)
    else:
        place.write_text(
            {
                "nested": "[" * DEEP,
                "nested-within": '{"model": ' + '{"a":' * DEEP,
                "empty": "",
                "garbage": "\x00\x01",
            }[content]
        )
    path = tmp_path / "federation.toml"
    path.write_text(settings(model, sites=3))
    config = load_federation(path)
    with pytest.raises(FmflError):
        build_task(config, relative_to=tmp_path).build_model(seed=1)


def test_a_start_file_is_no_pipe(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(settings(tiny_model, sites=3))
    config = load_federation(path)
    for place in others(tmp_path).values():
        with pytest.raises(ModelError):
            read_start(place, config)


# Nothing of a record is quoted.

SECRET = "Mrs Quimby of 7 Elm Road, diagnosed"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_header_that_is_really_a_record_is_not_quoted(tmp_path: Path, suffix: str) -> None:
    place = tmp_path / f"x{suffix}"
    place.write_text(
        {
            ".csv": f'"{SECRET}",b\n"text","a"\n',
            ".tsv": f"{SECRET}\tb\nx\ty\n",
            ".jsonl": json.dumps({SECRET: "x", "b": "y"}) + "\n",
        }[suffix]
    )
    twice = tmp_path / f"twice{suffix}"
    twice.write_text(
        f'"{SECRET}","{SECRET}"\n1,2\n'.replace(",", "\t" if suffix == ".tsv" else ",")
    )
    for path in (place, twice):
        with pytest.raises(DataError) as refusal:
            read_text_dataset(path, text_column="text", label_column="label", labels=["a"])
        said = f"{refusal.value} {refusal.value.hint}"
        assert "Quimby" not in said
        assert "Elm" not in said


def test_a_column_that_is_nearly_named_so_is_said_to_be(tmp_path: Path) -> None:
    place = tmp_path / "x.csv"
    place.write_text(" Te-xt,label\nx,a\n")
    with pytest.raises(MissingColumnError) as refusal:
        read_text_dataset(place, text_column="text", label_column="label", labels=["a"])
    assert "case, spaces or marks" in refusal.value.hint


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_a_single_field_of_a_gigabyte_costs_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(fields, "MAX_TEXT", 1000)
    rows = [{"text": "fine", "label": "a"}, {"text": "x" * 1001, "label": "a"}]
    texts = {
        ".csv": "text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in rows),
        ".tsv": "text\tlabel\n" + "".join(f"{r['text']}\t{r['label']}\n" for r in rows),
        ".jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        ".json": json.dumps(rows),
    }
    place = tmp_path / f"x{suffix}"
    place.write_text(texts[suffix])
    named = {"text_column": "text", "label_column": "label", "labels": ["a"]}
    read = read_text_dataset(place, **named, on_bad_row="skip")
    assert (len(read.texts), read.skipped) == (1, 1)
    with pytest.raises(DataError, match="more than 1000 characters") as refusal:
        read_text_dataset(place, **named)
    assert "xxx" not in str(refusal.value)


# What is left behind.


def test_no_command_leaves_anything_that_others_may_write(
    main, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    federation = tmp_path / "federation/federation.toml"
    before = os.umask(0)
    try:
        assert main("init", tmp_path / "federation", "--sites", "3")[0] == 0
        federation.write_text(settings(tiny_model, sites=3))
        os.umask(0)  # the first command has set it
        kits = ("--output", tmp_path / "kits", "--server", "https://localhost:8443")
        assert main("provision", federation, *kits)[0] == 0
    finally:
        os.umask(before)
    made = [p for p in tmp_path.rglob("*") if p.name != "federation.toml"]
    assert len(made) > 30
    for path in made:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert not mode & 0o022, f"{path.relative_to(tmp_path)}: {mode:o}"


def test_written_files_are_nobody_else_s_to_write(tmp_path: Path) -> None:
    from fmfl_secure.storage.files import write_files

    before = os.umask(0)
    try:
        write_files(tmp_path / "new", {"x": b"1"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new/x").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755
