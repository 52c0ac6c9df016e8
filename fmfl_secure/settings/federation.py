"""The federation's settings (`federation.toml`), a site's own (`site.toml`), a custodian's.

All are read strictly: an unknown key, a wrong type or a value out of range is refused with its
place in the file. A federation's settings are public and the same for everyone; what a site
allows, and where its data lie, is in the site's file and never leaves it.

Commands and parties' processes read a federation's settings by `load_federation`; `parties.site`
and `cli.afford` read a site's file by `load_site`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import ClassVar

import msgspec

from aggregation.protocol import Vanishing
from fmfl_secure.errors import ConfigError
from fmfl_secure.extensions import is_extension
from fmfl_secure.outside import MALFORMED
from fmfl_secure.settings import vanishing
from fmfl_secure.settings.questions import (
    FIRST_MEASURES,
    MeasureName,
    QuestionSection,
    Turn,
    rounds_of,
    turn_of,
)
from fmfl_secure.settings.sections import (
    AdapterSection,
    AggregationSection,
    EvaluationSection,
    FederationSection,
    ModelSection,
    PrivacySection,
    SiteEntry,
    TrainingSection,
)
from fmfl_secure.settings.site import CustodianConfig, SiteConfig
from fmfl_secure.settings.tasks import ImageTextSection, TaskSection
from fmfl_secure.settings.techniques import INFO_NCE, INFO_NCE_INSTEAD
from fmfl_secure.settings.toml_file import convert_config as convert_config  # noqa: PLC0414
from fmfl_secure.settings.toml_file import load_toml
from fmfl_secure.settings.types import LOW_RANK_KINDS, Section
from privacy import largest_delta, share_of

# What the other parties are called: a site by such a name would be pinned in their place.
ROLE_NAMES = ("coordinator", "aggregator", "decryptor")


_START = "Start with: fmfl-secure init DIR. In a party's kit, put back the one that came with it."
SMALLEST_WEIGHT = 1 / 8  # beyond that, a small site would train and hardly be heard


class FederationConfig(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of `federation.toml`; see the sections."""

    LATER: ClassVar[frozenset[str]] = frozenset({"question"})

    federation: FederationSection
    model: ModelSection = ModelSection()
    task: TaskSection
    adapter: AdapterSection = AdapterSection()
    privacy: PrivacySection = PrivacySection()
    training: TrainingSection = TrainingSection()
    aggregation: AggregationSection = AggregationSection()
    evaluation: EvaluationSection = EvaluationSection()
    question: QuestionSection | None = None
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
            and self.privacy.noise_mechanism.private
        ):
            raise ValueError(f"task.loss: {INFO_NCE}. Use {INFO_NCE_INSTEAD}")
        if self.federation.rehearsals != "never" and self.aggregation.suite != "ckks-collective":
            raise ValueError(
                "federation.rehearsals need aggregation.suite = 'ckks-collective': in the other "
                "one no site has a secret of its own that it could reveal"
            )
        vanishing.check(self.federation.vanished_sites, len(names), self.privacy.colluding_sites)
        noise = self.privacy.noise_mechanism
        if self.federation.norm_check and (noise.in_shares or not noise.private):
            raise ValueError(
                "federation.norm_check is for privacy.noise = 'local': numbers are told of every "
                "site's update, which no other noise makes private by itself"
            )
        self._check_adapter()
        largest = max(site.population for site in self.sites)
        if self.privacy.noise_mechanism.private and self.privacy.delta > largest_delta(largest):
            raise ValueError(
                f"privacy.delta is {self.privacy.delta:g}, expected at most 1 / (10 x the largest "
                f"population) = {largest_delta(largest):.3g}"
            )
        if self.steps_at_server:
            self._check_steps_at_server()
        if self.constant_work:
            self._check_constant_work()
        if self.privacy.accounting == "exact":
            self._check_exact()
        self._check_evaluation()
        if self.asked is not None and not self.privacy.noise_mechanism.private:
            raise ValueError(
                "questions are answered with noise, and privacy.noise = 'none' adds none: data "
                "that are public can be counted without it"
            )

    def _check_evaluation(self) -> None:
        if self.evaluation.holdout and self.task.unit == "record":
            raise ValueError(
                "evaluation.holdout sets units apart by a keyed hash of their ids, and with "
                "task.unit = 'record' there are none: name the column of ids as task.unit, or a "
                "file of held-out records as data.holdout in every site.toml"
            )
        if self.evaluation.at_sites and self.question is not None:
            raise ValueError(
                "evaluation.data = 'sites' and question both say what sites are asked: leave one "
                "out. question.what takes measures as well"
            )
        if self.evaluation.at_sites and not self.measures:
            raise ValueError(
                f"evaluation.measures is empty, and none is known for the task {self.task.kind!r}"
            )
        if self.evaluation.file and self.evaluation.visibility != "public":
            raise ValueError(
                "evaluation.data is not declared public: set evaluation.visibility = 'public' if "
                "exact figures computed on it may be published; or evaluation.data = 'sites', for "
                "noised figures on what the sites hold; or leave it empty"
            )

    def trained_units(self, site: SiteEntry) -> int:
        """Declared, rounded number of a site's units that are not set apart, at least 1.

        What rates and denominators of training use; what a unit's ledger counts is all of them.
        """
        return max(1, round(site.population * (1.0 - self.evaluation.holdout)))

    @property
    def first_measure(self) -> MeasureName | None:
        """The measure of a model where nobody says which; None for tasks of other packages.

        Responses that settings declare are asked about as labels are.
        """
        declared = getattr(self.task, "responses", ())
        return "accuracy" if declared else FIRST_MEASURES.get(self.task.kind)

    @property
    def measures(self) -> tuple[MeasureName, ...]:
        """Measures that sites are asked for; none where nobody says and nothing is known."""
        first = self.first_measure
        return self.evaluation.measures or (() if first is None else (first,))

    @property
    def asked(self) -> QuestionSection | None:
        """The question to sites in a run by these settings, or None."""
        evaluation = self.evaluation
        if self.question is not None or not evaluation.at_sites:
            return self.question
        return QuestionSection(
            what=self.measures,
            epsilon=evaluation.epsilon,
            every=evaluation.every,
            insider_epsilon=evaluation.insider_epsilon,
        )

    @property
    def trains(self) -> bool:
        """Whether a run by these settings trains anything."""
        return self.asked is None or self.asked.every > 0

    @property
    def all_rounds(self) -> int:
        """Rounds of a run, those that ask instead of training included."""
        return rounds_of(self.federation.rounds, self.asked)

    def turn(self, round_number: int) -> Turn:
        """Returns the purpose of a round of a run; rounds count from 1."""
        return turn_of(round_number, self.federation.rounds, self.asked)

    @property
    def steps_at_server(self) -> bool:
        """Whether sites release gradients, and the optimizer runs on their sum."""
        return self.privacy.noise_mechanism.in_shares or self.training.steps_at == "server"

    def _check_steps_at_server(self) -> None:
        shares = self.privacy.noise_mechanism.in_shares
        why = "with distributed noise" if shares else "with training.steps_at = 'server'"
        if self.privacy.steps_per_round != 1:
            raise ValueError(
                f"privacy.steps_per_round is {self.privacy.steps_per_round}, expected 1: {why} "
                "every step is a round"
            )
        if shares and self.privacy.colluding_sites >= self.federation.min_sites:
            raise ValueError(
                f"privacy.colluding_sites is {self.privacy.colluding_sites}, expected fewer than "
                f"min_sites = {self.federation.min_sites}"
            )
        if (self.training.server_optimizer, self.training.server_learning_rate) != ("average", 1.0):
            raise ValueError(
                f"training.server_optimizer is for steps at the sites: {why} training.optimizer "
                "and the learning rates are the server's"
            )
        if self.training.proximal:
            raise ValueError(
                f"training.proximal is for steps at the sites: {why} a round is one step"
            )
        if self.federation.weights != "equal":
            raise ValueError(
                f"federation.weights is for steps at the sites: {why} every unit weighs the same, "
                "whichever site it is at"
            )

    @property
    def constant_work(self) -> bool:
        """Whether a round's work and time must not tell who was sampled."""
        private = self.privacy.noise_mechanism.private
        return private and bool(self.privacy.constant_time) and self.task.unit != "record"

    def _check_exact(self) -> None:
        if not self.privacy.noise_mechanism.private or self.privacy.noise_mechanism.in_shares:
            raise ValueError(
                "privacy.accounting = 'exact' is for noise of each site's own: 'local'"
            )

    def _check_constant_work(self) -> None:
        most = self.privacy.max_records_per_unit
        if not most:
            raise ValueError(
                f"privacy.max_records_per_unit is 0 and the unit is {self.task.unit!r}: a person's "
                "records need an end for work to be constant. 8 is a good start; or set "
                "privacy.constant_time = false, and round times tell of people with many records"
            )
        if self.training.physical_batch_size < 2:
            raise ValueError("training.physical_batch_size is 1, expected 2 with constant_time")
        lengths = [tokens for tokens, _ in self.privacy.length_shares]
        if lengths != sorted(set(lengths)) or any(n >= self.model.max_length for n in lengths):
            raise ValueError(
                f"privacy.length_shares has lengths {lengths}, expected ascending ones below "
                f"model.max_length = {self.model.max_length}"
            )
        for site in self.sites:
            if site.records > most * site.population:
                raise ValueError(
                    f"{site.name} declares {site.records} records, more than "
                    f"max_records_per_unit = {most} of each of its {site.population} units"
                )

    def _check_adapter(self) -> None:
        self._check_ranks()
        if self.adapter.personal_parts:
            self._check_personal()
        if self.adapter.initial:
            self._check_initial()

    def _check_initial(self) -> None:
        if getattr(self.task, "label_texts", ()):
            raise ValueError(
                "task.label_texts says where the head starts, and adapter.initial does too: "
                "leave one out"
            )

    def _check_personal(self) -> None:
        if self.privacy.noise_mechanism.in_shares:
            raise ValueError(
                "adapter.personal needs local noise: a share of noise does not protect what a site "
                "keeps, and later updates depend on it"
            )
        if self.steps_at_server:
            raise ValueError(
                "adapter.personal needs training.steps_at = 'site': the server steps by what is "
                "released, and a site's own parts are not"
            )
        if self.evaluation.file:
            raise ValueError(
                "evaluation.data is scored with the global adapter, which adapter.personal leaves "
                "without a site's own parts: set evaluation.data = 'sites', or evaluate each "
                "site's with --personal after the run"
            )
        if self.question is not None and self.question.adapter:
            raise ValueError(
                "question.adapter is of a run that left every site parts of its own, and sites "
                "asked later would answer without them: set evaluation.data = 'sites', which asks "
                "during the run"
            )

    def _check_ranks(self) -> None:
        if self.adapter.layer_groups > 1 and self.adapter.kind not in LOW_RANK_KINDS:
            raise ValueError(
                f"adapter.layer_groups is for {', '.join(sorted(LOW_RANK_KINDS))}, and not for "
                f"{self.adapter.kind!r}"
            )
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

    @property
    def extensions(self) -> tuple[str, ...]:
        """Names of other packages' code in these settings, in order."""
        kinds = (self.adapter.kind, self.task.kind)
        return (*(name for name in kinds if is_extension(name)), *self.task.readers)

    def ranks(self) -> dict[str, int]:
        """Rank of each site's low-rank adapter, by name."""
        return {site.name: site.rank or self.adapter.rank for site in self.sites}

    def weights(self) -> dict[str, float]:
        """Each site's weight in the mean, over the largest, in (0, 1]: a public power of two."""
        if self.federation.weights == "equal":
            return dict.fromkeys((site.name for site in self.sites), 1.0)
        largest = max(site.population for site in self.sites)
        return {
            site.name: max(2.0 ** math.floor(math.log2(site.population / largest)), SMALLEST_WEIGHT)
            for site in self.sites
        }

    def floor(self, pinned: int, min_share: float = 0.0) -> int:
        """The fewest sites, counted, that a party lets a sum be of: by these settings, and its own.

        Args:
            pinned: How many sites it knows, if more than are listed here. Those that a
                membership list struck off still count until the settings name them no more.
            min_share: Its policy's.
        """
        everyone = max(len(self.sites), pinned)
        return max(self.smallest_cohort(pinned), share_of(everyone, min_share))

    def smallest_cohort(self, pinned: int = 0) -> int:
        """The fewest sites, counted, whose sum these settings let open.

        Args:
            pinned: How many sites a party knows, if more than are listed here.
        """
        everyone = max(len(self.sites), pinned)
        share = share_of(everyone, self.federation.min_share)
        return max(self.federation.min_sites, share, self.openings(pinned))

    def openings(self, pinned: int = 0) -> int:
        """The fewest openings that a sum opens with, where sites may vanish; else 0.

        Args:
            pinned: How many sites a party knows, if more than are listed here.
        """
        everyone, colluding = max(len(self.sites), pinned), self.privacy.colluding_sites
        return vanishing.openings(self.federation.vanished_sites, everyone, colluding)

    def vanishing(self, pinned: int = 0) -> Vanishing | msgspec.UnsetType:
        """Returns what plans say of sites that may vanish.

        Args:
            pinned: How many sites the coordinator knows, if more than are listed here.
        """
        everyone, colluding = max(len(self.sites), pinned), self.privacy.colluding_sites
        return vanishing.vanishing(self.federation.vanished_sites, everyone, colluding)

    def smallest_cohort_in_words(self, pinned: int = 0) -> str:
        """Which setting decides that number."""
        least, everyone = self.smallest_cohort(pinned), max(len(self.sites), pinned)
        if least == self.federation.min_sites:
            return f"min_sites = {least}"
        if least > share_of(everyone, self.federation.min_share):
            return f"{least} of {everyone}, by vanished_sites and colluding_sites"
        return f"{least} of {everyone}, by min_share = {self.federation.min_share:.4g}"

    def cohorts_in_words(self) -> list[str]:
        """How small a cohort may be, what that protects from, and what a run does with fewer."""
        everyone, stated = len(self.sites), self.federation.min_sites
        least = self.smallest_cohort()
        first = (
            f"a sum is opened of {least} of {everyone} sites at least: one of them is read from "
            f"it only if all {least - 1} others put together what they know"
        )
        told = [first]
        if least > max(stated, share_of(everyone, self.federation.min_share)):
            told.append(f"a run waits for {self.smallest_cohort_in_words()}; with fewer it stops")
        elif least > stated:
            told.append(
                f"min_sites = {stated} is below the share of all sites that min_share = "
                f"{self.federation.min_share:.4g} asks for: a run waits for {least}, and with "
                "fewer it stops. To let fewer do, lower min_share here and in every site's policy"
            )
        return told + vanishing.in_words(
            self.federation.vanished_sites, everyone, least, self.privacy.colluding_sites
        )

    def sites_by_weight(self, names: Iterable[str]) -> float:
        """How many equal sites these are worth, (sum w)^2 / sum w^2; 0 of none."""
        weight = self.weights()
        weights = [weight[name] for name in names]
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


def load_federation(path: Path) -> FederationConfig:
    """Read `federation.toml`.

    Raises:
        ConfigError: It is not there, not TOML, or a setting is unknown or wrong.
    """
    return load_toml(path, FederationConfig, hint=_START)


def load_site(path: Path) -> SiteConfig:
    """Read `site.toml`.

    Raises:
        ConfigError: It is not there, not TOML, or a setting is unknown or wrong.
    """
    return load_toml(path, SiteConfig, hint=_START)


def load_custodian(path: Path) -> CustodianConfig:
    """Read `custodian.toml`.

    Raises:
        ConfigError: It is not there, not TOML, or a setting is unknown or wrong.
    """
    return load_toml(path, CustodianConfig, hint=_START)


def encode_config(config: FederationConfig) -> bytes:
    """Canonical JSON of the settings, defaults written out but for `Section.LATER`."""
    return msgspec.json.encode(_written(config), order="sorted")


def _written(value: object) -> object:
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    if not isinstance(value, Section):
        return value
    defaults = _defaults(type(value))
    written: dict[str, object] = {
        name: _written(held)
        for name, held in msgspec.structs.asdict(value).items()
        if name not in value.LATER or held != defaults[name]
    }
    struct = value.__struct_config__
    return written if struct.tag is None else {str(struct.tag_field): struct.tag, **written}


@cache
def _defaults(kind: type[Section]) -> dict[str, object]:
    return {field.name: field.default for field in msgspec.structs.fields(kind)}


def decode_config(data: bytes) -> FederationConfig:
    """Read what `encode_config` wrote.

    Raises:
        ConfigError: It is not.
    """
    try:
        return msgspec.json.decode(data, type=FederationConfig)
    except MALFORMED as error:
        raise ConfigError(f"stored settings cannot be read: {error}") from error
