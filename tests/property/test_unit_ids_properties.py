"""Ids of units: stable, and never fewer than the rules allow or more than they leave."""

from __future__ import annotations

import contextlib
import itertools
import unicodedata

from hypothesis import assume, given
from hypothesis import strategies as st

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.stored import StoredText
from fmfl_secure.data.unit_ids import near_duplicates, unit_id
from privacy.names import plain

RULES = ("compatibility", "case", "punctuation", "zeros")
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
likely = st.text(
    st.sampled_from("Pp7801 -._/+eE\u00a0\u200b\u0301\uff17\ufb01\u00b2ßéΣς٣"), max_size=8
)
texts = st.one_of(anything, likely)
rules = st.sets(st.sampled_from(RULES))


def ids(text: str, chosen) -> str | None:
    with contextlib.suppress(UnusableValue):
        return unit_id(text, chosen)
    return None


@given(texts, rules)
def test_an_id_is_its_own_id(text, chosen):
    once = ids(text, chosen)
    assume(once is not None)
    assert unit_id(once, chosen) == once == plain(once)


@given(texts)
def test_what_cannot_be_seen_makes_nobody_else(text):
    one = ids(text, ())
    for other in (
        f" {text}\u00a0",
        unicodedata.normalize("NFD", text),
        unicodedata.normalize("NFC", text),
        "\u200b".join(text),
        text.replace(" ", "\u2003 "),
    ):
        assert ids(other, ()) == one


@given(likely, likely)
def test_without_a_rule_only_the_listed_forms_are_one(text, other):
    """Decided here anew: equal but for what nobody sees, or the same whole number."""
    one, two = ids(text, ()), ids(other, ())
    assume(one is not None and two is not None)
    seen = [plain(each).removesuffix(".0") for each in (text, other)]
    fraction = any(c == "." for c in text + other)
    assert (one == two) == (seen[0] == seen[1]) or fraction


EDITS = {
    "upper": lambda text, _: text.upper(),
    "lower": lambda text, _: text.lower(),
    "zero": lambda text, at: f"{text[:at]}0{text[at:]}",
    "hyphen": lambda text, at: f"{text[:at]}-{text[at:]}",
    "space": lambda text, at: f"{text[:at]} {text[at:]}",
    "fraction": lambda text, _: f"{text}.0",
    "compatible": lambda text, _: unicodedata.normalize("NFKC", text),
}
edits = st.lists(st.tuples(st.sampled_from(sorted(EDITS)), st.integers(0, 8)), max_size=3)


@given(likely, edits, rules, rules)
def test_a_rule_more_tells_nobody_apart(text, changes, chosen, more):
    other = text
    for name, at in changes:
        other = EDITS[name](other, at)
    one, two = ids(text, chosen), ids(other, chosen)
    if one is not None and one == two:
        assert ids(text, chosen | more) == ids(other, chosen | more)


@given(st.integers(0, 2**53 - 1))
def test_a_whole_number_is_one_id_however_it_is_held(number):
    forms = [
        str(number),
        f"{number}.0",
        StoredText.of(str(number), "number"),
        StoredText.of(repr(float(number)), "float"),
        StoredText.of(f"{number}e0", "float"),
    ]
    assert {unit_id(form) for form in forms} == {str(number)}


@given(st.lists(st.integers(2**53, 2**70), min_size=2, max_size=2, unique=True))
def test_no_two_whole_numbers_become_one_through_a_float(pair):
    """Text keeps them apart; a float, which might not, is refused."""
    assert len({unit_id(str(number)) for number in pair}) == 2
    for number in pair:
        for form in (StoredText.of(repr(float(number)), "float"), f"{number}.0"):
            assert ids(form, ()) is None


@given(st.lists(likely, max_size=8), rules)
def test_whoever_one_rule_would_merge_is_asked_about(found, chosen):
    distinct = {one for text in found if (one := ids(text, chosen)) is not None}
    questions = {near.rule: near for near in near_duplicates(distinct, chosen, examples=9)}
    for rule in set(RULES) - chosen:
        merged = {one: ids(one, {*chosen, rule}) for one in distinct}
        for one, two in itertools.combinations(sorted(distinct), 2):
            if merged[one] is not None and merged[one] == merged[two]:
                assert any({one, two} <= set(group) for group in questions[rule].examples)
    assert near_duplicates(distinct, [*chosen, "exact"]) == ()
