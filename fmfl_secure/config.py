"""The federation's settings (`federation.toml`), a site's own (`site.toml`), a custodian's.

All are read strictly: an unknown key, a wrong type or a value out of range is refused with its
place in the file. A federation's settings are public and the same for everyone; what a site
allows, and where its data lie, is in the site's file and never leaves it.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from fmfl_secure.errors import ConfigError
from fmfl_secure.refused_settings import INFO_NCE, INFO_NCE_INSTEAD, find_refusal
from fmfl_secure.server_optimizers import ServerOptimizerName
from fmfl_secure.settings import (
    LOW_RANK_KINDS,
    AdapterKind,
    Device,
    Digest,
    Name,
    NonEmpty,
    Positive,
    Section,
    WeightType,
)
from fmfl_secure.task_settings import ImageTextSection, TaskSection
from privacy import Dataset, DatasetCap, SitePolicy
from privacy.storage import is_url, without_secrets

# What the other parties are called: a site by such a name would be pinned in their place.
ROLE_NAMES = ("coordinator", "aggregator", "decryptor")


SMALLEST_WEIGHT = 1 / 8  # beyond that, a small site would train and hardly be heard


class FederationSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[federation]`.

    Attributes:
        name: Name of the federation.
        rounds: Rounds to release, at least 1.
        min_sites: Smallest cohort whose sum may be opened, at least 3: with two, each learns
            the other's update.
        seed: Public seed of the adapter's initial values. Never drives sampling or noise.
        weights: `equal`, or `population`: 1, 1/2, 1/4 or 1/8 by the declared population over the
            largest, rounded down. Coarse and public, so that a weight tells nothing of data.
    """

    name: Name
    rounds: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    min_sites: Annotated[int, msgspec.Meta(ge=3, le=1000)] = 3
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 1
    weights: Literal["equal", "population"] = "equal"


class ModelSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[model]`.

    Attributes:
        base: `minilm`, or the path of a Hugging Face folder.
        digest: The digest it must have; `fmfl-secure plan` prints it. Empty accepts any here,
            and all parties of a run still have to agree.
        dtype: What its frozen weights are kept in: `float32`, or `bfloat16` for half the memory.
            What is trained, and all arithmetic, is float32.
        max_length: Tokens kept of a text.
    """

    base: NonEmpty = "minilm"
    digest: Digest = ""
    dtype: WeightType = "float32"
    max_length: Annotated[int, msgspec.Meta(ge=2, le=8192)] = 128


class AdapterSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[adapter]`; docs/models.md says which kind goes with which model and task.

    Attributes:
        kind: `ffa-lora`, `lora`, `rolora`, `ia3`, `prompt`, `prefix`, `bitfit`, `norms`, `head` or
            `full`.
        rank: Rank of the low-rank update: of all sites, or of those that have none of their own.
        alpha: Scaling numerator.
        rank_stabilised: Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA).
        last_layers: Adapt so many of the last layers; 0 for all. Layers below the first adapter
            are computed once a record and kept.
        target_modules: Names of linear layers; empty takes the architecture's own.
        virtual_tokens: Length of a prompt or prefix.
        personal_head: Every site keeps its own head: trained under the same clipping and noise as
            the adapter, never uploaded, and left in the site's folder at the end.
    """

    kind: AdapterKind = "ffa-lora"
    rank: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8
    alpha: Positive = 16.0
    rank_stabilised: bool = False
    last_layers: Annotated[int, msgspec.Meta(ge=0)] = 0
    target_modules: tuple[NonEmpty, ...] = ()
    virtual_tokens: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    personal_head: bool = False


class PrivacySection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[privacy]`.

    Attributes:
        noise: `local`: every site's update is private by itself. `distributed`: each site adds a
            share of the noise, and the sum is private; one step a round
            (`docs/distributed-noise.md`). `none`: baselines on data declared public.
        epsilon: What the whole run, its repeats included, may cost each site.
        delta: At most 1 / (10 x the largest site's population).
        sample_rate: Probability that a unit takes part in a step.
        steps_per_round: Optimizer steps between two uploads.
        max_grad_norm: Clipping bound C.
        repeats: Rounds that may be trained again after a crash, paid for in advance.
        colluding_sites: With distributed noise, how many sites of a cohort may leave their noise
            out, or tell it, before epsilon is lost. With 0, every site that takes part sees more
            than epsilon allows others: it knows its own share.
        insider_epsilon: With distributed noise, what the run may cost a site against all other
            sites together, which know their own shares; `fmfl-secure plan` says what it needs.
        max_records_per_unit: Most records of one unit that a private round trains on, drawn at
            random for each unit alone; 0 takes all. A unit is clipped once either way: this
            bounds how long one takes.
    """

    noise: Literal["local", "distributed", "none"] = "local"
    epsilon: Positive = 8.0
    delta: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-5
    sample_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    steps_per_round: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 4
    max_grad_norm: Positive = 1.0
    repeats: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    colluding_sites: Annotated[int, msgspec.Meta(ge=0, le=999)] = 1
    insider_epsilon: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    max_records_per_unit: Annotated[int, msgspec.Meta(ge=0)] = 0


class TrainingSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[training]`: learning, and speed, which cannot touch privacy.

    Attributes:
        optimizer: At the site, fresh each round; with distributed noise at the server.
        learning_rate: Of the adapter.
        head_learning_rate: Of the head.
        proximal: FedProx's mu: pull of a site's steps towards what the round started from; 0 for
            none. It depends on weights alone and follows the noise, so it costs no privacy.
        server_optimizer: What the released mean update is applied with: `average` (FedAvg),
            `momentum` (FedAvgM), `adam` (FedAdam) or `yogi` (FedYogi). Not with distributed noise.
        server_learning_rate: Of the server optimizer.
        physical_batch_size: Records in memory at once.
        cache_mib: Memory for outputs of frozen layers, per data set; 0 turns it off.
        checkpointing: Compute the activations of adapted layers twice instead of keeping them:
            less memory, a third more time.
        device: `cpu`, `cuda`, or `auto`: each party's own CUDA device where it has one.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Positive = 1e-3
    head_learning_rate: Positive = 0.1
    proximal: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    server_optimizer: ServerOptimizerName = "average"
    server_learning_rate: Positive = 1.0
    physical_batch_size: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 64
    cache_mib: Annotated[int, msgspec.Meta(ge=0)] = 2048
    checkpointing: bool = False
    device: Device = "auto"


class AggregationSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[aggregation]`.

    Attributes:
        suite: Public name of the encryption suite.
        bits: Bits a value is quantised to.
        custodians: Names of parties who must all agree before a sum opens; usually none.
    """

    suite: Literal["ckks-collective", "ckks-pk"] = "ckks-collective"
    bits: Annotated[int, msgspec.Meta(ge=2, le=24)] = 16
    custodians: Annotated[tuple[Name, ...], msgspec.Meta(max_length=16)] = ()


class EvaluationSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[evaluation]`: a held-out set that utility figures are computed on.

    Attributes:
        data: File; empty evaluates nothing.
        visibility: Must say `public`: figures from it appear in reports without noise.
    """

    data: str = ""
    visibility: Literal["public", "private"] = "private"


class SiteEntry(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[sites]]` entry: what everyone knows of a site.

    Attributes:
        name: Its name.
        population: Declared, rounded number of units it holds. Rates and denominators use it;
            the true count is never used and never leaves the site.
        rank: Rank of this site's low-rank adapter, at most the adapter's; 0 for that one.
    """

    name: Name
    population: Annotated[int, msgspec.Meta(ge=1)]
    rank: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0


class FederationConfig(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
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
        if self.sites_by_weight(names) < self.federation.min_sites:
            raise ValueError(
                f"weighted by population, the {len(names)} sites are worth "
                f"{self.sites_by_weight(names):.2f} equal ones, fewer than min_sites = "
                f"{self.federation.min_sites}: a heavy site would be heard through the sum"
            )
        if (
            isinstance(self.task, ImageTextSection)
            and self.task.loss == "info-nce"
            and self.privacy.noise != "none"
        ):
            raise ValueError(f"task.loss: {INFO_NCE}. Use {INFO_NCE_INSTEAD}")
        self._check_ranks()
        if self.adapter.personal_head:
            self._check_personal_head()
        largest = max(site.population for site in self.sites)
        if self.privacy.noise != "none" and self.privacy.delta > 1 / (10 * largest):
            raise ValueError(
                f"privacy.delta is {self.privacy.delta:g}, expected at most 1 / (10 x the largest "
                f"population) = {1 / (10 * largest):.3g}"
            )
        if self.privacy.noise == "distributed":
            self._check_distributed()
        if self.evaluation.data and self.evaluation.visibility != "public":
            raise ValueError(
                "evaluation.data is not declared public: set evaluation.visibility = 'public' if "
                "exact figures computed on it may be published, or leave evaluation.data empty"
            )

    def _check_distributed(self) -> None:
        if self.privacy.steps_per_round != 1:
            raise ValueError(
                f"privacy.steps_per_round is {self.privacy.steps_per_round}, expected 1: with "
                "distributed noise every step is a round"
            )
        if self.privacy.colluding_sites >= self.federation.min_sites:
            raise ValueError(
                f"privacy.colluding_sites is {self.privacy.colluding_sites}, expected fewer than "
                f"min_sites = {self.federation.min_sites}"
            )
        if (self.training.server_optimizer, self.training.server_learning_rate) != ("average", 1.0):
            raise ValueError(
                "training.server_optimizer is for local noise: with distributed noise "
                "training.optimizer and the learning rates are the server's"
            )

        if self.training.proximal:
            raise ValueError(
                "training.proximal is for local noise: with distributed noise a round is one step"
            )
        if self.federation.weights != "equal":
            raise ValueError(
                "federation.weights is for local noise: with distributed noise every unit weighs "
                "the same, whichever site it is at"
            )

    def _check_personal_head(self) -> None:
        if self.adapter.kind == "head":
            raise ValueError("adapter.personal_head keeps all that adapter 'head' would upload")
        if self.privacy.noise == "distributed":
            raise ValueError(
                "adapter.personal_head needs local noise: a share of noise does not protect what "
                "a site keeps, and later updates depend on it"
            )
        if self.evaluation.data:
            raise ValueError(
                "evaluation.data is scored with the global adapter, and adapter.personal_head "
                "leaves it without a head: evaluate each site's with --head after the run"
            )

    def _check_ranks(self) -> None:
        for site in self.sites:
            if not site.rank:
                continue
            if self.adapter.kind not in LOW_RANK_KINDS:
                raise ValueError(f"{site.name} has a rank, and adapter {self.adapter.kind!r} none")
            if site.rank > self.adapter.rank:
                raise ValueError(
                    f"{site.name} has rank {site.rank}, above adapter.rank = {self.adapter.rank}: "
                    "updates are summed in one common layout, which smaller ranks fill with zeros"
                )

    def rank_of(self, name: str) -> int:
        """Rank of a site's low-rank adapter."""
        return next(s.rank for s in self.sites if s.name == name) or self.adapter.rank

    def weight_of(self, name: str) -> float:
        """A site's weight in the mean, over the largest, in (0, 1]: a public power of two.

        Raises:
            ConfigError: It is not among the sites.
        """
        if self.federation.weights == "equal":
            return 1.0
        populations = {site.name: site.population for site in self.sites}
        if name not in populations:
            raise ConfigError(f"{name} is not among the sites of these settings")
        share = populations[name] / max(populations.values())
        return max(2.0 ** math.floor(math.log2(share)), SMALLEST_WEIGHT)

    def sites_by_weight(self, names: Iterable[str]) -> float:
        """How many equal sites these are worth, (sum w)^2 / sum w^2; 0 of none."""
        weights = [self.weight_of(name) for name in names]
        return sum(weights) ** 2 / sum(w * w for w in weights) if weights else 0.0

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


class SiteData(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[data]` of `site.toml`.

    Attributes:
        path: The training file.
        name: The custodian's own name for this data set. The ledger notes it with every run;
            empty counts as any of them.
        visibility: `private`, or `public` for data anyone may see.
    """

    path: NonEmpty
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    visibility: Literal["private", "public"] = "private"


class SiteBudget(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[budget]` of `site.toml`.

    Attributes:
        population: The custodian's name for the people in the data; the ledger belongs to it.
        ledger: Where the ledger is: a file, or the URL of a PostgreSQL database. Every data set
            about the same people names the same one.
        anchors: File or folder of the data-protection officer's anchors, which the ledger has to
            hold before anything is reserved; empty for none.
    """

    population: NonEmpty
    ledger: NonEmpty = "ledger.sqlite"
    anchors: str = ""

    def __repr__(self) -> str:
        ledger = without_secrets(self.ledger)
        return f"SiteBudget({self.population!r}, ledger={ledger!r}, anchors={self.anchors!r})"

    def ledger_from(self, folder: Path) -> Path | str:
        """Where the ledger is, seen from a site's folder. A URL may hold a password."""
        return self.ledger if is_url(self.ledger) else folder / self.ledger


class SiteConfig(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of `site.toml`; see the sections. What `[policy]` may say is in `privacy.policy`."""

    data: SiteData
    budget: SiteBudget
    policy: SitePolicy = SitePolicy()

    def __post_init__(self) -> None:
        if self.policy.caps_datasets and not self.data.name:
            raise ValueError(
                "policy.max_epsilon_per_dataset needs data.name: a data set's budget goes by a "
                "name of the custodian's own, which stays the same when the file changes"
            )

    @property
    def dataset(self) -> Dataset | None:
        """The data set by its custodian's name, with what it may cost by itself; None unnamed.

        Raises:
            PlanError: No order certifies so small a budget.
        """
        if not self.data.name:
            return None
        cap, policy = None, self.policy
        if policy.caps_datasets:
            cap = DatasetCap.of(policy.max_epsilon_per_dataset, policy.max_delta_per_dataset)
        return Dataset(self.data.name, cap)


class CustodianPolicy(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[policy]` of `custodian.toml`: what a custodian agrees to.

    Attributes:
        min_sites: Smallest cohort whose sum it lets open, at least 3.
        last_round: Of any run; no later round opens. 0 sets no limit.
    """

    min_sites: Annotated[int, msgspec.Meta(ge=3)] = 3
    last_round: Annotated[int, msgspec.Meta(ge=0)] = 0


class CustodianConfig(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
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
        refused = find_refusal(data)
        if refused is not None:
            raise ConfigError(f"{source}: {refused[0]}", hint=refused[1]) from error
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
