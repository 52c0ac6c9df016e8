"""Whose a row is: the values of a unit column as ids that are equal for one person.

A person under two ids is two units, each with a whole person's influence, and the ledger counts
one. So every place that groups rows by unit takes ids from `unit_id`, which merges what **cannot**
be two people:

- characters that are canonically equivalent, white space of any kind around and between, and what
  cannot be seen at all (`privacy.names.plain`);
- numbers, however a file holds them: 7, 7.0, "7" and "7.0" are one id. A *number* of JSON or
  Parquet is taken by its value, so 7e0 is 7 and 1.10 is 1.1. A *text* loses a fraction of zeros
  alone: 007, +7, 7e0 and 1.10 may be somebody else than 7 and 1.1.

What may be one person or two (P7 and p7) a rule of the federation's settings decides, and until
then `near_duplicates` asks. What is no id (missing, `NaN`, a number that lost digits) is refused:
shared, it would make many people one, and by itself, each row a person.

`data.fields` and `data.images` ask `unit_id` for every row that names a unit, and
`data.unit_check` asks `near_duplicates` which ids a site should look at.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from types import MappingProxyType
from typing import Literal, TypeAlias

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.errors import NullUnitError
from fmfl_secure.data.stored import DOUBLE, StoredText
from fmfl_secure.settings.types import UnitRule
from privacy import plain

# What programs write where there is no value, in lower case, and what people do.
_MISSING = frozenset(
    {"nan", "-nan", "+nan", "nat", "na", "n/a", "n.a.", "<na>", "#n/a", "#na", "null", "(null)"}
    | {"#null!", "none", "<none>", "undefined", "unknown", "missing", "#ref!", "#value!", "#name?"}
    | {"#num!", "#div/0!", "inf", "-inf", "+inf", "infinity", "-infinity", "+infinity"}
)
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")
# 1.23457E+11: what a spreadsheet leaves of a long number. Without point and sign, 7e5 is an id.
_ROUNDED = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+[eE][+-]?|[eE]\+)[0-9]+")
# Before digits and behind a separator, but for those of a fraction.
_INNER_ZEROS = re.compile(r"(?<![0-9])(?<![0-9][.,])0+(?=[0-9])")
_Kind: TypeAlias = Literal["case", "punctuation", "zeros", "compatibility", "other"]


def unit_id(value: str | None, rules: Collection[UnitRule] = (), *, column: str = "unit") -> str:
    """The id of the unit that a row belongs to: equal for rows of one person.

    Args:
        value: The cell; None for null. A `StoredText` says how the file holds it.
        rules: Which differences are of no account besides.
        column: Its column, for refusals.

    Returns:
        The id, not empty. By itself it has this same id.

    Raises:
        UnusableValue: It names nobody, or it may stand for several.
    """
    text = "" if value is None else _stored(value, column)
    found = _merged(plain(text), rules)
    # Read as loosely as any rule would: a missing value is one in capitals and full width, too.
    read = {plain(_folded(plain(text))), plain(_folded(found))}
    if not any(map(str.isalnum, found)) or read & _MISSING:
        raise UnusableValue(
            NullUnitError,
            f"the privacy unit in column {column!r} is missing",
            "every row must say whose it is, or the budget cannot protect that person; complete "
            'the column (NA, NaN, null, none, unknown are no ids), or set on_bad_row = "skip"',
        )
    if any(map(_lost_digits, read)):
        raise _inexact(column)
    return found


@dataclass(frozen=True, slots=True, repr=False)
class NearDuplicates:
    """Ids that differ by something small: perhaps one person. Local only: no useful repr.

    Attributes:
        rule: The rule that would merge them; `other` for what several together would, and zeros
            between separators, which none drops.
        ids: How many ids are alike to another.
        people: How many people those would be.
        examples: A few groups of alike ids.
    """

    rule: _Kind
    ids: int
    people: int
    examples: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        return f"NearDuplicates({self.rule!r}, <private>)"


def near_duplicates(
    ids: Iterable[str], rules: Collection[UnitRule] = (), *, examples: int = 3
) -> tuple[NearDuplicates, ...]:
    """Asks which ids that the rules leave apart might be one person.

    Args:
        ids: As `unit_id` gives them under these rules.
        rules: What the settings say. With `exact` among them all is said, and nothing is asked.
        examples: Most groups to quote for each rule.

    Returns:
        One question for each rule that is open and would merge any.
    """
    if "exact" in rules:
        return ()
    distinct = sorted(set(ids))
    questions: list[NearDuplicates] = []
    explained: set[str] = set()
    for rule in _FORMS:
        if rule not in rules:
            groups = _alike(distinct, partial(_merged, rules=[*rules, rule]))
            explained.update(one for group in groups for one in group)
            questions += _question(rule, groups, examples)
    rest = [group for group in _alike(distinct, _loosely) if not explained.issuperset(group)]
    return (*questions, *_question("other", rest, examples))


def _alike(ids: Sequence[str], form: Callable[[str], str]) -> list[tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for one in ids:
        groups.setdefault(form(one), []).append(one)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _question(
    rule: _Kind,
    groups: Sequence[tuple[str, ...]],
    examples: int,
) -> list[NearDuplicates]:
    if not groups:
        return []
    return [NearDuplicates(rule, sum(map(len, groups)), len(groups), tuple(groups[:examples]))]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _without_fraction(text: str) -> str:
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _counts(character: str) -> bool:
    """Whether it is a letter, digit or mark: without its accent a letter is another one."""
    return any(
        c.isalnum() or unicodedata.category(c).startswith("M")
        for c in unicodedata.normalize("NFKC", character)
    )


def _without_punctuation(text: str) -> str:
    return "".join(filter(_counts, text))


def _without_zeros(text: str) -> str:
    """Without zeros that begin a number: none before which, over punctuation, a digit stands.

    So that of 1-05 the zero stays, and it makes no difference whether punctuation goes first: a
    rule more never tells apart what it merged before.
    """
    kept: list[str] = []
    after_digit = False
    for character, following in zip(text, text[1:] + " ", strict=False):
        if character == "0" and not after_digit and following.isdecimal():
            continue
        kept.append(character)
        if _counts(character):
            after_digit = any(map(str.isnumeric, unicodedata.normalize("NFKC", character)))
    return "".join(kept)


# In this order; what a number's fraction is stands between the first and the others.
_FORMS: Mapping[Literal["compatibility", "case", "punctuation", "zeros"], Callable[[str], str]] = (
    MappingProxyType(
        {
            "compatibility": partial(unicodedata.normalize, "NFKC"),
            "case": str.casefold,
            "punctuation": _without_punctuation,
            "zeros": _without_zeros,
        }
    )
)


def _loosely(text: str) -> str:
    """The same for ids that any of the rules, or dropping all zeros before numbers, makes alike."""
    return _merged(_INNER_ZEROS.sub("", _folded(text)), tuple(_FORMS))


def _merged(text: str, rules: Collection[str]) -> str:
    """The id that all spellings have which the rules merge: the rules again until none changes it.

    Each shortens a text or maps it into a form that it keeps, so this ends.
    """
    chosen = [form for rule, form in _FORMS.items() if rule in rules]
    chosen.insert("compatibility" in rules, _without_fraction)
    before = ""
    while text != before:
        before = text
        for form in chosen:
            text = plain(form(text))
    return text


def _stored(value: str, column: str) -> str:
    """A cell's text, where the file says that it is a number: by its value."""
    if not isinstance(value, StoredText):
        return value
    if value.held_as in {"structure", "picture"}:
        raise UnusableValue(
            NullUnitError,
            f"the privacy unit in column {column!r} is a list or an object, or a picture",
            "name a column whose values are texts or whole numbers",
        )
    text = str(value)
    if value.held_as in {"truth", "time"}:
        return text
    if value.held_as == "number":
        return _decimal(text)
    number = float(text)
    if math.isnan(number):  # a missing value, as tables of floats have it
        return "nan"
    # Text that a float does not read back, or a float that stands for several whole numbers.
    if _beyond(number, value.bits) or not _reads_back(text, number):
        raise _inexact(column)
    return _decimal(repr(number))


def _decimal(text: str) -> str:
    """A number without exponent, without zeros that end its fraction, and with one zero."""
    if re.fullmatch("[+-]?[0-9]+", text) is None:
        text = format(Decimal(text), "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _reads_back(text: str, number: float) -> bool:
    try:
        return Decimal(text) == Decimal(repr(number))
    except InvalidOperation:  # an exponent beyond all bounds
        return False


def _lost_digits(text: str) -> bool:
    """Whether a text is what a float or a spreadsheet wrote of a number too long for it."""
    whole = _WHOLE.fullmatch(text)
    return bool(_ROUNDED.fullmatch(text) or (whole and _beyond(whole[1], DOUBLE)))


def _beyond(number: str | float, bits: int) -> bool:
    """Whether a float with so many bits may stand for another whole number than this one."""
    return not abs(float(number)) < 2.0**bits


def _inexact(column: str) -> UnusableValue:
    return UnusableValue(
        NullUnitError,
        f"the privacy unit in column {column!r} is a number that lost digits, or may have",
        "a float holds whole numbers below 2^53 only, and a spreadsheet rounds long ones; export "
        "the column as text from where the ids are whole",
    )
