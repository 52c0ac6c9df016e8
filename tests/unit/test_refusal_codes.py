"""What leaves a site when something fails there: a word of a fixed list, `failed` for the rest."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fmfl_secure
import privacy.policy
from fmfl_secure.errors import KNOWN_ERRORS, SiteFailure
from fmfl_secure.run.refusal_codes import GENERIC, MEANINGS, leaving_code
from privacy import PolicyRefusal, SitePolicy

# What these say could depend on a unit, or no site raises them: others hear `failed`.
NEVER_TOLD = {
    *("privacy", "policy", "training", "audit"),
    *("storage", "storage-missing", "storage-exists", "storage-unavailable", "storage-damaged"),
    "storage-unusable",
    "damaged",  # a party's own files, of whose damage others learn nothing
    # The server's and its clients' own; answered over HTTP as problems, never as a site's refusal.
    *("service", "membership", "stopping", "attempt"),
    "unavailable",  # the surroundings: never a site's last word
    "declined",  # a person said no at a terminal
    "acts",  # this party's own log of what people did
    "adapter",  # why a site sits an attempt out, and is asked again: no refusal
}
RULES = re.findall(r"^\| `policy\.(\w+)` \|", privacy.policy.__doc__ or "", re.MULTILINE)


def kinds(base: type[Exception]) -> set[type[Exception]]:
    return {base}.union(*(kinds(kind) for kind in base.__subclasses__()))


def test_every_kind_of_error_is_listed_or_travels_as_failed() -> None:
    # Whichever tests ran before in this process, the kinds are all of the package's.
    for module in pkgutil.walk_packages(fmfl_secure.__path__, "fmfl_secure."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:  # the extra `flower`, which may be absent
            if (error.name or "").partition(".")[0] != "flwr":
                raise
    codes = {kind.code for base in KNOWN_ERRORS for kind in kinds(base)}  # type: ignore[attr-defined]
    assert codes - set(MEANINGS) == NEVER_TOLD
    policies = {f"policy.{rule}" for rule in RULES}
    assert set(MEANINGS) == (codes - NEVER_TOLD) | policies, "and nothing is listed in vain"


@pytest.mark.parametrize("rule", RULES)
def test_a_policy_s_refusal_travels_as_its_rule(rule: str) -> None:
    assert leaving_code(PolicyRefusal(rule, "the limit is 3")) == f"policy.{rule}"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("Mrs Quimby"),
        MemoryError(),
        KeyError("Mrs Quimby"),
        SiteFailure("row 7 is empty"),
        PolicyRefusal("the-row-of-mrs-quimby", ""),
    ],
    ids=repr,
)
def test_whatever_else_fails_travels_as_one_word(error: Exception) -> None:
    assert leaving_code(error) == GENERIC


def test_the_documentation_lists_every_code_of_a_policy() -> None:
    text = (Path(__file__).parents[2] / "docs/policy.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\| `policy\.(\w+)` \|", text)) == set(RULES)
    assert set(re.findall(r"^\| `(\w+)", text, re.MULTILINE)) >= {
        *SitePolicy.__struct_fields__,
    } - {"max_delta_per_dataset"}
