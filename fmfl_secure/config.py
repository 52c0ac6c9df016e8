"""The federation's settings (`federation.toml`), a site's own (`site.toml`), a custodian's.

All are read strictly: an unknown key, a wrong type or a value out of range is refused with its
place in the file. A federation's settings are public and the same for everyone; what a site
allows, and where its data lie, is in the site's file and never leaves it.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from fmfl_secure.errors import ConfigError

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9)]  # finite: JSON has no infinity
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
# Names become file names and appear in messages, reports and pages.
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^(sha256:[0-9a-f]{64})?\Z")]
# What the other parties are called: a site by such a name would be pinned in their place.
ROLE_NAMES = ("coordinator", "aggregator", "decryptor")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections: immutable, no unknown keys."""


class FederationSection(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[federation]`.

    Attributes:
        name: Name of the federation.
        rounds: Rounds to release, at least 1.
        min_sites: Smallest cohort whose sum may be opened, at least 3: with two, each learns
            the other's update.
        seed: Public seed of the adapter's initial values. Never drives sampling or noise.
    """

    name: Name
    rounds: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    min_sites: Annotated[int, msgspec.Meta(ge=3, le=1000)] = 3
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 1


class ModelSection(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[model]`.

    Attributes:
        base: `minilm`, or the path of a Hugging Face folder.
        digest: The digest it must have; `fmfl-secure plan` prints it. Empty accepts any here,
            and all parties of a run still have to agree.
        max_length: Tokens kept of a text.
    """

    base: NonEmpty = "minilm"
    digest: Digest = ""
    max_length: Annotated[int, msgspec.Meta(ge=2, le=8192)] = 128


class TaskSection(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[task]`.

    Attributes:
        kind: What to learn.
        text_columns: Names that the text column may have, the first one present is taken.
        label_column: Name of the label column.
        labels: All labels in order; never inferred from private data.
        unit: `record`, or a column that identifies the person a row belongs to.
        on_bad_row: Skip an unusable row, or have the site drop out, which tells the others that its
            data hold one. `fmfl-secure check` names the first either way.
    """

    kind: Literal["text-classification"] = "text-classification"
    text_columns: Annotated[tuple[NonEmpty, ...], msgspec.Meta(min_length=1)]
    label_column: NonEmpty
    labels: Annotated[tuple[NonEmpty, ...], msgspec.Meta(min_length=2, max_length=10_000)]
    unit: NonEmpty = "record"
    on_bad_row: Literal["error", "skip"] = "skip"


class AdapterSection(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[adapter]`.

    Attributes:
        kind: `ffa-lora`, `lora` or `head`.
        rank: Rank of the low-rank update.
        alpha: Scaling numerator.
        last_layers: Adapt so many of the last layers; 0 for all. Layers below the first adapter
            are computed once a record and kept.
        target_modules: Names of linear layers; empty takes the architecture's own.
    """

    kind: Literal["ffa-lora", "lora", "head"] = "ffa-lora"
    rank: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8
    alpha: Positive = 16.0
    last_layers: Annotated[int, msgspec.Meta(ge=0)] = 0
    target_modules: tuple[NonEmpty, ...] = ()


class PrivacySection(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[privacy]`.

    Attributes:
        mode: `local` differential privacy at each site, or `none` for baselines on data
            declared public.
        epsilon: What the whole run, its repeats included, may cost each site.
        delta: At most 1 / (10 x the largest site's population).
        sample_rate: Probability that a unit takes part in a step.
        steps_per_round: Optimizer steps between two uploads.
        max_grad_norm: Clipping bound C.
        repeats: Rounds that may be trained again after a crash, paid for in advance.
    """

    mode: Literal["local", "none"] = "local"
    epsilon: Positive = 8.0
    delta: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-5
    sample_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    steps_per_round: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 4
    max_grad_norm: Positive = 1.0
    repeats: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1


class TrainingSection(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[training]`: learning, and speed, which cannot touch privacy.

    Attributes:
        optimizer: At the site, fresh each round.
        learning_rate: Of the adapter.
        head_learning_rate: Of the head.
        physical_batch_size: Records in memory at once.
        cache_mib: Memory for outputs of frozen layers, per data set; 0 turns it off.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    head_learning_rate: Positive = 0.1
    physical_batch_size: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 64
    cache_mib: Annotated[int, msgspec.Meta(ge=0)] = 2048


class AggregationSection(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[aggregation]`.

    Attributes:
        suite: Public name of the encryption suite.
        bits: Bits a value is quantised to.
        custodians: Names of parties who must all agree before a sum opens; usually none.
    """

    suite: Literal["ckks-collective", "ckks-pk"] = "ckks-collective"
    bits: Annotated[int, msgspec.Meta(ge=2, le=24)] = 16
    custodians: Annotated[tuple[Name, ...], msgspec.Meta(max_length=16)] = ()


class EvaluationSection(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[evaluation]`: a held-out set that utility figures are computed on.

    Attributes:
        data: File; empty evaluates nothing.
        visibility: Must say `public`: figures from it appear in reports without noise.
    """

    data: str = ""
    visibility: Literal["public", "private"] = "private"


class SiteEntry(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[sites]]` entry: what everyone knows of a site.

    Attributes:
        name: Its name.
        population: Declared, rounded number of units it holds. Rates and denominators use it;
            the true count is never used and never leaves the site.
    """

    name: Name
    population: Annotated[int, msgspec.Meta(ge=1)]


class FederationConfig(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of `federation.toml`; see the sections."""

    federation: FederationSection
    model: ModelSection = ModelSection()
    task: TaskSection
    adapter: AdapterSection = AdapterSection()
    privacy: PrivacySection = PrivacySection()
    training: TrainingSection = TrainingSection()
    aggregation: AggregationSection = AggregationSection()
    evaluation: EvaluationSection = EvaluationSection()
    sites: tuple[SiteEntry, ...]

    def __post_init__(self) -> None:
        names = [site.name for site in self.sites]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"site {repeated[0]} is listed twice")
        reserved = sorted(set(names) & set(ROLE_NAMES))
        if reserved:
            raise ValueError(f"no site can be named {reserved[0]}: another party is")
        self._check_custodians(names)
        if len(names) < self.federation.min_sites:
            raise ValueError(
                f"{len(names)} sites are listed, fewer than min_sites = {self.federation.min_sites}"
            )
        if len(set(self.task.labels)) != len(self.task.labels):
            raise ValueError("task.labels has a label twice")
        largest = max(site.population for site in self.sites)
        if self.privacy.mode != "none" and self.privacy.delta > 1 / (10 * largest):
            raise ValueError(
                f"privacy.delta is {self.privacy.delta:g}, expected at most 1 / (10 x the largest "
                f"population) = {1 / (10 * largest):.3g}"
            )
        if self.evaluation.data and self.evaluation.visibility != "public":
            raise ValueError(
                "evaluation.data is not declared public: set evaluation.visibility = 'public' if "
                "exact figures computed on it may be published, or leave evaluation.data empty"
            )

    def _check_custodians(self, sites: list[str]) -> None:
        custodians = self.aggregation.custodians
        if len(set(custodians)) != len(custodians):
            raise ValueError("aggregation.custodians has a name twice")
        taken = sorted(set(custodians) & {*sites, *ROLE_NAMES})
        if taken:
            raise ValueError(f"no custodian can be named {taken[0]}: another party is")
        if custodians and self.aggregation.suite != "ckks-collective":
            raise ValueError("aggregation.custodians need aggregation.suite = 'ckks-collective'")

    @property
    def digest(self) -> str:
        """`sha256:` over the settings in canonical form."""
        return "sha256:" + hashlib.sha256(encode_config(self)).hexdigest()


class SiteData(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[data]` of `site.toml`.

    Attributes:
        path: The training file.
        visibility: `private`, or `public` for data anyone may see.
    """

    path: NonEmpty
    visibility: Literal["private", "public"] = "private"


class SiteBudget(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[budget]` of `site.toml`.

    Attributes:
        population: The custodian's name for the people in the data; the ledger belongs to it.
        ledger: Where the ledger is. Every data set about the same people names the same one.
    """

    population: NonEmpty
    ledger: NonEmpty = "ledger.sqlite"


class SitePolicy(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[policy]` of `site.toml`: what no federation can override.

    Attributes:
        min_sites: Smallest cohort this site takes part in, at least 3.
        max_epsilon_per_run: Largest epsilon one run may cost.
        base_model_digest: The only base model allowed; empty allows any.
    """

    min_sites: Annotated[int, msgspec.Meta(ge=3)] = 3
    max_epsilon_per_run: Annotated[float, msgspec.Meta(gt=0)] = math.inf
    base_model_digest: Digest = ""


class SiteConfig(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of `site.toml`; see the sections."""

    data: SiteData
    budget: SiteBudget
    policy: SitePolicy = SitePolicy()


class CustodianPolicy(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[policy]` of `custodian.toml`: what a custodian agrees to.

    Attributes:
        min_sites: Smallest cohort whose sum it lets open, at least 3.
        last_round: Of any run; no later round opens. 0 sets no limit.
    """

    min_sites: Annotated[int, msgspec.Meta(ge=3)] = 3
    last_round: Annotated[int, msgspec.Meta(ge=0)] = 0


class CustodianConfig(_Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of `custodian.toml`."""

    policy: CustodianPolicy = CustodianPolicy()


_Config = TypeVar("_Config", FederationConfig, SiteConfig, CustodianConfig)


def load_federation(path: Path) -> FederationConfig:
    """Read `federation.toml`.

    Raises:
        ConfigError: It is not there, not TOML, or a setting is unknown or wrong.
    """
    return _load(path, FederationConfig)


def load_site(path: Path) -> SiteConfig:
    """Read `site.toml`.

    Raises:
        ConfigError: It is not there, not TOML, or a setting is unknown or wrong.
    """
    return _load(path, SiteConfig)


def load_custodian(path: Path) -> CustodianConfig:
    """Read `custodian.toml`.

    Raises:
        ConfigError: It is not there, not TOML, or a setting is unknown or wrong.
    """
    return _load(path, CustodianConfig)


def _load(path: Path, kind: type[_Config]) -> _Config:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", hint="Start with: fmfl-secure init DIR"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    return convert_config(data, kind, source=str(path))


def convert_config(data: Any, kind: type[_Config], *, source: str) -> _Config:
    """Settings from parsed data, strictly.

    Raises:
        ConfigError: A setting is unknown, missing, of the wrong type or out of range.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{source}: {error}", hint="The path after $ is where in the file it stands."
        ) from error


def encode_config(config: FederationConfig) -> bytes:
    """Canonical JSON of the settings, every default written out."""
    return msgspec.json.encode(config, order="sorted")


def decode_config(data: bytes) -> FederationConfig:
    """Read what `encode_config` wrote.

    Raises:
        ConfigError: It is not.
    """
    try:
        return msgspec.json.decode(data, type=FederationConfig)
    except msgspec.DecodeError as error:
        raise ConfigError(f"stored settings cannot be read: {error}") from error
