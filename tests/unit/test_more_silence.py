"""What a file or a setting says twice, or says to nobody, is refused or told, and never chosen."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_cases import task_on
from test_config import FEDERATION
from tiny_models import png

from fmfl_secure.data.fields import label_field, read_records, text_field
from fmfl_secure.data.formats.registry import open_source
from fmfl_secure.data.images import image_field, read_image_folder
from fmfl_secure.data.label_sets import label_set_field
from fmfl_secure.data.tagged import words_field
from fmfl_secure.errors import ConfigError, FmflError, ModelError
from fmfl_secure.models import find_base_model
from fmfl_secure.settings.federation import FederationConfig, convert_config, load_federation
from fmfl_secure.settings.tasks import CausalLMSection, PreferenceSection
from fmfl_secure.tasks.texts import rows_of_settings, tokenize

FIELDS = (text_field("text", ("text",)), label_field("label", "label", ["no", "yes"]))
GOOD = '{"text": "fine", "label": "yes"}'


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    "bad",
    [
        '{"text": "one", "text": "two", "label": "yes"}',
        '{"text": "one", "label": "yes", "\\u0074ext": "two"}',
        '{"text": "one", "label": "yes", "more": [{"role": "user", "role": "assistant"}]}',
        '{"text" : "one", "text"\t: "two", "label":"yes"}',
    ],
    ids=["twice", "spelt otherwise", "inside", "with spaces"],
)
def test_a_key_that_an_object_has_twice_is_a_bad_row(tmp_path: Path, suffix: str, bad: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_text(f"{bad}\n{GOOD}\n" if suffix == ".jsonl" else f"[{bad}, {GOOD}]")
    found = read_records(path, FIELDS, on_bad_row="skip")
    assert found.columns[0] == ["fine"]
    assert "1 with key that an object has twice (row 1)" in str(found.left_out)


def test_a_row_without_a_key_inside_is_parsed_once(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "he said: a, [b] and {c}", "label" : "yes", "n": [1, "x"]}\n')
    monkeypatch.setattr("fmfl_secure.data.formats._json_rows._KEYS", None)
    assert len(read_records(path, FIELDS)) == 1


def test_a_value_that_looks_like_a_key_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "\\"label\\": \\"label\\":", "label": "yes"}\n')
    assert read_records(path, FIELDS).columns[0] == ['"label": "label":']


def test_keys_are_told_apart_whatever_the_values_are(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"n": {"9" * 5000}, "f": 1e999, "text": "a", "label": "yes"}}\n')
    assert len(read_records(path, FIELDS)) == 1


@pytest.mark.parametrize(
    "value",
    [dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.time(1), dt.timedelta(1)],
    ids=repr,
)
def test_a_date_is_no_text_and_may_be_an_id(tmp_path: Path, value: object) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["fine", "fine"], "when": [value, value]}), path)
    found = read_records(path, [text_field("text", ("text",))], unit="when")
    assert len(found.units) == 1
    with pytest.raises(FmflError, match="a date or time in place of a text"):
        read_records(path, [text_field("text", ("when",))], on_bad_row="skip")


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u200d", "\x00", "\u00ad\u00a0"], ids=ascii)
def test_what_nobody_can_see_is_no_text_and_no_word(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(msgspec.json.encode({"text": text, "words": ["a", text]}).decode())
    with pytest.raises(FmflError, match="no text"):
        read_records(path, [FIELDS[0]], on_bad_row="skip")
    with pytest.raises(FmflError, match="a word in column 'words' is empty"):
        read_records(path, [words_field("words", "words")])


def test_a_no_break_space_is_part_of_a_word(tmp_path: Path) -> None:
    path = tmp_path / "x.conll"
    path.write_text("New\u00a0York B-NAME\n\nx O\n", "utf-8")
    source = open_source(path)
    words = [row.values[0] for row in source.rows(["tokens"])]
    assert words == ['["New\u00a0York"]', '["x"]']


def test_a_list_of_something_else_is_not_called_a_printed_one(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"labels": [true]}\n')
    with pytest.raises(FmflError) as refused:
        read_records(path, [label_set_field("label", "labels", ["a", "b"])])
    assert 'such as {"labels": ["a", "b"]}' in refused.value.hint


@pytest.mark.parametrize("kind", ["text-classification", "token-classification"])
def test_texts_that_the_tokenizer_does_not_know_are_counted(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    task = task_on(tiny_model, kind)
    known, half, strange = ["alpha", "beta"], ["alpha", "beta", "болен"], ["пациент", "болен"]
    rows = [known, half, strange]
    if kind == "text-classification":
        data = task._prepare([" ".join(row) for row in rows], np.zeros(3, np.int64), ())
    else:
        data = task._prepare(rows, [[0] * len(row) for row in rows], ())
    assert data.unread == 1
    assert data.said_of_unread.startswith("1 of 3 records are next to nothing to the model")
    assert not task.synthetic().only(np.arange(2)).said_of_unread


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["alpha beta", "alpha " * 9], "1 of task.x are longer than model.max_length = 5"),
        (["alpha beta", "болен"], "1 of task.x are next to nothing"),
    ],
    ids=["cut", "unknown"],
)
def test_public_texts_of_settings_are_read_whole_or_refused(
    tiny_model: Path, texts: list[str], said: str
) -> None:
    tokenizer = find_base_model(str(tiny_model)).load_tokenizer()
    read = tokenize(tokenizer, texts, max_length=5)
    with pytest.raises(ModelError, match=said):
        rows_of_settings(read, "task.x", 5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": ["caf\u00e9", "cafe\u0301"]}, "two labels that read the same"),
        ({"labels": ["no", "yes", "yes "]}, "two labels that read the same"),
        ({"text_columns": ["note", "category"]}, "name one column, 'category'"),
        ({"unit": "category"}, "all who share an answer would be one person"),
    ],
    ids=["composed", "white space", "a label as text", "a label as person"],
)
def test_a_task_that_means_one_thing_by_two_names_is_refused(changes: dict, said: str) -> None:
    settings = {**FEDERATION, "task": {**FEDERATION["task"], **changes}}
    with pytest.raises(ConfigError, match=said):
        convert_config(settings, FederationConfig, source="x")


def test_columns_that_a_task_does_not_read_are_anybodys() -> None:
    assert CausalLMSection(chat=True, messages_column="prompt").messages_column == "prompt"
    assert PreferenceSection(chosen_column="response").chosen_column == "response"
    with pytest.raises(ValueError, match="name one column, 'prompt'"):
        CausalLMSection(response_column="prompt")


def test_settings_as_editors_write_them(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_bytes("\ufeff[federation]\nname = 5\n".encode())
    with pytest.raises(ConfigError, match=r"line 2: federation\.name = 5 is not a text"):
        load_federation(path)
    path.write_bytes("[federation]\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        load_federation(path)


@pytest.mark.parametrize("suffix", [".parquet", ""], ids=["table", "folder"])
def test_pictures_without_paths_and_folders_without_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if not suffix:
        path.mkdir()
        with pytest.raises(FmflError, match="the folder holds no records"):
            read_image_folder(path, labels=["a", "b"], unit="record", on_bad_row="skip")
        return
    (tmp_path / "a.png").write_bytes(png(seed=1))
    for cell in ({"bytes": png(seed=1), "path": None}, {"bytes": None, "path": "a.png"}):
        pq.write_table(pa.table({"image": [cell]}), path)
        assert len(read_records(path, [image_field("image", "image", tmp_path)])) == 1
