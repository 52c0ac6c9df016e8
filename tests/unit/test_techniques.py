"""Every technique has a row that is true: works and is shown, or is refused in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.errors import ConfigError
from fmfl_secure.models.adapters import ADAPTERS
from fmfl_secure.settings.federation import FederationConfig, convert_config
from fmfl_secure.settings.techniques import (
    TECHNIQUES,
    find_refusal,
    technique_of,
    techniques_in,
)
from fmfl_secure.settings.techniques_document import survey_document

ROOT = Path(__file__).parents[2]
# Leaves of the survey's tree and of its list of papers, as a reader would look for them.
SURVEY = """
BitFit, LayerNorm tuning, linear probing, full fine-tuning, sparse mask, layer dropout, adapters,
houlsby, IA3, prompt tuning, prefix tuning, P-tuning, VPT, CoOp, PromptFL, LoRA, rsLoRA, FFA-LoRA,
RoLoRA, FedSA, Fed-SB, SLoRA, FlexLoRA, FedSVD, HetLoRA, FLoRA, FedEx, DoRA, AdaLoRA, VeRA,
distillation, FedMD, sparsification, quantisation, split learning, FedBERT, offsite-tuning,
FedKSeed, DP-ZO, forward gradient, FwdLLM, BBT, DPO, RLHF, personal head, FedBN, clustering,
watermark, MIA, LiRA, krum, trimmed mean, median, DP-SGD, distributed DP, secagg, CKKS, TEE,
synthetic text, unlearning, multilingual, speech, recommendation, diffusion, FedProx, FedAdam,
SCAFFOLD, FedNova, QLoRA, instruction tuning, MoE, norm bounding, canary, last layers only,
sparse masks, bottleneck adapters, visual prompt, context optimisation, LoRA-XS, zeroth order,
forward gradients, heterogeneous ranks, multi-domain, preference, fedsa-lora, personal matrices,
black-box tuning, watermarks, poisoning, backdoor, extraction of planted secrets, source inference,
gradient inversion, generation, text generation, knowledge distillation, PiSSA, LoKr, LoRA-FA
""".replace("\n", " ")


def test_who_looks_for_a_technique_finds_a_row() -> None:
    names = [name.strip() for name in SURVEY.split(",")]
    assert [name for name in names if technique_of(name) is None] == []


def test_a_row_is_whole() -> None:
    for technique in TECHNIQUES:
        assert (technique.status == "works") == bool(technique.shown_by), technique
        assert (technique.status == "works") != bool(technique.instead), technique
        assert not technique.said.endswith("."), technique
        assert re.fullmatch(r"(\d{4}\.\d{5})?", technique.source), technique
        if technique.shown_by:
            file, _, name = technique.shown_by.partition("::")
            assert (ROOT / file).exists(), technique
            if name:
                assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), technique


def test_every_kind_of_adapter_is_in_the_table() -> None:
    said = " ".join(technique.said for technique in TECHNIQUES if technique.status == "works")
    assert [name for name in ADAPTERS.names if f"'{name}'" not in said] == []


def settings(section: str, key: str, value: str) -> FederationConfig:
    data = {
        "federation": {"name": "x", "rounds": 1},
        "task": {
            "kind": "text-classification", "text_columns": ["t"], "label_column": "l",
            "labels": ["a", "b"],
        },
        "sites": [{"name": f"site-{n}", "population": 10} for n in range(3)],
    }  # fmt: skip
    data[section] = {**data.get(section, {}), key: value}
    return convert_config(data, FederationConfig, source="x")


@pytest.mark.parametrize(
    "technique",
    [technique for technique in TECHNIQUES if technique.status != "works"],
    ids=lambda technique: technique.name,
)
def test_what_cannot_be_had_is_refused_in_words_by_all_its_names(technique) -> None:
    for name in (technique.name, *technique.aliases):
        for section, key in (
            ("adapter", "kind"),
            ("aggregation", "rule"),
            ("training", "server_optimizer"),
            ("privacy", "noise"),
        ):
            with pytest.raises(ConfigError) as refusal:
                settings(section, key, name)
            assert technique.said in str(refusal.value)
            assert technique.instead in refusal.value.hint


@pytest.mark.parametrize(
    ("section", "key", "value", "written"),
    [
        ("adapter", "kind", "LoRA", "adapter.kind = 'lora'"),
        ("adapter", "kind", "fedit", "adapter.kind = 'lora'"),
        ("adapter", "kind", "prefix-tuning", "adapter.kind = 'prefix'"),
        ("adapter", "kind", "rslora", "adapter.rank_stabilised = true"),
        ("training", "server_optimizer", "FedYogi", "'adam', 'yogi' or 'momentum'"),
        ("aggregation", "rule", "fedprox", "training.proximal = MU"),
    ],
)
def test_what_works_under_another_name_says_which(section, key, value, written) -> None:
    with pytest.raises(ConfigError) as refusal:
        settings(section, key, value)
    assert written in refusal.value.hint


@pytest.mark.parametrize("kind", [*ADAPTERS.names])
def test_names_that_are_settings_are_no_refusal(kind: str) -> None:
    assert settings("adapter", "kind", kind).adapter.kind == kind
    assert find_refusal({"adapter": {"kind": kind, "rank": -1}}) is None


def test_a_word_that_is_no_technique_is_an_ordinary_error() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.kind"):
        settings("adapter", "kind", "lorra")


def test_the_page_is_the_one_that_the_table_gives() -> None:
    page = (ROOT / "docs" / "survey.md").read_text(encoding="utf-8")
    assert page == survey_document(), (
        "python -m fmfl_secure.settings.techniques_document > docs/survey.md"
    )


@pytest.mark.parametrize(
    ("word", "among"),
    [("attacks", "Krum"), ("Personalisation", "personal heads"), ("privacy", "secure aggregation")],
)
def test_a_word_of_an_area_finds_its_techniques(word: str, among: str) -> None:
    done = CliRunner().invoke(app, ["techniques", word])
    assert done.exit_code == 0, done.output
    assert among in done.output
    assert "IA3" not in done.output
    assert techniques_in("and") == ()
