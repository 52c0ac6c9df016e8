"""What is said of a wrong setting: where it stands, what is allowed, what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.settings.refusal import line_of
from fmfl_secure.settings.service import ServerSettings, load_settings

FILE = """\
[federation]
name = "pilot"
rounds = 3

[task]
kind = "text-classification"
text_columns = ["text"]
label_column = "label"
labels = ["no", "yes"]

[adapter]
kind = "lora"
rank = 4

[privacy]
epsilon = 3.0

[[sites]]
name = "a"
population = 10

[[sites]]
name = "b"
population = 10

[[sites]]
name = "c"
population = 10
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(FILE)
    load_federation(path)
    return path


@pytest.mark.parametrize(
    ("instead_of", "written", "said", "hint"),
    [
        ('"lora"', '"lorra"', 'line 12: adapter.kind = "lorra" is not known', 'mean "lora"?'),
        ("rank = 4", "rnak = 4", 'line 13: "rnak" is no setting of adapter', 'mean "rank"?'),
        ("rank = 4", "epsilon = 4", 'line 13: "epsilon" is no setting of', "setting of [privacy]"),
        ("rank = 4", "rank = 0", "line 13: adapter.rank = 0 has to be at least 1", "most 1024"),
        ("rank = 4", 'rank = "4"', 'line 13: adapter.rank = "4" is not a whole number', "A whole"),
        (
            "3.0",
            "inf",
            "line 16: privacy.epsilon = Infinity has to be at most 1000000000",
            "above 0",
        ),
        (
            '"text-classification"',
            '"text-class"',
            'task.kind = "text-class" is not',
            "It is one of",
        ),
        ('kind = "text-c', 'knd = "text-c', "line 5: task.kind is missing", "text-classification"),
        ("[adapter]", "[adaptor]", 'line 11: "adaptor" is no setting', 'mean "adapter"?'),
        (
            '["text"]',
            '["text", 7]',
            "line 7: task.text_columns[2] = 7 is not a text in quo",
            "in quotes",
        ),
        ('["text"]', '"text"', 'line 7: task.text_columns = "text" is not a list', '["a", "b"]'),
        (
            '["text"]',
            "[]",
            "line 7: task.text_columns = [] has to have at least 1 value",
            "leave the setting out",
        ),
        ('"label"', '""', 'task.label_column = "" has to have at least 1 character', "Write"),
        ('"label"', '"la\\u0000bel"', "line 8: task.label_column has a NUL character", "anew"),
        ('"no"', '"n\\u0000"', "line 9: task.labels[1] has a NUL character in it", "anew"),
        ('name = "b"', 'name = "\\u0000"', "line 23: sites[2].name has a NUL character", "anew"),
        ("rank = 4", '"r\\u0000" = 4', "line 11: adapter has a NUL character in it", "anew"),
        ("[[sites]]", "[[sitse]]", 'line 18: "sitse" is no setting', 'mean "sites"?'),
        ('"b"', '"B"', 'line 23: sites[2].name = "B" cannot be', "Small letters"),
        ('"yes"]', '"no"]', "line 9: task.labels has a label twice", ""),
        ('"lora"', '"adalora"', "line 12: adapter.kind = 'adalora': AdaLoRA is refused", "Use "),
    ],
)
def test_the_setting_its_line_and_what_is_allowed_are_named(
    file: Path, instead_of: str, written: str, said: str, hint: str
) -> None:
    assert instead_of in FILE
    file.write_text(FILE.replace(instead_of, written, 1))
    with pytest.raises(ConfigError) as refused:
        load_federation(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert said in str(refused.value)
    assert hint in refused.value.hint
    assert "$" not in str(refused.value) + refused.value.hint


def test_a_party_s_own_settings_are_refused_alike(tmp_path: Path) -> None:
    path = tmp_path / "service.toml"
    path.write_text("[listen]\nport = 700000\n")
    with pytest.raises(ConfigError, match=r"line 2: listen\.port = 700000 has to be at most 65535"):
        load_settings(path, ServerSettings)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("[listen]\nport = 1\nport = 2\n", "Cannot overwrite a value"),
        ("[listen]\nport = 1\n[listen]\n", "twice"),
        ("[listen\n", "]"),
        (f"x = {'9' * 5000}\n", "too many digits"),
    ],
    ids=["twice", "section-twice", "open", "digits"],
)
def test_what_is_no_toml_is_refused_with_what_to_do(tmp_path: Path, more: str, said: str) -> None:
    path = tmp_path / "service.toml"
    path.write_text(more)
    with pytest.raises(ConfigError, match="cannot be read as TOML") as refused:
        load_settings(path, ServerSettings)
    assert said in str(refused.value)
    assert "stands once" in refused.value.hint


def test_a_folder_in_the_place_of_settings_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        load_settings(tmp_path, ServerSettings)
    assert "Name a file" in refused.value.hint


def test_lines_of_lists_of_sections_are_told_apart() -> None:
    assert [line_of(FILE, ("sites", n, "population")) for n in range(3)] == [20, 24, 28]
    assert line_of(FILE, ("sites", 1, "rank")) == 22, "the section's, where it has no such key"
    assert line_of(FILE, ("elsewhere", "kind")) == 0
