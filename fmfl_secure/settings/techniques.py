"""Techniques of the literature: which work here, which are refused and why, which are missing.

The areas are those of the survey "Synergizing Foundation Models and Federated Learning"
(arXiv 2406.12844). One table decides what a refusal says of a name that somebody typed, what
`fmfl-secure techniques` shows and what `docs/survey.md` holds.

*Works* means: the admission gate passes, sites train it under encryption and a ledger, and the
adapter's files open again; the row names a test that shows it. *Refused* means that it cannot be
had under what is promised here, and why. *Not yet* says what is missing.

`settings.toml_file` calls `find_refusal` when settings do not fit; `cli.techniques` shows the
table and `settings.techniques_document` prints the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

Status = Literal["works", "refused", "not yet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """One row.

    Attributes:
        name: As its authors call it.
        area: Branch of the survey.
        status: Whether it can be had.
        said: Where it works, the setting; otherwise the reason, or what is missing.
        instead: What to use where it does not work.
        shown_by: Where it works, a test that shows it: `file::name`.
        source: Number on arXiv, where there is one.
        aliases: Other names that people type, besides the name itself.
    """

    name: str
    area: str
    status: Status
    said: str
    instead: str = ""
    shown_by: str = ""
    source: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """All names that it goes by, as `folded` has them."""
        return frozenset(folded(name) for name in (self.name, *self.aliases))

    @property
    def refusal(self) -> tuple[str, str]:
        """Why it cannot be had, and what to use, as sentences for an error and its hint."""
        why = "is not there yet" if self.status == "not yet" else "is refused"
        return f"{self.name} {why}: {self.said}", f"Use {self.instead}."


_NOT_A_SUM = "its result is no weighted sum of the sites' updates, and only a sum can be opened"
_LOOKS_AT_ONE = "it compares the sites' updates with each other, which nobody ever sees"
_COMPARES = "equal weights; a site's own clipping bounds what it can do"
_READS_DATA = "what it leaves out is read off a site's data, and tells of it"
_PARTS = "tests/integration/test_personal_parts.py"
_ATTACKS = "tests/integration/test_attacks.py"
_AROUND = (
    "tests/unit/test_models_around.py::test_three_sites_train_it_and_others_open_what_is_exported"
)
_MATRIX = "tests/integration/test_models_matrix.py::test_works"

_SELECTIVE = "Selective tuning"
_ADDITIVE = "Additive tuning"
_REPARAMETRISED = "Reparametrisation"
_MEANS = "Aggregation and optimisation"
_SMALLER = "Communication and computation"
_DISTILLED = "Distillation and split models"
_ORDERS = "Zeroth order and black boxes"
_PERSONAL = "Personalisation and heterogeneity"
_TASKS = "Tasks and domains"
_PRIVACY = "Privacy"
_ROBUST = "Robustness, attacks and ownership"


def _works(
    area: str, name: str, said: str, shown_by: str, source: str = "", *aliases: str
) -> Technique:
    return Technique(
        name=name,
        area=area,
        status="works",
        said=said,
        shown_by=shown_by,
        source=source,
        aliases=aliases,
    )


def _absent(
    status: Status, area: str, name: str, said: str, instead: str, source: str = "", *aliases: str
) -> Technique:
    return Technique(
        name=name,
        area=area,
        status=status,
        said=said,
        instead=instead,
        source=source,
        aliases=aliases,
    )


_refused = partial(_absent, "refused")
_missing = partial(_absent, "not yet")


TECHNIQUES: tuple[Technique, ...] = (
    # Selective tuning
    _works(_SELECTIVE, "BitFit", "adapter.kind = 'bitfit'", _MATRIX, "2106.10199", "bias-tuning"),
    _works(
        _SELECTIVE, "LayerNorm tuning", "adapter.kind = 'norms'", _MATRIX, "2312.11420",
        "ln-tuning", "layernorm", "norm-tuning",
    ),
    _works(
        _SELECTIVE, "linear probing", "adapter.kind = 'head'", _MATRIX, "", "probe",
        "linear-probe", "head-tuning",
    ),
    _works(
        _SELECTIVE, "full fine-tuning", "adapter.kind = 'full'", _MATRIX, "", "fft", "full-ft",
        "fedavg-full",
    ),
    _works(
        _SELECTIVE, "last layers only",
        "adapter.last_layers = N, with any kind: layers below run once a record",
        "tests/unit/test_models_prefix.py::test_the_cache_changes_neither_logits_nor_gradients", "",
        "partial-tuning", "top-layers",
    ),
    _refused(
        _SELECTIVE, "data-driven sparse masks", _READS_DATA,
        "bitfit or norms, whose choice is public", "", "sparse-mask", "sparse-masks", "fish-mask",
        "diff-pruning", "lottery-ticket",
    ),
    _works(
        _SELECTIVE, "layer dropout",
        "adapter.layer_groups = N, of the LoRA family: a round trains every Nth layer, in turns",
        "tests/unit/test_models_rounds.py::test_three_sites_train_layers_in_turns", "2503.10217",
        "fed-dropout", "droppeft", "layer-drop", "federated-dropout",
    ),
    # Additive tuning
    _works(
        _ADDITIVE, "bottleneck adapters",
        "adapter.kind = 'bottleneck': one after each feed-forward block, of width adapter.rank",
        _AROUND, "1902.00751", "houlsby", "pfeiffer", "adapter", "adapters", "fedadapter",
    ),
    _missing(
        _ADDITIVE, "adapters beside a block, and products as their weights",
        "bottlenecks that read what a block reads, or whose matrices are Kronecker products",
        "bottleneck, or lokr", "2110.04366", "parallel-adapter", "compacter", "mam-adapter",
    ),
    _works(_ADDITIVE, "IA3", "adapter.kind = 'ia3'", _MATRIX, "2205.05638", "(ia)3"),
    _works(
        _ADDITIVE, "prompt tuning", "adapter.kind = 'prompt'", _MATRIX, "2104.08691",
        "soft-prompt", "fedprompt", "prompt-tuning",
    ),
    _works(
        _ADDITIVE, "prefix tuning", "adapter.kind = 'prefix'", _MATRIX, "2101.00190",
        "prefix-tuning", "p-tuning-v2", "ptuning-v2",
    ),
    _works(
        _ADDITIVE, "P-tuning", "adapter.kind = 'p-tuning': a small network writes the prompt",
        _AROUND, "2103.10385", "ptuning", "prompt-encoder",
    ),
    _missing(
        _ADDITIVE, "visual prompt tuning", "virtual tokens in front of an image's patches",
        "lora or norms on a vision model", "2203.12119", "vpt", "visual-prompt",
    ),
    _missing(
        _ADDITIVE, "context optimisation of two towers",
        "class names as prompts with trained words, compared with images",
        "kind = 'image-text-classification', or image-text with lora", "2109.01134", "coop",
        "context-optimisation", "context-optimization",
        "promptfl", "cocoop", "fedotp", "pfedprompt", "fedtpg",
    ),
    # Reparametrisation
    _works(_REPARAMETRISED, "LoRA", "adapter.kind = 'lora'", _MATRIX, "2106.09685", "fedit"),
    _works(
        _REPARAMETRISED, "rank-stabilised LoRA", "adapter.rank_stabilised = true",
        "tests/unit/test_models_kinds.py::test_rank_stabilised_scaling_divides_by_the_root_of_the_rank",
        "2312.03732", "rslora",
        "rs-lora",
    ),
    _works(
        _REPARAMETRISED, "FFA-LoRA", "adapter.kind = 'ffa-lora'", _MATRIX, "2403.12313",
        "ffalora", "lora-fa",
    ),
    _works(_REPARAMETRISED, "RoLoRA", "adapter.kind = 'rolora'", _MATRIX, "2502.01755", "ro-lora"),
    _works(
        _REPARAMETRISED, "HetLoRA", "rank = N of an entry of [[sites]]",
        "tests/unit/test_models_ranks.py::test_what_is_beyond_a_sites_rank_gets_no_gradient",
        "2401.06432", "het-lora", "heterogeneous-ranks",
    ),
    _works(
        _REPARAMETRISED, "Fed-SB and LoRA-XS",
        "adapter.kind = 'lora-xs': factors of the base weight, and cores that average exactly",
        _MATRIX, "2502.15436", "fed-sb", "fedsb", "lora-xs", "lora-sb",
    ),
    _works(
        _REPARAMETRISED, "FedSA-LoRA",
        "adapter.kind = 'lora' and adapter.personal = ['lora_B']; ['lora_A'] is its mirror",
        f"{_PARTS}::test_what_stays_is_in_no_upload_and_nothing_of_it_reaches_the_server",
        "2410.01463", "fedsa", "fedsa-lora", "personal-matrices",
    ),
    _missing(
        _REPARAMETRISED, "LoRA from singular vectors",
        "trained matrices that start from the base weight's own, the same at all sites",
        "lora-xs, whose fixed factors these are", "2404.18848", "federa", "pissa",
    ),
    _works(
        _REPARAMETRISED, "LoKr", "adapter.kind = 'lokr': a Kronecker product beside each weight",
        _AROUND, "2309.14859", "kronecker", "krona", "kronecker-products",
    ),
    _refused(
        _REPARAMETRISED, "Hadamard products",
        "a record's gradient of their factors goes through one as large as the weight, which is "
        "not kept for every record of a batch",
        "lokr, or lora-xs, with as few trained values", "2108.06098", "loha", "fedpara",
        "hadamard",
    ),
    _missing(
        _REPARAMETRISED, "SLoRA", "a first stage of sparse full tuning, and a start taken from it",
        "lora, or a warm start", "2308.06522", "slora",
    ),
    _missing(
        _REPARAMETRISED, "FedSVD",
        "a factorisation of the mean that all parties compute to the same bit",
        "rolora, which learns both matrices and averages exactly", "", "fed-svd",
    ),
    _refused(
        _REPARAMETRISED, "FlexLoRA",
        f"it sums the sites' products B A at full size and factorises them: {_NOT_A_SUM}, at the "
        "size of an adapter", "rolora or ffa-lora, whose averages are exact", "2402.11505",
        "flexlora",
    ),
    _refused(
        _REPARAMETRISED, "FLoRA", f"FLoRA stacks the sites' matrices: {_NOT_A_SUM}",
        "rolora or ffa-lora, whose averages are exact", "2409.05976", "flora",
    ),
    _refused(
        _REPARAMETRISED, "FedEx-LoRA",
        f"it needs every site's product B A beside the mean of the parts: {_NOT_A_SUM}",
        "rolora or ffa-lora, whose averages are exact", "2410.09432", "fedex", "fedex-lora",
    ),
    _works(
        _REPARAMETRISED, "DoRA", "adapter.kind = 'dora': its lengths are a layer of their own here",
        _AROUND, "2402.09353",
    ),
    _refused(
        _REPARAMETRISED, "AdaLoRA",
        "AdaLoRA drops ranks by what it reads off a site's data: layouts would tell of it",
        "lora, with a public rank for each site if need be", "2303.10512", "adalora",
    ),
    _works(
        _REPARAMETRISED, "VeRA", "adapter.kind = 'vera': its vectors are layers of their own here",
        _AROUND, "2310.11454",
    ),
    # Aggregation and optimisation
    _works(
        _MEANS, "FedAvg", "training.server_optimizer = 'average'",
        "tests/unit/test_server_optimizers.py::test_same_as_torch", "1602.05629", "fedavg",
        "mean",
    ),
    _works(
        _MEANS, "FedAdam, FedYogi and FedAvgM",
        "training.server_optimizer = 'adam', 'yogi' or 'momentum'",
        "tests/unit/test_server_optimizers.py::test_same_as_torch", "2003.00295", "fedadam",
        "fedyogi", "fedavgm", "fedopt",
    ),
    _works(
        _MEANS, "FedProx", "training.proximal = MU",
        "tests/unit/test_local_training.py::test_fedprox_pulls_a_site_s_steps_back_to_where_they_began",
        "1812.06127",
        "fedprox",
    ),
    _refused(
        _MEANS, "SCAFFOLD",
        "its control variates are gradients of a site's data that are not charged",
        "equal weights", "1910.06378", "scaffold",
    ),
    _refused(
        _MEANS, "FedNova",
        "it divides by how many steps each site took, which the plan fixes to the same number for "
        "all: with that it is FedAvg",
        "training.server_optimizer = 'average'", "2007.07481", "fednova",
    ),
    # Communication and computation
    _works(
        _SMALLER, "quantised updates", "aggregation.bits = 8 or 16",
        "tests/property/test_aggregation_properties.py::test_quantization_stays_on_the_grid_and_within_a_step",
        "", "quantisation",
        "quantization",
    ),
    _refused(
        _SMALLER, "sparsified updates", f"which values are largest is data: {_READS_DATA}",
        "a smaller adapter, or aggregation.bits = 8", "1712.01887", "top-k", "topk",
        "sparsification",
    ),
    _works(
        _SMALLER, "frozen weights at half precision", "model.dtype = 'bfloat16'",
        "tests/unit/test_models_half_weights.py::test_all_arithmetic_is_that_of_float32_on_the_rounded_weights",
        "",
        "half-precision", "mixed-precision",
    ),
    _works(
        _SMALLER, "quantised base models",
        "model.dtype = 'blocks': frozen weights of 8 or about 4 bits, and exact records' gradients",
        "tests/unit/test_models_blocks.py::test_every_adapter_on_blocks_passes_the_gate",
        "2305.14314", "qlora", "4bit", "8bit",
    ),
    # Distillation and split models
    _missing(
        _DISTILLED, "distillation from answers on public data",
        "answers of the sites to public examples, as charged sums", "a shared adapter",
        "1910.03581", "distillation", "knowledge-distillation", "fedmd", "feddf", "fedkd",
        "mega", "fedmkt", "selective-fd",
    ),
    _refused(
        _DISTILLED, "split learning",
        "activations of single records would leave the site, which no budget pays for",
        "adapter.last_layers, where a site keeps all of its layers", "1812.00564", "split-learning",
        "splitfed", "fedbert", "split-lora", "splitlora",
    ),
    _missing(
        _DISTILLED, "proxy and emulated models",
        "a smaller model in place of the base at the sites", "a smaller base model", "2302.04870",
        "offsite-tuning", "fedot", "fedbiot", "emulator",
    ),
    # Zeroth order and black boxes
    _missing(
        _ORDERS, "zeroth-order tuning",
        "a round that uploads slopes along public directions, clipped and noised for each record. "
        "Measured with exact slopes at epsilon 1 (`benchmarks/zeroth_order.py`): with one "
        "direction a step 9 points below gradients, with 16 level with them",
        "ffa-lora or lora-xs, with few trained values", "2312.06353", "zeroth-order",
        "forward-gradients", "fedmezo", "fedkseed", "mezo", "dp-zo",
        "fwdllm", "forward-gradient", "fedzo", "baffle",
    ),
    _refused(
        _ORDERS, "black-box prompt tuning",
        "what every tried prompt scores on a site's records is a release of its own, charged like "
        "a step; and sites hold the model, whose gradient costs no more",
        "prompt, or p-tuning", "2310.01467", "black-box-tuning", "bbt", "fed-bbpt", "fedbpt",
        "black-box",
    ),
    # Personalisation and heterogeneity
    _works(
        _PERSONAL, "personal heads", "adapter.personal = ['head']",
        "tests/integration/test_personal_heads.py::test_nothing_of_a_head_is_uploaded_or_saved_for_all",
        "2102.07078", "fedrep", "fedper", "personal-head",
    ),
    _works(
        _PERSONAL, "personal norms", "adapter.kind = 'norms' and adapter.personal = ['encoder']",
        f"{_PARTS}::test_any_named_part_can_stay", "2102.07623", "fedbn",
    ),
    _works(
        _PERSONAL, "sites of different domains",
        "adapter.personal: what differs by domain stays at its site, the rest is learned together",
        f"{_PARTS}::test_the_adapter_is_used_with_a_site_s_own_parts_and_not_without", "",
        "multi-domain", "cross-domain", "domain-adaptation", "feature-shift",
    ),
    _refused(
        _PERSONAL, "clustered federations",
        "the cluster that fits a site best is read off its data, and tells of it",
        "a federation for each group that is known beforehand", "2006.04088", "ifca", "cfl",
        "clustering", "fedclust",
    ),
    _missing(
        _PERSONAL, "mixtures of personal and shared experts",
        "a router that every record passes alone", "adapter.personal", "",
        "pfedmoe", "fedmoe", "moe", "feddat", "fdlora",
    ),
    # Tasks and domains
    _works(
        _TASKS, "instruction tuning",
        "[task] kind = 'causal-lm' with a template, or with chat = true",
        "tests/unit/test_tasks_causal_lm.py::test_only_the_response_is_learned", "2305.05644",
        "instruction-tuning", "text-generation", "openfedllm", "sft",
    ),
    _refused(
        _TASKS, "packing",
        "several records in one row have one gradient together, and none of them its own",
        "model.max_length near the length of most records; rows are padded to the longest of a "
        "batch only", "", "pack", "sample packing", "concatenate",
    ),
    _works(
        _TASKS, "direct preference optimisation",
        "[task] kind = 'preference': pairs of answers beside the model before training",
        "tests/integration/test_preference_run.py"
        "::test_three_sites_learn_what_was_chosen_and_others_open_it", "2305.18290",
        "dpo", "preference", "preference optimisation", "preference optimization", "feddpo",
    ),
    _missing(
        _TASKS, "reinforcement learning from feedback",
        "a reward model, and answers drawn and scored in training", "kind = 'preference'",
        "2203.02155", "rlhf", "ppo", "fedrlhf",
    ),
    _missing(
        _TASKS, "preference without pairs",
        "answers that are good or bad each by itself, and a public number in place of the batch's "
        "mean that its loss compares them with",
        "kind = 'preference', of pairs", "2402.01306", "kto", "fedkto",
    ),
    _works(
        _TASKS, "entity recognition", "[task] kind = 'token-classification'", _MATRIX, "", "ner",
        "fedner",
    ),
    _works(
        _TASKS, "image classification", "[task] kind = 'image-classification'", _MATRIX, "",
        "vision",
    ),
    _works(
        _TASKS, "image-text models", "[task] kind = 'image-text'", _MATRIX, "2302.13485", "clip",
        "fedclip", "vision-language",
    ),
    _refused(
        _TASKS, "contrastive loss over a batch",
        "every pair of a batch is in every other pair's loss, and no record's gradient is its own",
        "task.loss = 'sigmoid' with public anchors, or 'cosine'", "2103.00020", "clip-loss",
        "ntxent",
    ),
    _works(
        _TASKS, "multilingual models",
        "an encoder such as xlm-roberta or camembert as model.base", _MATRIX, "1911.02116",
        "multilingual", "fedlfc",
    ),
    _missing(
        _TASKS, "speech", "a reader of sound and a task on it", "texts that were transcribed",
        "", "asr", "audio", "whisper",
    ),
    _missing(
        _TASKS, "recommendation", "sequences of items as records, and ranking",
        "text-classification of what describes an item", "", "recsys", "fedrec",
    ),
    _missing(
        _TASKS, "image generation", "a diffusion model's loss, with noise drawn for each record",
        "image models of the kinds above", "", "generation", "diffusion", "fedtabdiff",
    ),
    # Privacy
    _works(
        _PRIVACY, "DP-SGD at every site", "privacy.noise = 'local'",
        "tests/statistical/test_released_noise.py", "1607.00133", "dp-sgd", "dp-lora",
        "differential-privacy", "local-dp", "dp-fedavg",
    ),
    _works(
        _PRIVACY, "distributed noise under secure aggregation", "privacy.noise = 'distributed'",
        "tests/integration/test_distributed_noise.py", "2102.06387", "ddg", "ddp", "skellam",
        "distributed-dp",
    ),
    _works(
        _PRIVACY, "protection of whole persons", "task.unit = COLUMN",
        "tests/unit/test_privacy_training.py", "", "user-level-dp", "user-level", "group-privacy",
    ),
    _works(
        _PRIVACY, "homomorphic encryption", "[aggregation] suite = 'ckks-collective' or 'ckks-pk'",
        "tests/attacks", "", "ckks", "he", "fhe", "paillier",
    ),
    _works(
        _PRIVACY, "secure aggregation", "always on: masks under the encryption, one sum a round",
        "tests/attacks", "1611.04482", "secagg", "secagg+", "mpc",
    ),
    _missing(
        _PRIVACY, "trusted hardware", "attestation of the server's code",
        "custodians: parties who must all agree to a sum", "", "tee", "sgx",
        "confidential-computing",
    ),
    _missing(
        _PRIVACY, "private synthetic text", "generation under a budget, and its evaluation",
        "a private adapter of a language model", "2306.01684", "synthetic-text", "dp-synthetic",
        "aug-pe",
    ),
    # Robustness, attacks and ownership
    _refused(
        _ROBUST, "Krum", f"Krum picks the update nearest to others: {_LOOKS_AT_ONE}", _COMPARES,
        "1703.02757", "krum", "multi-krum", "bulyan",
    ),
    _refused(
        _ROBUST, "trimmed mean", f"a trimmed mean leaves out extremes: {_LOOKS_AT_ONE}", _COMPARES,
        "1803.01498", "trimmed-mean",
    ),
    _refused(
        _ROBUST, "median", f"a median orders the updates: {_LOOKS_AT_ONE}", _COMPARES, "1803.01498",
        "geometric-median", "rfa",
    ),
    _refused(
        _ROBUST, "FLTrust", f"it weighs every update by its likeness to a trusted one: "
        f"{_LOOKS_AT_ONE}", _COMPARES, "2012.13995", "fltrust",
    ),
    _refused(
        _ROBUST, "detection of poisoned updates",
        f"a poisoned update is an unlikely one: {_LOOKS_AT_ONE}",
        _COMPARES, "1807.00459", "poisoning", "backdoor", "byzantine", "model-poisoning", "flame",
        "foolsgold",
    ),
    _works(
        _ROBUST, "gradient inversion",
        "an attack that fails here: no single update is seen, and a sum has its noise",
        "tests/attacks/test_aggregation_gradient_inversion.py"
        "::test_what_an_aggregator_sees_is_no_better_than_guessing", "2003.14053",
        "gradient-leakage", "reconstruction", "dlg",
    ),
    _works(
        _ROBUST, "bounds on single updates", "federation.norm_check = true, with local noise",
        "tests/integration/test_norm_check.py"
        "::test_a_site_that_sends_too_much_is_named_and_left_out", "1911.07963",
        "norm-bounding", "norm-clipping", "rofl",
    ),
    _works(
        _ROBUST, "audit by canaries", "fmfl-secure audit",
        "tests/integration/test_audit.py", "2305.08846", "canary", "one-run-audit",
    ),
    _works(
        _ROBUST, "membership inference on the finished adapter",
        "fmfl-secure attack: by losses and by reference models, beside what epsilon allows",
        f"{_ATTACKS}::test_an_adapter_that_overfits_is_flagged_and_a_private_one_is_not",
        "2112.03570", "lira", "mia", "membership-inference", "shadow-models",
    ),
    _works(
        _ROBUST, "extraction of planted secrets", "fmfl-secure attack --secrets FILE",
        f"{_ATTACKS}::test_a_secret_that_was_learned_by_heart_is_exposed", "1802.08232",
        "exposure", "secret-sharer", "data-extraction", "memorisation", "memorization",
    ),
    _works(
        _ROBUST, "inference of a record's site", "fmfl-secure attack, of several sites",
        f"{_ATTACKS}::test_a_site_that_the_adapter_fits_otherwise_is_told_and_alike_ones_are_not",
        "2109.05659", "source-inference", "site-inference",
    ),
    _refused(
        _ROBUST, "unlearning",
        "it goes back over a site's own past updates, which nobody ever saw alone; what one record "
        "left in an adapter is bounded by epsilon already",
        "a new run without it, where more than that is asked", "2012.13891", "unlearning",
        "federaser", "forgetting",
    ),
    _refused(
        _ROBUST, "watermarks of single sites",
        "a mark that only one site's update carries is what bounds on a site are to prevent",
        "signed reports and adapters, which say who made them", "2109.13236", "watermark",
        "watermarks",
        "waffle", "fedipr",
    ),
)  # fmt: skip


INFO_NCE = (
    "InfoNCE under privacy of a record: every pair of a batch is in every other pair's loss, and "
    "leaving one out moved the clipped sum by 1.90 times the bound that the noise is scaled to"
)
INFO_NCE_INSTEAD = "task.loss = 'sigmoid' with public anchors, or 'cosine'"


def folded(name: str) -> str:
    """A technique's name with nothing left of case, spaces and signs."""
    return re.sub(r"[^a-z0-9+]+", "", name.lower())


def _by_name() -> dict[str, Technique]:
    found: dict[str, Technique] = {}
    for technique in TECHNIQUES:
        for name in technique.names:
            if found.setdefault(name, technique) is not technique:
                raise ValueError(f"two techniques go by {name!r}")
    return found


_NAMES: Mapping[str, Technique] = MappingProxyType(_by_name())


def technique_of(name: str) -> Technique | None:
    """The technique that somebody means, if one is known by that name."""
    return _NAMES.get(folded(name))


def techniques_in(name: str) -> tuple[Technique, ...]:
    """The techniques of an area that somebody means by a word of its name, as `attacks`."""
    word = folded(name).rstrip("s")
    return tuple(
        technique
        for technique in TECHNIQUES
        if len(word) > 3 and word in {folded(each).rstrip("s") for each in technique.area.split()}
    )


def find_refusal(data: Any) -> tuple[str, str] | None:
    """Explains settings that are not valid, if they name a technique.

    Args:
        data: The settings as parsed, which validation has refused.

    Returns:
        What was asked for and why not, and what to use instead; None where no technique is known
        by any name in them. One that works here under another name is said to.
    """
    for section, key, value in _texts(data):
        technique = technique_of(value)
        turned_on = value == key
        if technique is None or f"{key} = {value!r}" in technique.said:
            continue  # as it is called here
        if technique.status == "works" and turned_on:
            continue
        shown = f"{section}.{key} = {'true' if turned_on else repr(value)}"
        if technique.status == "works":
            return f"{shown} is not its name here", f"Write {technique.said}."
        what, instead = technique.refusal
        return f"{shown}: {what}", instead
    return None


def _texts(data: Any) -> Iterator[tuple[str, str, str]]:
    """Settings that may name a technique: section, key and value.

    A setting that is true names one by its key, such as `packing = true`, and has it for a value.
    """
    if not isinstance(data, Mapping):
        return
    for section, content in data.items():
        if isinstance(content, Mapping):
            for key, value in content.items():
                if isinstance(value, str) and key not in {"name", "base", "data"}:
                    yield str(section), str(key), value
                elif value is True:
                    yield str(section), str(key), str(key)
