"""The files that `init` writes: they parse, explain every choice, and agree with the defaults."""

from __future__ import annotations

import datetime as dt
import re
import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from fmfl_secure.errors import UnknownKind
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.settings.federation import FederationConfig, convert_config
from fmfl_secure.settings.site import CustodianConfig, SiteConfig
from fmfl_secure.settings.templates import custodian_toml, federation_toml, site_toml
from fmfl_secure.settings.written import toml_of
from fmfl_secure.tasks import TASKS
from privacy import SitePolicy

# Where the template recommends other than what leaving the key out means.
RECOMMENDED = {
    "adapter.last_layers": 1,
    "adapter.target_modules": ("query", "value"),
    "privacy.sample_rate": 0.2,
    "privacy.max_records_per_unit": 8,
    "privacy.constant_time": True,
    # A better model for the same epsilon; a file that does not say keeps its meaning of 0.1.0.
    "privacy.steps_per_round": 1,
    "training.steps_at": "server",
}
# Left out of the template: for when the model is chosen, and for tuning.
# The last is `personal = ["head"]`, as version 0.1.0 wrote it.
LEFT_OUT = {"model.digest", "training.cache_mib", "adapter.personal_head"}
# In a comment, as something to turn on and not a value to change.
COMMENTED = {"federation.vanished_sites", "federation.norm_check", "adapter.layer_groups"}


def federation(sites: int = 4, task: str = "text-classification") -> FederationConfig:
    data = tomllib.loads(federation_toml("pilot", sites, task))
    return convert_config(data, FederationConfig, source="template")


def test_the_template_is_a_federation_of_so_many_sites() -> None:
    config = federation(5)
    assert config.federation.name == "pilot"
    assert [site.name for site in config.sites] == [f"site-{n}" for n in range(1, 6)]


REFUSED = {
    "multi-label-classification": {"label_texts", "label_weights"},
    "preference": {"response_column", "input_column", "messages_column", "responses"},
}


@pytest.mark.parametrize("task", TASKS.names)
def test_the_template_spells_out_every_setting(task: str) -> None:
    text = federation_toml("pilot", 3, task)
    data = tomllib.loads(text)
    assert data["task"]["kind"] == task
    for field in msgspec.structs.fields(FederationConfig):
        if field.name in {"sites", "question"}:  # a run that only asks is `ask`'s
            continue
        section = getattr(federation(task=task), field.name)
        if section is None:  # there only where it says something: it stands in comments
            written = federation_toml("pilot", 3, task).partition(f"# [{field.name}]\n")[2]
            kind = get_args(field.type)[0]
            assert all(f"# {name} = " in written for name in kind.__struct_fields__)
            continue
        # What has no value in TOML stands in a comment.
        absent = {n for n in section.__struct_fields__ if getattr(section, n) is None}
        absent |= {n for n in section.__struct_fields__ if f"{field.name}.{n}" in COMMENTED}
        assert all(f"# {name} = " in text for name in absent)
        # What another task has, and this one refuses.
        if field.name == "task":
            absent |= REFUSED.get(task, set())
        expected = {
            name for name in section.__struct_fields__ if f"{field.name}.{name}" not in LEFT_OUT
        }
        # The kind of task decides what the section holds, and is no field of it.
        kind = {"kind"} if field.name == "task" else set()
        assert set(data[field.name]) == (expected - absent) | kind


@pytest.mark.parametrize("task", TASKS.names)
def test_a_template_trains_on_a_model_of_its_kind(tiny_models, task: str) -> None:
    """Heads, modules and layers that it names are there."""
    models = {"causal-lm": "llama", "preference": "llama", "image-classification": "vit"}
    kind = models.get(task, "clip" if task.startswith("image") else "bert")
    config = federation(task=task)
    length = msgspec.structs.replace(config.model, base=str(tiny_models(kind)), max_length=24)
    built = build_task(msgspec.structs.replace(config, model=length), relative_to=Path())
    assert largest_layout(built, built.build_model(seed=1)).size > 0


def test_a_template_of_an_unknown_task_is_refused() -> None:
    with pytest.raises(UnknownKind, match="'regression'"):
        federation_toml("pilot", 3, "regression")


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
    assert config.data.name == ""
    assert config.budget.population == "site-1"
    assert config.budget.ledger == "ledger.sqlite"
    assert config.policy == SitePolicy(min_sites=5, queries="statistics")


def test_every_rule_of_the_commented_policy_can_be_switched_on_and_is_explained() -> None:
    text = site_toml("site-1", 3, "x.csv").replace("sha256:...", "sha256:" + "0" * 64)
    config = site(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    assert config.data.name == "letters-2026"
    for field in msgspec.structs.fields(SitePolicy):
        if field.name not in {"min_sites", "non_private", "queries"}:  # there from the start
            assert getattr(config.policy, field.name) != field.default, field.name
    assert config.policy.base_models == ("sha256:" + "0" * 64,)
    assert config.policy.expires == dt.date(2027, 12, 31)
    assert config.policy.caps_datasets
    policy = text[text.index("[policy]") :].splitlines()[1:]
    rules = [line for line in policy if " = " in line]
    assert len(rules) == len(SitePolicy.__struct_fields__)
    assert all("  # " in line for line in rules), "each says what it does"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--epsilon", "nan", "privacy.epsilon = NaN has to be above 0"),
        ("--epsilon", "inf", "privacy.epsilon = Infinity has to be at most"),
        ("--text-column", "\udcff", "is no text in UTF-8"),
        ("--text-column", "a\0", "has a NUL character"),
    ],
)
def test_what_no_settings_can_say_is_refused_and_nothing_is_written(
    main, tmp_path: Path, option: str, value: str, said: str
) -> None:
    code, _, errors = main("init", tmp_path / "new", "--sites", "3", option, value)
    assert code == 1
    assert said in " ".join(errors.split())
    assert not (tmp_path / "new").exists()


def test_what_toml_writes_otherwise_than_json_reads_back() -> None:
    values = ['a\x7f"\\b\u00fc', float("inf"), [1, 2.5, ["x"]], True]
    assert tomllib.loads(f"x = {toml_of(values)}")["x"] == values
