"""Ways to write entities, read as one; and CoNLL files."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from task_cases import TASKS, task_on

from fmfl_secure.data import DataError, check_header, read_as, read_records, tags_field, words_field
from fmfl_secure.data.tag_schemes import to_bio

FIELDS = (
    words_field("tokens_column", "tokens"),
    tags_field("tags_column", "tags", ("O", "B-NAME", "I-NAME", "B-DATE", "I-DATE")),
)
BIO = ["B-NAME", "I-NAME", "I-NAME", "B-NAME", "O", "B-DATE", "B-NAME", "I-NAME"]
WRITTEN = {
    "bio": BIO,
    "iob1": ["I-NAME", "I-NAME", "I-NAME", "B-NAME", "O", "I-DATE", "I-NAME", "I-NAME"],
    "bioes": ["B-NAME", "I-NAME", "E-NAME", "S-NAME", "O", "S-DATE", "B-NAME", "E-NAME"],
    "bilou": ["B-NAME", "I-NAME", "L-NAME", "U-NAME", "O", "U-DATE", "B-NAME", "L-NAME"],
}
CONLL = """\
-DOCSTART- -X- -X- O

Anna NNP B-NP B-NAME
Lee NNP I-NP I-NAME
fell VBD B-VP O

-DOCSTART- -X- -X- O

Today NN B-NP B-DATE
. . O O
"""


@pytest.mark.parametrize("written", WRITTEN)
def test_every_scheme_reads_as_the_same_bio(written: str) -> None:
    assert to_bio(WRITTEN[written], "bioes" if written == "bilou" else written) == BIO


@pytest.mark.parametrize(
    "tags",
    [
        ["I-NAME", "E-NAME"], ["B-NAME"], ["B-NAME", "O"], ["B-NAME", "E-DATE"], ["E-NAME"],
        ["B-NAME", "S-NAME"],
    ],
    ids=str,
)  # fmt: skip
def test_tags_that_contradict_their_scheme_are_a_bad_row(tiny_models, tmp_path: Path, tags) -> None:
    assert to_bio(tags, "bioes") is None
    settings = msgspec.structs.replace(TASKS["token-classification"], tag_scheme="bioes")
    task = task_on(tiny_models("bert"), settings)
    path = tmp_path / "a.jsonl"
    good = {"tokens": ["Anna"], "tags": ["S-NAME"]}
    rows = [good, {"tokens": ["a"] * len(tags), "tags": tags}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = task.load(path, unit="record", on_bad_row="skip")
    assert [list(own) for own in loaded.tags] == [[task.answers.index("B-NAME")]]
    assert "1 with tags that contradict 'bioes' (see task.tag_scheme) (row 2)" in str(
        loaded.left_out
    )


def test_a_tag_of_another_scheme_and_a_near_miss_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    tags = ["S-NAME", "b-NAME", "B-PLACE", "O"]
    path.write_text("".join(json.dumps({"tokens": ["a"], "tags": [t]}) + "\n" for t in tags))
    told = str(read_records(path, FIELDS, on_bad_row="skip").left_out)
    assert "tag of the scheme 'bioes' (see task.tag_scheme) (row 1)" in told
    assert "tag that differs from a configured one in case alone (row 2)" in told
    assert "tag that is not configured (row 3)" in told


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        ("bio", ["tags are read as BIO", "in 1 of 1 texts an entity begins with I-"]),
        ("iob1", ["tags are read as IOB1: I-X that does not follow an X reads as B-X"]),
    ],
)
def test_a_site_is_told_how_tags_were_read(tiny_models, tmp_path: Path, scheme, said) -> None:
    settings = msgspec.structs.replace(TASKS["token-classification"], tag_scheme=scheme)
    task = task_on(tiny_models("bert"), settings)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": ["a", "b"], "tags": ["I-NAME", "O"]}) + "\n")
    told = task.said_of(task.load(path, unit="record"))
    assert len(told) == len(said)
    assert all(line.startswith(start) for line, start in zip(told, said, strict=True))


@pytest.mark.parametrize("suffix", [".conll", ".bio", ".iob"])
@pytest.mark.parametrize("separator", [" ", "\t", "  "], ids=["space", "tab", "spaces"])
def test_a_conll_file_is_sentences_of_documents(
    tmp_path: Path, suffix: str, separator: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(CONLL.replace(" ", separator))
    check_header(path, FIELDS, unit="document")
    records = read_records(path, FIELDS, unit="document")
    assert records.columns == ([["Anna", "Lee", "fell"], ["Today", "."]], [[1, 2, 0], [3, 0]])
    assert [unit.tolist() for unit in records.units] == [[0], [1]]
    assert read_as(path) == "CoNLL"


def test_a_damaged_sentence_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes(b"Anna B-NAME\n\nLee\n\n\xff O\n\nfell VBD O\nnow O\n\nToday B-DATE\n")
    records = read_records(path, FIELDS, on_bad_row="skip")
    assert records.columns[0] == [["Anna"], ["Today"]]
    assert "(rows 2, 4)" in str(records.left_out)
    with pytest.raises(DataError, match=r"line 3"):
        read_records(path, FIELDS)


def test_a_file_without_documents_has_no_units_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("Anna B-NAME\n")
    with pytest.raises(DataError, match="unit"):
        read_records(path, FIELDS, unit="document")
