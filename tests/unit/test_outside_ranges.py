"""Every place where words of others are decoded is listed here, and each has ranges.

A decoder that is not in the list fails, and so does a figure of a listed one without both bounds.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import inspect as forms

import fmfl_secure

ROOT = Path(fmfl_secure.__file__).parents[1]
DECODERS = {
    "msgspec.json.decode": "type",
    "msgspec.msgpack.decode": "type",
    "msgspec.convert": 1,
    "msgspec.json.Decoder": 0,
    "msgspec.msgpack.Decoder": 0,
    "decode_answer": 1,
    "open_frame": 1,
    "read_record": 1,
}
HERE = "tests/unit/test_absurd_outside.py"
FIGURES = "tests/unit/test_absurd_figures.py"

# What comes from others, by module and type as it stands there. The figures of each have both
# bounds in their types, but for those that are named with the test that replaces every figure.
OUTSIDE: dict[tuple[str, str], str] = {
    ("aggregation.protocol.messages", "kind"): "tests/property/test_aggregation_fuzz.py",
    ("fmfl_secure.cli.federation", "list[UnitRule]"): "",
    ("fmfl_secure.parties.acts", "Note"): "",
    ("fmfl_secure.parties.acts", "_Export"): "",
    ("fmfl_secure.parties.proposals", "cls"): "",
    ("fmfl_secure.parties.workspace", "_MembersFile"): "",
    ("fmfl_secure.planning.warm_start", "_Report"): "",
    ("fmfl_secure.provisioning.answer", "_Signed"): "",
    ("fmfl_secure.provisioning.ceremony", "_Signed"): "",
    ("fmfl_secure.provisioning.key_request", "_Signed"): "",
    ("fmfl_secure.provisioning.kit", "list[_File]"): "",
    ("fmfl_secure.report.bundle", "_Bundle"): "",
    ("fmfl_secure.run.audit_check", "AuditRecord"): FIGURES,
    ("fmfl_secure.run.call", "RunCall"): "",
    ("fmfl_secure.run.end", "RunEnd"): "",
    ("fmfl_secure.run.evaluation_record", "EvaluationRecord"): "",
    ("fmfl_secure.run.history", "tuple[ReleaseHistory, ...]"): "",
    ("fmfl_secure.run.record", "_Asked | None"): FIGURES,
    ("fmfl_secure.run.record", "RoundRecord"): FIGURES,
    ("fmfl_secure.run.record", "RunRecord"): FIGURES,
    ("fmfl_secure.run.record", ""): FIGURES,
    ("fmfl_secure.run.site_notes", "_Kept"): FIGURES,
    ("fmfl_secure.run.stop", "RunStop"): "",
    ("fmfl_secure.run.statement", "SiteStatement"): FIGURES,
    ("fmfl_secure.runtime.inbox", "SignedStatement"): FIGURES,
    ("fmfl_secure.transports.flower.frames", "Answer"): FIGURES,
    ("fmfl_secure.transports.flower.frames", "_Frame"): "",
    ("fmfl_secure.transports.flower.frames", "kind"): HERE,
    ("fmfl_secure.transports.flower.party", "Order"): "",
    ("fmfl_secure.transports.flower.server", "Order"): "",
    ("fmfl_secure.transports.flower.server", "Answer"): FIGURES,
    ("fmfl_secure.transports.https.answers", "kind"): "tests/unit/test_hostile_server.py",
    ("fmfl_secure.transports.https.client", "AnchorsForSite"): "",
    ("fmfl_secure.transports.https.client", "Work"): "",
    ("fmfl_secure.transports.https.client", "_Lists"): "",
    ("fmfl_secure.transports.https.client", "_Problem"): "",
    ("fmfl_secure.transports.https.client", "_Receipt"): "",
    ("fmfl_secure.transports.https.health", "_Answer"): "",
    ("fmfl_secure.vectors.adapter_line", "tuple[Ancestor, ...]"): HERE,
    ("fmfl_secure.vectors.start_file", "_Facts"): HERE,
}
# What is not a counterparty's word, and why.
OWN: dict[str, str] = {
    "aggregation.protocol.prepared": "nothing: it only makes types ready",
    "aggregation.roles.kept_attempt": "what the site itself kept",
    "fmfl_secure.asking": "this process's own state",
    "fmfl_secure.attacks.secrets": "its owner's file of what was planted",
    "fmfl_secure.bench.large": "its own child's arguments",
    "fmfl_secure.cli.answers": "its own answers",
    "fmfl_secure.comparison.rows": "rows that it wrote",
    "fmfl_secure.data": "records, which tests of their own bound",
    "fmfl_secure.provisioning.authority": "the office's own list",
    "fmfl_secure.report.child": "its own parent",
    "fmfl_secure.report.results": "settings that were read before",
    "fmfl_secure.run.beside_report": "of a type of its callers, which are here",
    "fmfl_secure.run.attack_record": "what this machine found in its own run",
    "fmfl_secure.run.keys_record": "what this folder's own owner pinned",
    "fmfl_secure.runtime.rehearsals": "what this process noted",
    "fmfl_secure.runtime.results_apart": "its own child",
    "fmfl_secure.settings": "settings: their owner's, refused by section and line",
    "fmfl_secure.storage": "what this process wrote",
    "fmfl_secure.transports.https.health": "its owner's settings",
}


def decoders() -> Iterator[tuple[str, str]]:
    """Module and type of every decoding in the product."""
    for package in ("aggregation", "fmfl_secure", "privacy"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in DECODERS:
                    yield module.removesuffix(".__init__"), _type(node)


def _type(call: ast.Call) -> str:
    place = DECODERS[ast.unparse(call.func)]
    given = [each.value for each in call.keywords if each.arg == "type"]
    if isinstance(place, int):
        given = call.args[place : place + 1] or given
    return ast.unparse(given[0]).removeprefix("prepared(").removesuffix(")") if given else ""


def is_own(module: str) -> bool:
    return any(module == own or module.startswith(f"{own}.") for own in OWN)


def test_every_decoder_is_listed_and_every_listed_one_is_there() -> None:
    found = set(decoders())
    assert {each for each in found - set(OUTSIDE) if not is_own(each[0])} == set()
    assert set(OUTSIDE) <= found
    assert all(any(is_own(module) and module.startswith(own) for module, _ in found) for own in OWN)


def test_the_tests_that_are_named_are_there() -> None:
    for test in filter(None, OUTSIDE.values()):
        assert "absurd" in (ROOT / test).read_text() or "fuzz" in test, test


def unbounded(kind: Any, place: str = "", inside: tuple[type, ...] = ()) -> Iterator[str]:
    """Where a type takes a figure without both bounds, or anything at all."""
    form = kind if isinstance(kind, forms.Type) else forms.type_info(kind)
    if isinstance(form, forms.IntType | forms.FloatType):
        if {form.ge, form.gt} == {None} or {form.le, form.lt} == {None}:
            yield place
    elif isinstance(form, forms.AnyType | forms.RawType):
        yield f"{place} (anything)"
    elif isinstance(form, forms.StructType):
        if form.cls not in inside:
            for each in form.fields:
                name = f"{form.cls.__name__}.{each.name}"
                yield from unbounded(each.type, name, (*inside, form.cls))
    elif isinstance(form, forms.DictType):
        yield from unbounded(form.key_type, place, inside)
        yield from unbounded(form.value_type, place, inside)
    elif isinstance(form, forms.UnionType):
        for each in form.types:
            yield from unbounded(each, place, inside)
    elif isinstance(form, forms.TupleType):
        for each in form.item_types:
            yield from unbounded(each, place, inside)
    elif isinstance(form, forms.CollectionType):
        yield from unbounded(form.item_type, place, inside)


# Read on by what refuses it: settings as all settings are.
READ_ON = ["_Report.settings (anything)"]
NAMED = {"cls": "Proposal", "list[UnitRule]": ""}


@pytest.mark.parametrize(
    ("module", "kind"),
    [each for each, swept in OUTSIDE.items() if not swept and NAMED.get(each[1], each[1])],
    ids=lambda each: each,
)
def test_its_figures_have_both_bounds(module: str, kind: str) -> None:
    found: ModuleType = importlib.import_module(module)
    assert list(unbounded(eval(NAMED.get(kind, kind), vars(found)))) in ([], READ_ON)


class _Inner(msgspec.Struct):
    good: Annotated[int, msgspec.Meta(ge=0, lt=7)]
    bare: float
    half: Annotated[int, msgspec.Meta(ge=0)]
    any_of: Any


class _Outer(msgspec.Struct):
    inside: dict[str, tuple[_Inner, ...]] | None


def test_a_figure_without_bounds_is_found() -> None:
    expected = ["_Inner.bare", "_Inner.half", "_Inner.any_of (anything)"]
    assert list(unbounded(_Outer)) == expected
    assert list(unbounded(list[int])) == [""]


def test_no_bound_lets_nan_through() -> None:
    kind = Annotated[float, msgspec.Meta(ge=0, le=1)]
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(float("nan")), type=kind)
