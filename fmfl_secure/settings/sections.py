"""The sections of `federation.toml`: public, and the same for everyone.

`settings.federation` puts them together and checks them beside each other; what concerns one
section alone, its own type checks. Others take an entry, such as a site's, by its type here
(`planning.noise`).
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from fmfl_secure.settings.noise import NOISE, NoiseMechanism, NoiseName
from fmfl_secure.settings.questions import MeasureName
from fmfl_secure.settings.types import (
    HEAD_PART,
    AnyAdapterKind,
    Device,
    Digest,
    Name,
    NonEmpty,
    OptimizerName,
    PartName,
    Positive,
    Section,
    ServerOptimizerName,
    WeightType,
)
from privacy import MAX_POPULATION_SIZE, MIN_SHARE, Decided

AT_SITES: Final = "sites"
# What `[evaluation]` says of answers between rounds of training.
ASKED_IN_TRAINING: Final = ("data", "epsilon", "insider_epsilon", "measures", "every")


class FederationSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[federation]`.

    Attributes:
        name: Name of the federation.
        rounds: Rounds to release, at least 1.
        min_sites: Smallest cohort whose sum may be opened, at least 3: with two, each learns
            the other's update.
        min_share: Smallest cohort as a share of all sites, so that nobody who picks cohorts can
            fill one with the fewest. The larger of the two holds; 0 leaves `min_sites` alone.
        vanished_sites: How many sites of a cohort may vanish for good once they have uploaded: the
            round is released with their updates in it, by the others' shares of their masks. It
            costs tolerated colluders: privacy.colluding_sites are what is left. With 0 every site
            has to open, and one that vanishes loses the round.
        norm_check: Whether every site shows, by 64 numbers a tensor, that its update is no larger
            than an honest one's: who sends more is named and left out, and the round is lost. With
            local noise; every site's policy has to accept it.
        rehearsals: When the sites go through a round on public numbers and reveal all of its keys,
            so that whoever sends what does not fit is named: `never`; `after-failure`, after an
            attempt that failed and nobody knows by whom; or `always`, before the first round as
            well. It reads no data, charges nothing and moves no adapter.
        seed: Public seed of the adapter's initial values. Never drives sampling or noise.
        weights: `equal`, or `population`: 1, 1/2, 1/4 or 1/8 by the declared population over the
            largest, rounded down. Coarse and public, so that a weight tells nothing of data.
    """

    LATER: ClassVar[frozenset[str]] = frozenset(
        {"min_share", "vanished_sites", "norm_check", "rehearsals"}
    )

    name: Name
    rounds: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    min_sites: Annotated[int, msgspec.Meta(ge=3, le=1000)] = 3
    min_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = MIN_SHARE
    vanished_sites: Annotated[int, msgspec.Meta(ge=0, le=127)] = 0
    norm_check: bool = False
    rehearsals: Literal["never", "after-failure", "always"] = "never"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 1
    weights: Literal["equal", "population"] = "equal"


class ModelSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[model]`.

    Attributes:
        base: `minilm`, or the path of a Hugging Face folder.
        digest: The digest it must have; `fmfl-secure plan` prints it. Empty accepts any here,
            and all parties of a run still have to agree.
        dtype: What its frozen weights are kept in: `float32`; `bfloat16` for half the memory; or
            `blocks` of 8 or 4 bits, of a folder that `fmfl-secure model import` wrote so.
            What is trained, and all arithmetic, is float32.
        max_length: Tokens kept of a text.
    """

    base: NonEmpty = "minilm"
    digest: Digest = ""
    dtype: WeightType = "float32"
    max_length: Annotated[int, msgspec.Meta(ge=2, le=8192)] = 128


LengthShare = tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[float, msgspec.Meta(ge=0, le=1)]]


class AdapterSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[adapter]`; docs/models.md says which kind goes with which model and task.

    Attributes:
        kind: `ffa-lora`, `lora`, `rolora`, `lora-xs`, `dora`, `vera`, `lokr`, `ia3`, `bottleneck`,
            `prompt`, `p-tuning`, `prefix`, `bitfit`, `norms`, `head` or `full`; or another
            package's, `PACKAGE:NAME` (`fmfl_secure.extensions`).
        rank: Rank of the low-rank update: of all sites, or of those that have none of their own.
            Of `bottleneck` and `p-tuning` the width of what they put in between.
        alpha: Scaling numerator.
        rank_stabilised: Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA).
        last_layers: Adapt so many of the last layers; 0 for all. Layers below the first adapter
            are computed once a record and kept.
        target_modules: Names of linear layers; empty takes the architecture's own.
        virtual_tokens: Length of a prompt or prefix.
        personal: Parts that every site keeps for itself: trained under the same clipping and noise
            as the rest, never uploaded, and left in the site's folder at the end. `head`, or words
            of the names that parameters have, such as `lora_B` (FedSA-LoRA) or `lora_A`.
        personal_head: The same as `personal = ["head"]`.
        layer_groups: Of the LoRA family, train every so many-th layer in a round, and the next ones
            in the next: a round uploads so much less. 1 trains all in every round.
        initial: Where training starts: the folder of a finished run, or of an adapter that
            `fmfl-secure export` wrote, from the folder of these settings. Every party holds it.
            Empty starts a fresh adapter.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"initial", "personal", "layer_groups"})

    kind: AnyAdapterKind = "ffa-lora"
    rank: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8
    alpha: Positive = 16.0
    rank_stabilised: bool = False
    last_layers: Annotated[int, msgspec.Meta(ge=0)] = 0
    target_modules: tuple[NonEmpty, ...] = ()
    virtual_tokens: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    personal: tuple[PartName, ...] = ()
    personal_head: bool = False
    layer_groups: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    initial: str = ""

    @property
    def personal_parts(self) -> tuple[str, ...]:
        """Names of the parts that every site keeps for itself, each once."""
        head = (HEAD_PART,) if self.personal_head else ()
        return tuple(dict.fromkeys((*head, *self.personal)))


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
            than epsilon allows others: it knows its own share. Where sites may vanish
            (`federation.vanished_sites`), how many may collude with coordinator, aggregator and
            decryptor besides.
        insider_epsilon: With distributed noise, what the run may cost a site against all other
            sites together, which know their own shares; `fmfl-secure plan` says what it needs.
        max_records_per_unit: Most records of one unit that a private round trains on, drawn at
            random for each unit alone; 0 takes all. A unit is clipped once either way: this
            bounds how long one takes.
        constant_time: Where the unit is a column, every step computes a declared number of rows and
            tokens, whoever was sampled, and a round answers at times fixed before data are read.
            Needs `max_records_per_unit`. What `init` writes; settings that do not say, as those of
            0.1.0, mean what they meant: neither.
        length_shares: With it, pairs of tokens and a share: at most so large a share of a site's
            records belong to units with a record longer than that. Shorter ones are then padded
            to that length only.
        accounting: `filter`: the noise passes a grant's filter, beside whatever else is charged to
            it. `exact`: a tenth less noise, for a grant that is for this run alone, as these
            settings fix it; where it asks as well, its answers have another. With noise of each
            site's own.
        rationale: Why this epsilon and no other, for everybody who reads a report; up to 1,000
            characters. Where it is said it is part of what all parties agree on, as are the next
            two; nothing is computed from them.
        decided_by: Who decided that: a person, a board; up to 200 characters.
        review_on: The day by which somebody looks at it again, such as 2027-05-01.
    """

    LATER: ClassVar[frozenset[str]] = frozenset(
        {
            "constant_time",
            "length_shares",
            "accounting",
            "rationale",
            "decided_by",
            "review_on",
        }
    )

    noise: NoiseName = "local"
    epsilon: Positive = 8.0
    delta: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-5
    sample_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    steps_per_round: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 4
    max_grad_norm: Positive = 1.0
    repeats: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 1
    colluding_sites: Annotated[int, msgspec.Meta(ge=0, le=999)] = 1
    insider_epsilon: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    max_records_per_unit: Annotated[int, msgspec.Meta(ge=0)] = 0
    constant_time: bool | None = None
    length_shares: tuple[LengthShare, ...] = ()
    accounting: Literal["filter", "exact"] = "filter"
    rationale: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    decided_by: Annotated[str, msgspec.Meta(max_length=200)] = ""
    review_on: dt.date | None = None

    @property
    def decided(self) -> Decided:
        """Why this epsilon, who decided it, and when to look again, as far as anybody said."""
        return Decided(self.rationale.strip(), self.decided_by.strip(), self.review_on)

    @property
    def noise_mechanism(self) -> NoiseMechanism:
        """The entry of the registry that `noise` names."""
        return NOISE.get(self.noise)


class TrainingSection(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[training]`: learning, and speed, which cannot touch privacy.

    Attributes:
        steps_at: Where the optimizer's steps are taken. `server`: every round is one step; sites
            release noised gradients, and the optimizer runs at the coordinator and at every site
            on their sum, with one memory for the run. `site`: several steps between uploads,
            whose difference is averaged; fewer uploads, and a worse model for the same epsilon.
            With distributed noise always at the server.
        optimizer: At the server, or at a site and fresh each round.
        learning_rate: Of the adapter.
        head_learning_rate: Of the head.
        proximal: FedProx's mu: pull of a site's steps towards what the round started from; 0 for
            none. It depends on weights alone and follows the noise, so it costs no privacy.
        server_optimizer: What the released mean update is applied with: `average` (FedAvg),
            `momentum` (FedAvgM), `adam` (FedAdam) or `yogi` (FedYogi). Where steps are the sites'.
        server_learning_rate: Of the server optimizer.
        physical_batch_size: Records in memory at once.
        cache_mib: Memory for outputs of frozen layers, per data set; 0 turns it off.
        checkpointing: Compute the activations of adapted layers twice instead of keeping them:
            less memory, a third more time.
        device: `cpu`, `cuda`, or `auto`: each party's own CUDA device where it has one.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"steps_at"})

    steps_at: Literal["site", "server"] = "site"
    optimizer: OptimizerName = "adam"
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
    """`[evaluation]`: what utility figures are computed on.

    Attributes:
        data: File of a held-out set that is public; `sites` for what the sites hold, whose figures
            are noised sums, charged like training; empty evaluates nothing.
        visibility: Must say `public` of a file: figures from it appear in reports without noise.
        every: Rounds from one evaluation to the next; the last round is always evaluated.
        holdout: Share of its units that each site sets apart and never trains on, by a keyed hash
            of their ids. 0 where each names a file of its own (`data.holdout` of `site.toml`).
        epsilon: With `sites`, what all answers of a run may cost every unit, beside training.
        insider_epsilon: With `sites` and distributed noise, as `privacy.insider_epsilon`, of the
            answers alone.
        measures: With `sites`, what is asked in one answer, in equal shares; empty for one that
            goes with the task (`settings.questions.FIRST_MEASURES`).
        loss_bound: Where a record's loss is cut.
        count_bound: Length that a unit's counts of entities are cut to.
        subgroup_column: A column that everyone knows of, for the measure `subgroups`; empty for
            none.
        subgroups: Its values, declared. Of others it is said that they are others.
    """

    LATER: ClassVar[frozenset[str]] = frozenset(
        {
            "holdout",
            "epsilon",
            "insider_epsilon",
            "measures",
            "loss_bound",
            "count_bound",
            "subgroup_column",
        }
        | {"subgroups"}
    )

    data: str = ""
    visibility: Literal["public", "private"] = "private"
    every: Annotated[int, msgspec.Meta(ge=1)] = 1
    holdout: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    epsilon: Annotated[float, msgspec.Meta(ge=0, le=40)] = 0.0
    insider_epsilon: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    measures: Annotated[tuple[MeasureName, ...], msgspec.Meta(max_length=16)] = ()
    loss_bound: Positive = 5.0
    count_bound: Positive = 5.0
    subgroup_column: str = ""
    subgroups: Annotated[tuple[NonEmpty, ...], msgspec.Meta(max_length=100)] = ()

    def __post_init__(self) -> None:
        for name in ("measures", "subgroups"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"evaluation.{name} has one value twice")
        if bool(self.subgroup_column) != bool(self.subgroups):
            raise ValueError("evaluation.subgroup_column and evaluation.subgroups go together")
        if self.at_sites and self.visibility == "public":
            raise ValueError(
                "evaluation.visibility is 'public', and what sites hold is not: leave it out with "
                "evaluation.data = 'sites'"
            )
        if not self.at_sites and (self.epsilon or self.insider_epsilon or self.measures):
            raise ValueError(
                "evaluation.epsilon, insider_epsilon and measures are for evaluation.data = 'sites'"
            )
        if self.at_sites and not self.epsilon:
            raise ValueError(
                "evaluation.data is 'sites', and evaluation.epsilon does not say what an answer "
                "may cost: 0.3 is a good start"
            )

    @property
    def at_sites(self) -> bool:
        """Whether figures are of what the sites hold."""
        return self.data == AT_SITES

    @property
    def without_questions(self) -> EvaluationSection:
        """The same where sites are asked something else: who is set apart, and the bounds."""
        if not self.at_sites:
            return self
        return msgspec.structs.replace(
            self, data="", epsilon=0.0, insider_epsilon=0.0, measures=(), every=1
        )

    @property
    def file(self) -> str:
        """The public held-out set; empty without one."""
        return "" if self.at_sites else self.data


class SiteEntry(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[sites]]` entry: what everyone knows of a site.

    Attributes:
        name: Its name.
        population: Declared, rounded number of units it holds. Rates and denominators use it;
            the true count is never used and never leaves the site.
        rank: Rank of this site's low-rank adapter, at most the adapter's; 0 for that one.
        records: Declared, rounded number of records of all its units, at most
            `max_records_per_unit` of each: what constant work is made for. 0 for so many of every
            unit.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"records"})

    name: Name
    population: Annotated[int, msgspec.Meta(ge=1, le=MAX_POPULATION_SIZE)]
    rank: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    records: Annotated[int, msgspec.Meta(ge=0, le=MAX_POPULATION_SIZE)] = 0
