"""A site's policy: each rule alone, at its limit and beyond, and the code that leaves."""

import dataclasses
import datetime as dt
import math
import re

import msgspec
import pytest

from privacy import (
    PolicyRefusal,
    RunProposal,
    SitePolicy,
    check_answers_per_year,
    check_policy,
    policy,
)

NOON = dt.datetime(2026, 6, 30, 12, tzinfo=dt.UTC)
DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
PROPOSAL = RunProposal(
    task="text-classification",
    adapter="ffa-lora",
    base_model=DIGEST,
    unlisted="",
    rounds=10,
    min_sites=3,
    smallest_cohort=7,
    sites=10,
    suite="ckks-collective",
    parameter_set="ckks-collective-4096-60-aes",
    epsilon=3.0,
    delta=1e-5,
    insider_epsilon=12.0,
    colluding_sites=1,
)

# rule -> a policy that just allows the proposal, one that does not, and what its message names.
RULES = {
    "expired": ({"expires": "2026-06-30"}, {"expires": "2026-06-29"}, "2026-06-29, it is 2026-06"),
    "min_sites": ({"min_sites": 3}, {"min_sites": 4}, "at least 4"),
    "min_share": ({"min_share": 0.7}, {"min_share": 0.701}, "7 of 10 sites .* at least 8"),
    "base_model": ({"base_models": [OTHER, DIGEST]}, {"base_models": [OTHER]}, DIGEST),
    "task": (
        {"tasks": ["text-classification"]},
        {"tasks": ["causal-lm"]},
        "task text-classification is not among .*: causal-lm",
    ),
    "adapter": ({"adapters": ["lora", "ffa-lora"]}, {"adapters": ["lora"]}, "adapter ffa-lora"),
    "extension": (
        {"extensions": ["acme-kinds:turn", "acme-kinds:shift"]},
        {"extensions": ["acme-kinds:turn"]},
        "acme-kinds:shift is code of another package, and this site's policy names acme-kinds:turn",
    ),
    "architecture": (
        {"architectures": "gated"},
        {"architectures": "listed"},
        "'bloom' is not among those that were measured",
    ),
    "rounds": ({"max_rounds": 10}, {"max_rounds": 9}, "10 rounds, above this site's limit of 9"),
    "suite": ({"suites": ["ckks-collective"]}, {"suites": ["ckks-pk"]}, "suite ckks-collective"),
    "parameter_set": (
        {"parameter_sets": ["ckks-collective-4096-60-aes"]},
        {"parameter_sets": ["ckks-pk-4096-60-20"]},
        "parameter set ckks-collective-4096-60-aes",
    ),
    "epsilon_per_run": (
        {"max_epsilon_per_run": 3.0},
        {"max_epsilon_per_run": 2.999},
        "3 epsilon for one run, above this site's limit of 2.999",
    ),
    "delta_per_run": (
        {"max_delta_per_run": 1e-5},
        {"max_delta_per_run": 9e-6},
        "above this site's limit of 9e-06",
    ),
    "insider_epsilon_per_run": (
        {"max_insider_epsilon_per_run": 12.0},
        {"max_insider_epsilon_per_run": 11.9},
        "12 epsilon against all other sites together, above this site's limit of 11.9",
    ),
    "queries": (
        {"queries": "statistics"},
        {"queries": "evaluation"},
        "asks for statistics, this site's policy allows evaluation",
    ),
    "epsilon_per_answer": (
        {"queries": "statistics", "max_epsilon_per_answer": 0.5},
        {"queries": "statistics", "max_epsilon_per_answer": 0.499},
        "0.5 epsilon for its answers, above this site's limit of 0.499",
    ),
    "answers_per_run": (
        {"queries": "statistics", "max_answers_per_run": 3},
        {"queries": "statistics", "max_answers_per_run": 2},
        "3 answers, above this site's limit of 2",
    ),
    "norm_check": (
        {"norm_check": "accept"},
        {"norm_check": "refuse"},
        "tells 64 numbers of each tensor .* does not accept that",
    ),
    "colluding_sites": (
        {"min_colluding_sites": 1},
        {"min_colluding_sites": 2},
        "1 sites that may collude, this site's policy asks for at least 2",
    ),
}


def read(settings):
    return msgspec.convert(settings, SitePolicy)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_allows_its_limit_and_refuses_what_is_beyond(rule):
    allowing, refusing, message = RULES[rule]
    proposal = PROPOSAL
    if rule == "extension":
        proposal = dataclasses.replace(PROPOSAL, extensions=("acme-kinds:shift",))
    if rule == "architecture":
        proposal = dataclasses.replace(PROPOSAL, unlisted="bloom")
    if rule == "norm_check":
        proposal = dataclasses.replace(PROPOSAL, norm_check=True)
    if "queries" in allowing:
        asked = {"queries": "statistics", "answers": 3, "answer_epsilon": 0.5}
        proposal = dataclasses.replace(PROPOSAL, **asked)
    check_policy(read(allowing), proposal, now=NOON)
    with pytest.raises(PolicyRefusal, match=message) as refusal:
        check_policy(read(refusing), proposal, now=NOON)
    assert refusal.value.rule == rule
    assert refusal.value.code == f"policy.{rule}"
    assert refusal.value.hint


def test_a_policy_that_says_nothing_allows_what_is_private():
    check_policy(SitePolicy(), PROPOSAL, now=NOON)


def test_a_policy_may_require_that_norms_are_checked():
    checked = dataclasses.replace(PROPOSAL, norm_check=True)
    with pytest.raises(PolicyRefusal, match="does not accept"):
        check_policy(SitePolicy(), checked, now=NOON)
    check_policy(read({"norm_check": "require"}), checked, now=NOON)
    with pytest.raises(PolicyRefusal, match="does not check how large") as refusal:
        check_policy(read({"norm_check": "require"}), PROPOSAL, now=NOON)
    assert refusal.value.code == "policy.norm_check"


def test_a_policy_that_does_not_speak_of_questions_allows_none():
    proposal = dataclasses.replace(PROPOSAL, queries="evaluation", answers=1, answer_epsilon=0.1)
    with pytest.raises(PolicyRefusal, match="allows none"):
        check_policy(SitePolicy(), proposal, now=NOON)


def test_the_answers_of_a_year_are_counted_with_those_asked_for():
    policy = read({"max_answers_per_year": 5})
    check_answers_per_year(policy, given=3, planned=2)
    check_answers_per_year(SitePolicy(), given=1000, planned=1)
    with pytest.raises(PolicyRefusal, match="6 answers, with 4") as refusal:
        check_answers_per_year(policy, given=4, planned=2)
    assert refusal.value.code == "policy.answers_per_year"


def test_training_private_data_without_noise_is_refused_unless_the_site_says_otherwise():
    unbounded = dataclasses.replace(PROPOSAL, epsilon=math.inf)
    with pytest.raises(PolicyRefusal, match="needs data declared public") as refusal:
        check_policy(SitePolicy(), unbounded, now=NOON)
    assert refusal.value.code == "policy.non_private"
    check_policy(read({"non_private": "exhaust"}), unbounded, now=NOON)
    check_policy(SitePolicy(), dataclasses.replace(PROPOSAL, epsilon=0.0), now=NOON)


def test_the_last_day_ends_at_midnight_utc_wherever_the_clock_is():
    policy_ = read({"expires": "2026-06-30"})
    west = dt.timezone(dt.timedelta(hours=-9))
    check_policy(policy_, PROPOSAL, now=dt.datetime(2026, 6, 30, 14, 59, 59, tzinfo=west))
    with pytest.raises(PolicyRefusal, match="expired"):
        check_policy(policy_, PROPOSAL, now=dt.datetime(2026, 6, 30, 15, tzinfo=west))


@pytest.mark.parametrize("asked", [{"epsilon": math.nan}, {"delta": math.nan}])
def test_what_is_no_number_is_within_no_limit(asked):
    with pytest.raises(PolicyRefusal):
        check_policy(
            read({"max_epsilon_per_run": 8.0, "max_delta_per_run": 0.1}),
            dataclasses.replace(PROPOSAL, **asked),
            now=NOON,
        )


@pytest.mark.parametrize(
    "settings",
    [
        {"min_sites": 2},
        {"max_rounds": 0},
        {"base_models": []},
        {"base_models": ["minilm"]},
        {"base_models": DIGEST},
        {"tasks": []},
        {"adapters": [""]},
        {"suites": []},
        {"parameter_sets": []},
        {"max_epsilon_per_run": 0},
        {"max_epsilon_per_run": math.nan},
        {"max_epsilon_per_run": math.inf},
        {"max_epsilon_per_run": 1e308},
        {"max_insider_epsilon_per_run": math.inf},
        {"max_epsilon_per_dataset": math.inf},
        {"max_delta_per_run": 2.0},
        {"max_delta_per_run": 1.0},
        {"max_delta_per_run": 0.0},
        {"max_delta_per_run": math.nan},
        {"expires": "soon"},
        {"expires": dt.datetime(2026, 6, 30, tzinfo=dt.UTC)},
        {"non_private": "allow"},
        {"max_epsilon_per_dataset": 3.0},
        {"max_delta_per_dataset": 1e-5},
        {"non_private": "exhaust", "max_epsilon_per_run": 8.0},
        {"non_private": "exhaust", "max_epsilon_per_dataset": 8.0, "max_delta_per_dataset": 1e-5},
        {"max_round": 5},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(settings):
    with pytest.raises(msgspec.ValidationError):
        read(settings)


def test_every_code_is_documented_with_the_rule():
    documented = set(re.findall(r"^\| `policy\.(\w+)` \|", policy.__doc__, re.MULTILINE))
    assert documented == {*RULES, "non_private", "epsilon_per_dataset", "answers_per_year"}


def test_every_rule_of_a_policy_is_tested_here():
    named = {name for allowing, _, _ in RULES.values() for name in allowing}
    elsewhere = {"non_private", "max_epsilon_per_dataset", "max_delta_per_dataset"}
    assert named | elsewhere | {"max_answers_per_year"} == set(SitePolicy.__struct_fields__)
