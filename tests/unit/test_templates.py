"""The files that `init` writes: they parse, explain every choice, and agree with the defaults."""

from __future__ import annotations

import math
import tomllib

import msgspec
import pytest

from fmfl_secure.config import CustodianConfig, FederationConfig, SiteConfig, convert_config
from fmfl_secure.templates import custodian_toml, federation_toml, site_toml

# Where the template recommends other than what leaving the key out means.
RECOMMENDED = {
    "adapter.last_layers": 1,
    "adapter.target_modules": ("query", "value"),
    "privacy.sample_rate": 0.2,
}
# Left out of the template: the first one is for when the model is chosen, the second for tuning.
LEFT_OUT = {"model.digest", "training.cache_mib"}


def federation(sites: int = 4) -> FederationConfig:
    data = tomllib.loads(federation_toml("pilot", sites))
    return convert_config(data, FederationConfig, source="template")


def test_the_template_is_a_federation_of_so_many_sites() -> None:
    config = federation(5)
    assert config.federation.name == "pilot"
    assert [site.name for site in config.sites] == [f"site-{n}" for n in range(1, 6)]


def test_the_template_spells_out_every_setting() -> None:
    data = tomllib.loads(federation_toml("pilot", 3))
    for field in msgspec.structs.fields(FederationConfig):
        if field.name == "sites":
            continue
        section = getattr(federation(), field.name)
        expected = {
            name for name in section.__struct_fields__ if f"{field.name}.{name}" not in LEFT_OUT
        }
        assert set(data[field.name]) == expected


@pytest.mark.parametrize(
    "section", ["model", "adapter", "privacy", "training", "aggregation", "evaluation"]
)
def test_the_templates_values_are_the_defaults(section: str) -> None:
    default = next(f.default for f in msgspec.structs.fields(FederationConfig) if f.name == section)
    written = getattr(federation(), section)
    for name in default.__struct_fields__:
        expected = RECOMMENDED.get(f"{section}.{name}", getattr(default, name))
        assert getattr(written, name) == expected, f"{section}.{name}"


def test_the_rest_of_the_templates_values_are_the_defaults_too() -> None:
    config = federation()
    assert (config.federation.min_sites, config.federation.seed) == (3, 1)
    assert (config.task.unit, config.task.on_bad_row) == ("record", "skip")


def test_every_setting_of_the_template_stands_under_a_comment_or_explains_itself() -> None:
    lines = federation_toml("pilot", 3).splitlines()
    plain = {line.split(" =")[0] for line in lines if " = " in line and "#" not in line}
    assert plain <= {
        "name", "population", "kind", "label_column", "rank", "alpha", "target_modules",
        "steps_per_round", "max_grad_norm", "optimizer", "head_learning_rate", "suite",
    }  # fmt: skip


def test_a_custodian_s_template_agrees_to_every_round() -> None:
    written = custodian_toml("board", 5)
    for text, last in ((written, 0), (written.replace("# last", "last"), 10)):
        config = convert_config(tomllib.loads(text), CustodianConfig, source="template")
        assert (config.policy.min_sites, config.policy.last_round) == (5, last)


def site(text: str) -> SiteConfig:
    return convert_config(tomllib.loads(text), SiteConfig, source="template")


@pytest.mark.parametrize(
    "path", ["../../data/a.csv", "/data/\u00fcber.csv", "C:\\a\\n.csv", 'a"b.csv', "\U0001f600.tsv"]
)
def test_a_sites_template_names_its_data_whatever_they_are_called(path: str) -> None:
    assert site(site_toml("site-1", 3, path)).data.path == path


def test_a_sites_template_parses_with_its_policy_off() -> None:
    config = site(site_toml("site-1", 5, "site-1.csv"))
    assert config.data.visibility == "private"
    assert config.budget.population == "site-1"
    assert config.budget.ledger == "ledger.sqlite"
    assert config.policy.min_sites == 5
    assert config.policy.max_epsilon_per_run == math.inf
    assert config.policy.base_model_digest == ""


def test_the_commented_policy_can_be_switched_on() -> None:
    text = site_toml("site-1", 3, "x.csv")
    text = text.replace("# max_eps", "max_eps").replace("# base_m", "base_m")
    config = site(text.replace("sha256:...", "sha256:" + "0" * 64))
    assert config.policy.max_epsilon_per_run == 8.0
    assert config.policy.base_model_digest == "sha256:" + "0" * 64
