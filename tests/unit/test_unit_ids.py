"""Whose a row is: what is one person always, what a rule makes one, and what is nobody."""

from __future__ import annotations

import csv
import itertools
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from text_dataset import read_text_dataset

from fmfl_secure.data import DataError, check_units, partition_file, read_table
from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.errors import NullUnitError
from fmfl_secure.data.stored import StoredText
from fmfl_secure.data.unit_ids import near_duplicates, unit_id

NBSP, ZERO_WIDTH, SOFT_HYPHEN, BOM = "\N{NO-BREAK SPACE}", "\u200b", "\N{SOFT HYPHEN}", "\ufeff"
COMPOSED, TAKEN_APART = "Ren\N{LATIN SMALL LETTER E WITH ACUTE}e", "Rene\N{COMBINING ACUTE ACCENT}e"

# Each line is one person, however the file says it.
ONE_PERSON = {
    "P7": ["P7", " P7", "P7 ", "\tP7\r\n", f"{NBSP}P7", f"P{ZERO_WIDTH}7", f"{BOM}P7", "P7\x00"],
    "P 7": ["P 7", "P  7", f"P{NBSP}7", "P\n7", "P\N{IDEOGRAPHIC SPACE}7"],
    "7": [
        *("7", "7.0", "7.00", " 7.0 "),
        StoredText.of("7", "number"),
        StoredText.of("7.00", "number"),
        *(StoredText.of(text, "float") for text in ("7", "7.0", "7e0", "0.7E1", "70e-1")),
    ],
    "-7": ["-7", "-7.0", StoredText.of("-7", "number")],
    "0": ["0", "0.0", StoredText.of("-0", "number"), StoredText.of("-0.0", "float")],
    "007": ["007", "007.0"],
    "1.1": ["1.1", StoredText.of("1.10", "float"), StoredText.of("1.10", "number")],
    COMPOSED: [COMPOSED, TAKEN_APART, f"Ren{SOFT_HYPHEN}\N{LATIN SMALL LETTER E WITH ACUTE}e"],
    "123456789012345678901234567890": [
        "123456789012345678901234567890",
        StoredText.of("123456789012345678901234567890", "number"),
    ],
    "123456789012": [StoredText.of("1.23456789012e+11", "float"), "123456789012.0"],
    "true": ["true"],
    "2026-01-05": ["2026-01-05"],
}
# Each pair may be two people: a rule decides, or nothing does.
PERHAPS_TWO = {
    "case": [("P7", "p7"), ("STRASSE", "straße"), ("True", "true")],
    "punctuation": [("P7", "P-7"), ("P7", "P 7"), ("7", "+7"), ("7", "-7"), ("a.b", "a_b")],
    "zeros": [("7", "007"), ("P7", "P007"), ("P-7", "P-07"), ("0", "000")],
    "compatibility": [
        ("P7", "\uff307"),
        ("7", "\N{FULLWIDTH DIGIT SEVEN}"),
        ("m2", "m\N{SUPERSCRIPT TWO}"),
    ],
    None: [("7", "7e0"), ("1.1", "1.10"), ("1.5", "1.05"), ("105", "15"), ("P7", "P70")],
}
NOBODY = [
    *(None, "", " ", "\t\n", NBSP, ZERO_WIDTH, "-", "--", "?", ".", "\N{HANGUL FILLER}"),
    *("nan", "NaN", " NaN ", "NA", "N/A", "n/a", "<NA>", "#N/A", "null", "NULL", "None", "none"),
    *("NaT", "inf", "-Infinity", "unknown", "#REF!", "\uff2e\uff21", f"N{ZERO_WIDTH}A"),
    StoredText.of("nan", "float"),
]
LOST_DIGITS = [
    *("1.23457E+11", "1E+11", "-1.2e5", "9007199254740992.0", "1" * 400 + ".0"),
    StoredText.of("9007199254740992", "float"),
    StoredText.of("9007199254740993.0", "float"),
    StoredText.of("1e400", "float"),
    StoredText.of("1e-99999999999999999999", "float"),
    StoredText.of("inf", "float"),
    StoredText.of("0.12345678901234567890", "float"),
    StoredText.of("16777216", "float", 24),
]
RULES = ("compatibility", "case", "punctuation", "zeros")


@pytest.mark.parametrize("name", ONE_PERSON)
def test_what_cannot_be_two_people_is_one(name: str) -> None:
    assert {unit_id(form) for form in ONE_PERSON[name]} == {name}


@pytest.mark.parametrize(("rule", "pair"), [(r, p) for r in PERHAPS_TWO for p in PERHAPS_TWO[r]])
def test_what_may_be_two_people_is_one_by_its_rule_alone(rule: str | None, pair) -> None:
    one, other = pair
    assert unit_id(one) != unit_id(other)
    assert unit_id(one, ["exact"]) != unit_id(other, ["exact"])
    for chosen in RULES:
        assert (unit_id(one, [chosen]) == unit_id(other, [chosen])) == (chosen == rule)
    for size in range(1, 5):
        for several in itertools.combinations(RULES, size):
            if rule in several:  # a rule more never tells apart what one makes alike
                assert unit_id(one, several) == unit_id(other, several)


@pytest.mark.parametrize("value", NOBODY, ids=repr)
def test_what_names_nobody_is_refused(value: str | None) -> None:
    for rules in ((), RULES):
        with pytest.raises(UnusableValue, match="is missing") as refusal:
            unit_id(value, rules, column="who")
        assert refusal.value.kind is NullUnitError


def test_a_rule_does_not_make_an_id_of_what_is_none() -> None:
    assert unit_id("N-A") == "N-A"  # somebody's initials, perhaps
    with pytest.raises(UnusableValue, match="is missing"):
        unit_id("N-A", ["punctuation"])


@pytest.mark.parametrize("value", LOST_DIGITS, ids=lambda value: repr(value)[:24])
def test_a_number_that_may_stand_for_several_is_refused(value: str) -> None:
    with pytest.raises(UnusableValue, match="lost digits") as refusal:
        unit_id(value)
    assert str(value) not in refusal.value.problem + refusal.value.hint


def test_a_list_names_nobody() -> None:
    assert unit_id("[7]") == "[7]"
    with pytest.raises(UnusableValue, match="a list or an object"):
        unit_id(StoredText.of("[7]", "structure"))


def test_the_largest_numbers_that_a_float_holds_are_ids() -> None:
    assert unit_id(StoredText.of("9007199254740991.0", "float")) == "9007199254740991"
    assert unit_id(StoredText.of("16777215", "float", 24)) == "16777215"
    assert unit_id("9007199254740993") == "9007199254740993", "a text loses nothing"


# What is asked of people.


def asked(ids, rules=()) -> dict[str, tuple[int, int]]:
    return {found.rule: (found.ids, found.people) for found in near_duplicates(ids, rules)}


IDS = ["P7", "p7", "P-7", "P8", "p008", "9", "W3-007", "W3-7", "\uff19"]


def test_alike_ids_are_asked_about_by_rule() -> None:
    assert asked(IDS) == {
        "compatibility": (2, 1),
        "case": (2, 1),
        "punctuation": (2, 1),
        "other": (4, 2),  # P8 and p008 by two rules; W3-007 and W3-7 by none
    }
    (case,) = (found for found in near_duplicates(IDS) if found.rule == "case")
    assert case.examples == (("P7", "p7"),)
    assert "p7" not in repr(case)


def test_a_rule_settles_its_question_and_exact_settles_all() -> None:
    rules = ["case", "zeros"]
    left = asked({unit_id(one, rules) for one in IDS}, rules)
    assert left == {"compatibility": (2, 1), "punctuation": (2, 1), "other": (2, 1)}
    assert asked(IDS, ["exact"]) == {}
    assert asked({unit_id(one, ["case", "exact"]) for one in IDS}, ["case", "exact"]) == {}
    assert asked(["P7", "P8", "Q7"]) == {}


# Through files.

OWNERS = [7, 8, 7, None, 9, 8, 7]
GROUPS = [[0, 2, 5], [1, 4], [3]]  # of the rows that name somebody


def write(folder: Path, suffix: str, owners, *, parquet=None) -> Path:
    path = folder / f"data{suffix}"
    rows = [{"text": f"note {n}", "label": "a", "who": who} for n, who in enumerate(owners)]
    if suffix == ".parquet":
        table = pa.table(
            {
                "text": [row["text"] for row in rows],
                "label": ["a"] * len(rows),
                "who": pa.array(owners, parquet),
            }
        )
        pq.write_table(table, path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t")
            writer.writerows([rows[0].keys(), *(row.values() for row in rows)])
    return path


def groups(path: Path, *rules: str, on_bad_row="skip") -> list[list[int]]:
    dataset = read_text_dataset(
        path,
        text_column="text",
        label_column="label",
        labels=["a"],
        unit="who",
        unit_rules=rules,
        on_bad_row=on_bad_row,
    )
    return [unit.tolist() for unit in dataset.units]


AS = {
    "integers": (lambda n: n, pa.int64()),
    "floats": (lambda n: n if n is None else float(n), pa.float64()),
    "single floats": (lambda n: n if n is None else float(n), pa.float32()),
    "half floats": (lambda n: n if n is None else np.float16(n), pa.float16()),
    "decimals": (lambda n: n if n is None else Decimal(n), pa.decimal128(12, 2)),
    "texts": (lambda n: n if n is None else str(n), pa.string()),
    "large": (lambda n: n if n is None else n + 2**53 - 100, pa.int64()),
    "large floats": (lambda n: n if n is None else float(n + 2**53 - 100), pa.float64()),
    "dictionary": (lambda n: n if n is None else f"P{n} ", pa.dictionary(pa.int32(), pa.string())),
}


@pytest.mark.parametrize("stored", AS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_units(tmp_path: Path, suffix: str, stored: str) -> None:
    convert, kind = AS[stored]
    owners = [convert(n) for n in OWNERS]
    if suffix == ".jsonl":
        owners = [float(o) if isinstance(o, Decimal | np.float16) else o for o in owners]
    assert groups(write(tmp_path, suffix, owners, parquet=kind)) == GROUPS


TEN_WAYS = [
    "P7",
    "P7 ",
    f"{NBSP}P7",
    f"P{ZERO_WIDTH}7",
    "p7",
    "P-7",
    "P007",
    "\uff307",
    "p 7",
    "P7",
]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_one_patient_in_ten_spellings(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, suffix, [*TEN_WAYS, "P8"])
    always = [[0, 1, 2, 3, 9], [4], [5], [6], [7], [8], [10]]
    assert groups(path) == always
    assert groups(path, "exact") == always
    assert groups(path, *RULES) == [list(range(10)), [10]]
    found = check_units(path, "who")
    assert (found.spellings, found.ids) == (10, 7)
    assert {near.rule for near in found.near_duplicates} == {*RULES}
    assert check_units(path, "who", RULES).near_duplicates == ()
    assert check_units(path, "who", ["exact"]).near_duplicates == ()
    assert check_units(path, "record").near_duplicates == ()
    assert "7" not in repr(found)


def test_mixed_json_values_of_one_patient(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    forms = ["7", "7.0", "7e0", '"7"', '"7.0"', '" 7"', "true", "[7]", "null", "NaN", "1e400"]
    lines = [f'{{"text": "a note", "label": "a", "who": {form}}}\n' for form in forms]
    path.write_text("".join(lines), encoding="utf-8")
    assert groups(path) == [list(range(6)), [6]]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
def test_floats_that_hold_no_id_are_bad_rows(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(tmp_path, ".parquet", [7.0, float("nan"), float("inf"), 2.0**60], parquet=kind)
    assert groups(path) == [[0]]
    with pytest.raises(DataError, match=r"row 2.*'who' is missing"):
        groups(path, on_bad_row="error")


def test_a_bad_row_of_nobody_is_refused_or_skipped_and_not_quoted(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", ["P7", "1.23457E+11", "N/A"])
    assert groups(path) == [[0]]
    with pytest.raises(NullUnitError, match=r"row 2 \(line 3\).*lost digits") as refusal:
        groups(path, on_bad_row="error")
    assert "1.23457" not in str(refusal.value) + refusal.value.hint


# Of a simulated federation.


def test_a_split_keeps_one_patient_in_one_part(tmp_path: Path) -> None:
    owners = [f"{spelling}{n}" for n in range(40) for spelling in ("P", " P", f"P{ZERO_WIDTH}")]
    path = write(tmp_path, ".csv", owners)
    sites = partition_file(path, 3, tmp_path / "out", holdout=0.2, unit_column="who").files
    parts = [{*map(unit_id, who(tmp_path / "out" / part.name))} for part in sites]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40

    path = write(tmp_path, ".csv", [*owners, "N/A"])
    with pytest.raises(NullUnitError, match=r"row 121 .*'who' is missing"):
        partition_file(path, 3, tmp_path / "other", unit_column="who")


def test_a_split_obeys_the_rules(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv", [f"{letter}{n}" for n in range(40) for letter in "Pp"])
    shares = {"sites": 2, "holdout": 0.3, "unit_column": "who"}
    rules = ["case"]
    files = partition_file(path, out=tmp_path / "out", unit_rules=rules, **shares).files
    parts = [{unit_id(one, rules) for one in who(tmp_path / "out" / part.name)} for part in files]
    assert sum(map(len, parts)) == 40
    manifest = json.loads((tmp_path / "out/partition.json").read_text(encoding="utf-8"))
    assert manifest["arguments"]["unit_normalisation"] == rules


def who(path: Path) -> list[str]:
    return read_table(path).column("who").to_pylist()
