"""Settings: strict, complete, and canonical."""

from __future__ import annotations

import copy
import datetime as dt
import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fmfl_secure.errors import ConfigError
from fmfl_secure.settings.federation import (
    FederationConfig,
    convert_config,
    decode_config,
    encode_config,
    load_custodian,
    load_federation,
    load_site,
)
from fmfl_secure.settings.site import CustodianPolicy, SiteConfig
from privacy import SitePolicy

FEDERATION: dict[str, Any] = {
    "federation": {
        "name": "pilot",
        "rounds": 3,
        "min_sites": 3,
        "seed": 5,
        "weights": "equal",
    },
    "model": {
        "base": "models/bert",
        "digest": "sha256:" + "a" * 64,
        "dtype": "float32",
        "max_length": 64,
    },
    "task": {
        "kind": "text-classification",
        "text_columns": ["note", "text"],
        "label_column": "category",
        "labels": ["no", "yes"],
        "unit": "patient",
        "unit_normalisation": ["case"],
        "on_bad_row": "error",
    },
    "adapter": {
        "kind": "lora",
        "rank": 4,
        "alpha": 8.0,
        "rank_stabilised": True,
        "last_layers": 1,
        "target_modules": ["query"],
        "virtual_tokens": 4,
        "personal_head": False,
    },
    "privacy": {
        "noise": "local",
        "epsilon": 3.0,
        "delta": 1e-6,
        "sample_rate": 0.5,
        "steps_per_round": 2,
        "max_grad_norm": 0.5,
        "repeats": 2,
        "colluding_sites": 1,
        "insider_epsilon": 20.0,
        "max_records_per_unit": 16,
    },
    "training": {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "head_learning_rate": 0.2,
        "proximal": 0.01,
        "server_optimizer": "momentum",
        "server_learning_rate": 0.5,
        "physical_batch_size": 16,
        "cache_mib": 8,
        "checkpointing": True,
        "device": "cpu",
    },
    "aggregation": {"suite": "ckks-collective", "bits": 12, "custodians": ["board"]},
    "evaluation": {"data": "holdout.csv", "visibility": "public", "every": 2},
    "sites": [{"name": f"site-{n}", "population": 100} for n in (1, 2, 3, 4)],
}
SITE: dict[str, Any] = {
    "data": {"path": "data.csv", "name": "letters", "visibility": "private"},
    "budget": {"population": "patients", "ledger": "ledger.sqlite"},
    "policy": {"min_sites": 4, "max_epsilon_per_run": 2.0, "base_models": ["sha256:" + "a" * 64]},
}
# For every setting another value that is allowed too.
OTHERS: dict[str, Any] = {
    "federation.name": "other",
    "federation.rounds": 4,
    "federation.min_sites": 4,
    "federation.seed": 6,
    "federation.weights": "population",
    "model.base": "models/roberta",
    "model.digest": "sha256:" + "b" * 64,
    "model.max_length": 65,
    "model.dtype": "bfloat16",
    "task.text_columns": ["text", "note"],
    "task.label_column": "label",
    "task.labels": ["yes", "no"],
    "task.unit": "person",
    "task.unit_normalisation": ["exact", "case"],
    "task.on_bad_row": "skip",
    "adapter.kind": "ffa-lora",
    "adapter.rank": 5,
    "adapter.alpha": 9.0,
    "adapter.last_layers": 0,
    "adapter.target_modules": ["query", "value"],
    "adapter.rank_stabilised": False,
    "adapter.virtual_tokens": 8,
    "privacy.noise": "none",
    "privacy.epsilon": 3.5,
    "privacy.delta": 2e-6,
    "privacy.sample_rate": 0.25,
    "privacy.steps_per_round": 3,
    "privacy.max_grad_norm": 0.25,
    "privacy.repeats": 0,
    "privacy.colluding_sites": 2,
    "privacy.insider_epsilon": 21.0,
    "privacy.max_records_per_unit": 0,
    "training.optimizer": "adam",
    "training.learning_rate": 0.02,
    "training.head_learning_rate": 0.1,
    "training.proximal": 0.0,
    "training.server_optimizer": "adam",
    "training.server_learning_rate": 1.0,
    "training.physical_batch_size": 17,
    "training.cache_mib": 0,
    "training.checkpointing": False,
    "training.device": "auto",
    "aggregation.bits": 16,
    "aggregation.custodians": ["board", "court"],
    "evaluation.data": "",
    "evaluation.every": 3,
    "sites.1.name": "site-9",
    "sites.3.population": 200,
}
# One value each, so there is no other one.
ONLY_VALUE = {"task.kind", "aggregation.suite"}


def changed(data: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with one setting changed; places are written `section.key` and `sites.INDEX.key`."""
    result = copy.deepcopy(data)
    *path, key = place.split(".")
    inner: Any = result
    for step in path:
        inner = inner[int(step) if step.isdigit() else step]
    inner[key] = value
    return result


def federation(data: dict[str, Any]) -> FederationConfig:
    return convert_config(data, FederationConfig, source="federation.toml")


def site(data: dict[str, Any]) -> SiteConfig:
    return convert_config(data, SiteConfig, source="site.toml")


def places(data: dict[str, Any]) -> set[str]:
    sections = {s for s in data if s != "sites"}
    return {f"{s}.{key}" for s in sections for key in data[s]}


@pytest.mark.parametrize("section", [s for s in FEDERATION if s != "sites"])
def test_an_unknown_key_is_refused_with_its_place(section: str) -> None:
    with pytest.raises(ConfigError, match=rf'"colour" is no setting of {section}\Z'):
        federation(changed(FEDERATION, f"{section}.colour", "blue"))


def test_unknown_keys_of_the_file_and_of_a_site_entry_are_refused_with_their_place() -> None:
    with pytest.raises(ConfigError, match=r'federation\.toml: "colour" is no setting\Z'):
        federation({**FEDERATION, "colour": "blue"})
    with pytest.raises(ConfigError, match=r'"colour" is no setting of sites\[3\]\Z'):
        federation(changed(FEDERATION, "sites.2.colour", "blue"))


@pytest.mark.parametrize("section", SITE)
def test_a_sites_unknown_key_is_refused_with_its_place(section: str) -> None:
    with pytest.raises(ConfigError, match=rf'"colour" is no setting of {section}\Z'):
        site(changed(SITE, f"{section}.colour", "blue"))


@pytest.mark.parametrize("key", sorted(places(FEDERATION)))
def test_a_setting_of_another_type_is_refused_with_its_place(key: str) -> None:
    section, name = key.split(".")
    for wrong in (1 if isinstance(FEDERATION[section][name], bool) else True, {"a": 1}, None):
        with pytest.raises(ConfigError, match=rf"\b{section}\.{name} = "):
            federation(changed(FEDERATION, key, wrong))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("federation.name", ""),
        ("federation.name", "Pilot"),
        ("federation.name", "../pilot"),
        ("federation.name", "pilot\n"),
        ("federation.name", "p" * 64),
        ("federation.rounds", 0),
        ("federation.rounds", 10_001),
        ("federation.rounds", 2.0),
        ("federation.min_sites", 2),
        ("federation.seed", -1),
        ("model.base", ""),
        ("model.digest", "sha256:abc"),
        ("model.digest", "a" * 64),
        ("model.digest", "sha256:" + "a" * 64 + "\n"),
        ("model.max_length", 1),
        ("model.dtype", "float16"),
        ("task.kind", "regression"),
        ("task.text_columns", []),
        ("task.text_columns", [""]),
        ("task.text_columns", "text"),
        ("task.label_column", ""),
        ("task.labels", ["one"]),
        ("task.labels", [0, 1]),
        ("task.unit", ""),
        ("task.unit_normalisation", ["letters"]),
        ("task.unit_normalisation", "case"),
        ("task.on_bad_row", "ignore"),
        ("adapter.kind", "loha"),
        ("adapter.rank", 0),
        ("adapter.alpha", 0.0),
        ("adapter.alpha", math.inf),
        ("adapter.last_layers", -1),
        ("adapter.target_modules", [""]),
        ("privacy.noise", "central"),
        ("privacy.epsilon", 0),
        ("privacy.epsilon", -1.0),
        ("privacy.epsilon", math.nan),
        ("privacy.epsilon", math.inf),
        ("privacy.delta", 0.0),
        ("privacy.delta", 1.0),
        ("privacy.sample_rate", 0.0),
        ("privacy.sample_rate", 1.5),
        ("privacy.steps_per_round", 0),
        ("privacy.max_grad_norm", 0.0),
        ("privacy.max_grad_norm", math.inf),
        ("privacy.repeats", -1),
        ("training.optimizer", "lion"),
        ("training.learning_rate", 0.0),
        ("training.head_learning_rate", math.nan),
        ("training.physical_batch_size", 0),
        ("training.cache_mib", -1),
        ("training.device", "tpu"),
        ("aggregation.suite", "plain"),
        ("aggregation.bits", 1),
        ("aggregation.bits", 25),
        ("aggregation.custodians", "board"),
        ("aggregation.custodians", ["../board"]),
        ("aggregation.custodians", [f"c-{n}" for n in range(17)]),
        ("evaluation.visibility", "secret"),
        ("evaluation.every", 0),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_place(place: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"\b{re.escape(place)}\b"):
        federation(changed(FEDERATION, place, value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data.path", ""),
        ("data.visibility", "secret"),
        ("budget.population", ""),
        ("budget.ledger", ""),
        ("policy.min_sites", 2),
        ("policy.max_epsilon_per_run", 0.0),
        ("policy.max_epsilon_per_run", math.nan),
        ("policy.base_models", ["sha256:12"]),
        ("policy.adapters", []),
        ("policy.expires", "some day"),
        ("data.name", "x" * 201),
    ],
)
def test_a_sites_value_out_of_range_is_refused_with_its_place(place: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"\b{re.escape(place)}\b"):
        site(changed(SITE, place, value))


@pytest.mark.parametrize("section", ["federation", "task", "sites"])
def test_a_missing_section_is_named(section: str) -> None:
    with pytest.raises(ConfigError, match=f"{section} is missing"):
        federation({k: v for k, v in FEDERATION.items() if k != section})


def test_a_site_listed_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="site-1 is listed twice"):
        federation(changed(FEDERATION, "sites.3.name", "site-1"))


@pytest.mark.parametrize("name", ["coordinator", "aggregator", "decryptor"])
def test_a_site_cannot_take_the_name_of_another_party(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no site can be named {name}"):
        federation(changed(FEDERATION, "sites.0.name", name))


@pytest.mark.parametrize("name", ["", "..", "a/b", "Site", "-a", "site-1\n", "s" * 64])
def test_a_sites_name_must_do_as_a_folders(name: str) -> None:
    with pytest.raises(ConfigError, match=r"\bsites\[1\]\.name = "):
        federation(changed(FEDERATION, "sites.0.name", name))


@pytest.mark.parametrize("name", ["coordinator", "aggregator", "decryptor", "site-2"])
def test_a_custodian_is_a_party_of_its_own(name: str) -> None:
    with pytest.raises(ConfigError, match=f"no custodian can be named {name}"):
        federation(changed(FEDERATION, "aggregation.custodians", ["board", name]))
    with pytest.raises(ConfigError, match="a name twice"):
        federation(changed(FEDERATION, "aggregation.custodians", ["board", "board"]))


def test_custodians_need_the_collective_suite() -> None:
    public_key = changed(FEDERATION, "aggregation.suite", "ckks-pk")
    with pytest.raises(ConfigError, match="ckks-collective"):
        federation(public_key)
    assert federation(changed(public_key, "aggregation.custodians", [])).aggregation.bits == 12


def test_a_custodian_s_settings_and_their_defaults(tmp_path: Path) -> None:
    path = tmp_path / "custodian.toml"
    path.write_text("")
    assert load_custodian(path).policy == CustodianPolicy(min_sites=3, last_round=0)
    path.write_text("[policy]\nmin_sites = 5\nlast_round = 2\n")
    assert load_custodian(path).policy == CustodianPolicy(min_sites=5, last_round=2)
    for wrong in ("min_sites = 2", "last_round = -1", "rounds = 1"):
        path.write_text(f"[policy]\n{wrong}\n")
        with pytest.raises(ConfigError, match=r"custodian\.toml"):
            load_custodian(path)


def test_fewer_sites_than_a_cohort_needs_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 sites are listed, fewer than min_sites = 3"):
        federation({**FEDERATION, "sites": FEDERATION["sites"][:2]})
    with pytest.raises(ConfigError, match="4 sites are listed, fewer than min_sites = 5"):
        federation(changed(FEDERATION, "federation.min_sites", 5))
    with pytest.raises(ConfigError, match="0 sites"):
        federation({**FEDERATION, "sites": []})


def test_delta_is_bounded_by_the_largest_population() -> None:
    at_the_bound = changed(FEDERATION, "sites.2.population", 1000)
    assert federation(changed(at_the_bound, "privacy.delta", 1e-4)).privacy.delta == 1e-4
    with pytest.raises(ConfigError, match=r"privacy\.delta is 0\.000101, expected at most"):
        federation(changed(at_the_bound, "privacy.delta", 1.01e-4))


def test_a_label_listed_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="a label twice"):
        federation(changed(FEDERATION, "task.labels", ["yes", "no", "yes"]))


def test_records_have_no_ids_to_normalise() -> None:
    records = changed(FEDERATION, "task.unit", "record")
    with pytest.raises(ConfigError, match=r"task\.unit is 'record'"):
        federation(records)
    assert federation(changed(records, "task.unit_normalisation", [])).task.unit == "record"
    with pytest.raises(ConfigError, match="a value twice"):
        federation(changed(FEDERATION, "task.unit_normalisation", ["case", "case"]))


def test_figures_are_not_published_on_data_not_declared_public() -> None:
    private = changed(FEDERATION, "evaluation.visibility", "private")
    with pytest.raises(ConfigError, match="not declared public"):
        federation(private)
    del private["evaluation"]["visibility"]
    with pytest.raises(ConfigError, match="not declared public"):
        federation(private)
    private["evaluation"]["data"] = ""
    assert federation(private).evaluation.data == ""


def test_the_tables_above_cover_every_setting() -> None:
    written = json.loads(encode_config(federation(FEDERATION)))
    assert places(written) == places(FEDERATION)
    ours = {k for k in OTHERS if not k.startswith("sites.")}
    assert ours | ONLY_VALUE | {"evaluation.visibility", "adapter.personal_head"} == places(
        FEDERATION
    )


@pytest.mark.parametrize("place", OTHERS)
def test_the_digest_changes_with_any_setting(place: str) -> None:
    assert (
        federation(changed(FEDERATION, place, OTHERS[place])).digest
        != federation(FEDERATION).digest
    )


def test_the_digest_tells_public_from_private_evaluation() -> None:
    without = changed(FEDERATION, "evaluation.data", "")
    private = changed(without, "evaluation.visibility", "private")
    assert federation(without).digest != federation(private).digest


def reversed_keys(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: reversed_keys(data[key]) for key in reversed(data)}
    return [reversed_keys(item) for item in data] if isinstance(data, list) else data


def test_the_digest_is_independent_of_key_order_and_of_how_a_number_is_written() -> None:
    digest = federation(FEDERATION).digest
    assert digest.startswith("sha256:")
    assert federation(reversed_keys(FEDERATION)).digest == digest
    assert federation(changed(FEDERATION, "privacy.epsilon", 3)).digest == digest


def test_a_default_written_out_is_the_same_setting() -> None:
    short = {k: FEDERATION[k] for k in ("federation", "task", "sites")}
    long = {**short, "training": {"optimizer": "adam"}, "aggregation": {"bits": 16}}
    assert federation(short).digest == federation(long).digest


def test_settings_are_read_back_as_they_were_written() -> None:
    for place, value in OTHERS.items():
        config = federation(changed(FEDERATION, place, value))
        assert decode_config(encode_config(config)) == config
        assert decode_config(encode_config(config)).digest == config.digest


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b'{"federation": 3}'])
def test_damaged_settings_are_not_read_back(data: bytes) -> None:
    with pytest.raises(ConfigError, match="stored settings"):
        decode_config(data)


def test_stored_settings_are_checked_as_strictly_as_written_ones() -> None:
    data = json.loads(encode_config(federation(FEDERATION)))
    data["federation"]["min_sites"] = 2
    with pytest.raises(ConfigError, match=r"min_sites"):
        decode_config(json.dumps(data).encode())


def test_settings_are_immutable() -> None:
    config = federation(FEDERATION)
    with pytest.raises(AttributeError):
        config.privacy.epsilon = 100.0  # type: ignore[misc]


def test_a_sites_settings_and_their_defaults() -> None:
    config = site(SITE)
    assert config.policy.max_epsilon_per_run == 2.0
    short = site({"data": {"path": "x.csv"}, "budget": {"population": "p"}})
    assert short.data.visibility == "private"
    assert short.budget.ledger == "ledger.sqlite"
    assert short.policy.min_sites == 3
    assert short.policy.max_epsilon_per_run == math.inf
    assert short.policy == SitePolicy()
    assert short.data.name == ""


def test_a_data_set_s_budget_needs_its_name() -> None:
    capped = {"max_epsilon_per_dataset": 3.0, "max_delta_per_dataset": 1e-5}
    data = {"path": "x.csv"}
    with pytest.raises(ConfigError, match=r"max_epsilon_per_dataset needs data\.name"):
        site({"data": data, "budget": {"population": "p"}, "policy": capped})
    named = {"data": data | {"name": "letters"}, "budget": {"population": "p"}, "policy": capped}
    assert site(named).policy.caps_datasets


@pytest.mark.parametrize(
    ("rule", "wrong", "meant"),
    [
        ("tasks", "text-clasification", "text-classification"),
        ("tasks", "extension", "known"),  # each goes by its own name
        ("adapters", "ffalora", "ffa-lora"),
        ("suites", "ckks_pk", "ckks-pk"),
    ],
)
def test_a_policy_that_allows_what_there_is_not_is_refused(
    rule: str, wrong: str, meant: str
) -> None:
    """It refused every run without saying that its own name was mistyped."""
    with pytest.raises(ConfigError, match=rf"(?i)policy\.{rule}.*{wrong}.*{meant}"):
        site(changed(SITE, f"policy.{rule}", [wrong]))
    there = ["acme-kinds:shift"] if meant == "known" else [meant]
    assert getattr(site(changed(SITE, f"policy.{rule}", there)).policy, rule) == tuple(there)


def test_a_policy_s_last_day_is_a_date_of_toml(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    text = '[data]\npath = "x.csv"\n[budget]\npopulation = "p"\n[policy]\nexpires = '
    path.write_text(text + "2027-12-31\n")
    assert load_site(path).policy.expires == dt.date(2027, 12, 31)
    path.write_text(text + "2027-12-31T12:00:00Z\n")
    with pytest.raises(ConfigError, match=r"line 6: policy\.expires = .* is not a date"):
        load_site(path)


def test_files_are_read_and_refused_with_their_name(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    with pytest.raises(ConfigError, match="does not exist") as refusal:
        load_federation(path)
    assert "fmfl-secure init" in refusal.value.hint
    for content in (b"[federation\n", b"\xff\xfe", b"a = 1\na = 2\n"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"federation\.toml cannot be read as TOML"):
            load_federation(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_site(tmp_path)
    path.write_text('[data]\npath = "x.csv"\n[budget]\npopulation = "p"\nledgr = "x"\n')
    with pytest.raises(
        ConfigError, match=r'federation\.toml: line 5: "ledgr" is no setting of budget'
    ):
        load_site(path)


def test_toml_gives_the_same_settings_as_its_data(tmp_path: Path) -> None:
    lines = []
    for section, values in FEDERATION.items():
        for entry in values if section == "sites" else [values]:
            lines.append(f"[[{section}]]" if section == "sites" else f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    path = tmp_path / "federation.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    assert tomllib.loads(path.read_text()) == FEDERATION
    assert load_federation(path) == federation(FEDERATION)


def distributed() -> dict[str, Any]:
    data = changed(FEDERATION, "privacy.noise", "distributed")
    data = changed(data, "privacy.steps_per_round", 1)
    data = changed(data, "training.server_optimizer", "average")
    return changed(data, "training.server_learning_rate", 1.0)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("privacy.steps_per_round", 2, "expected 1: with distributed noise every step is a round"),
        ("privacy.colluding_sites", 3, "expected fewer than min_sites = 3"),
        ("training.server_optimizer", "adam", "server_optimizer is for steps at the sites"),
        ("training.server_learning_rate", 0.5, "server_optimizer is for steps at the sites"),
    ],
)
def test_what_distributed_noise_does_not_go_with_is_refused(
    place: str, value: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        federation(changed(distributed(), place, value))


def test_weights_are_coarse_public_powers_of_two():
    data = changed(FEDERATION, "federation.weights", "population")
    populations = [1000, 999, 500, 260, 130, 3]
    data["sites"] = [{"name": f"s{n}", "population": p} for n, p in enumerate(populations)]
    config = convert_config(data, FederationConfig, source="test")
    assert list(config.weights().values()) == [1.0, 0.5, 0.5, 0.25, 0.125, 0.125]
    assert list(config.weights()) == [f"s{n}" for n in range(len(populations))]


@pytest.mark.parametrize(
    ("key", "value"), [("federation.weights", "population"), ("training.proximal", 0.1)]
)
def test_what_needs_several_steps_of_a_site_is_refused_with_distributed_noise(key, value):
    data = changed(FEDERATION, "training.server_optimizer", "average")
    data = changed(data, "training.server_learning_rate", 1.0)
    data = changed(changed(data, "training.proximal", 0.0), key, value)
    convert_config(data, FederationConfig, source="test")
    data = changed(data, "privacy.noise", "distributed")
    data = changed(data, "privacy.steps_per_round", 1)
    with pytest.raises(ConfigError, match="is for steps at the sites"):
        convert_config(data, FederationConfig, source="test")


def test_a_setting_that_came_later_changes_the_digest_only_where_it_is_set() -> None:
    """What was reserved and signed under 0.1.0 is found under the settings' name of then."""
    data = copy.deepcopy(FEDERATION)
    data["task"].pop("unit_normalisation", None)
    config = convert_config(data, FederationConfig, source="test")
    written = json.loads(encode_config(config))
    assert "unit_normalisation" not in written["task"]
    assert written["task"]["on_bad_row"] == config.task.on_bad_row, "what 0.1.0 knew is there"
    data = changed(data, "task.unit", "patient_id")
    set_ = changed(data, "task.unit_normalisation", ["case"])
    plain, ruled = (convert_config(d, FederationConfig, source="test") for d in (data, set_))
    assert ruled.digest != plain.digest
    assert decode_config(encode_config(ruled)) == ruled
    assert decode_config(encode_config(plain)) == plain
