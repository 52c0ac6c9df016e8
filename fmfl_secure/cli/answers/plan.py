"""Answer of `plan`.

`cli.plan` and `cli.afford` return these, and `--json` prints them; `docs/answers.schema.json` is
made from the types.
"""

from __future__ import annotations

import msgspec

from fmfl_secure.cli.answers.base import Answer


class PlaceShown(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of a run that takes its steps in one place.

    Attributes:
        place: Where: at the sites, or at the server.
        chosen: Whether the settings say so.
        rounds: Uploads of a site.
        steps_per_round: Between two of them.
        upload_bytes: Of one site, in one round.
        noise_multiplier: At every site.
    """

    place: str
    chosen: bool
    rounds: int
    steps_per_round: int
    upload_bytes: int
    noise_multiplier: float


class ForecastShown(msgspec.Struct, frozen=True, kw_only=True):
    """A run in the unit of the grant that it will be charged to.

    Attributes:
        grant: Its number.
        granted: Its epsilon.
        delta: Its delta.
        before: Epsilon spent before.
        by_round: Epsilon spent after each round.
        reserved: Epsilon spent or held once the run has reserved its worst case.
        runs_left: How many more runs like it would fit afterwards.
    """

    grant: int
    granted: float
    delta: float
    before: float
    by_round: tuple[float, ...]
    reserved: float
    runs_left: int


class SitePlanned(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of one site.

    Attributes:
        name: Of the site.
        population: Declared units.
        expected_batch_size: Units of a step, on average.
        noise_stddev_of_mean: Of the noise in a step's mean gradient, in units of the clipping norm.
        forecast: What its ledger will show; null where it is not at hand.
        refusal: Why the site will refuse; empty where it will not, as far as is known here.
    """

    name: str
    population: int
    expected_batch_size: float
    noise_stddev_of_mean: float
    forecast: ForecastShown | None
    refusal: str


class TrainingPlanned(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of training at every site.

    Attributes:
        unit: What is protected as one.
        sample_rate: Poisson inclusion probability.
        steps: In all rounds.
        noise_multiplier: At every site.
        epsilon_by_round: After each round, of training or of answers.
        epsilon_reserved: Spent or held once the run has reserved, repeats included.
        in_the_unit_of: Which grant the epsilons are of, in words.
        insider_epsilon: What all other sites together learn at most, repeats included.
        pld_epsilon: Of all rounds, had the parameters been fixed in advance.
        remarks: What else is to be said, by topic: noise in shares, how long rounds take.
        places: Where steps may be taken.
        sites: By site.
    """

    unit: str
    sample_rate: float
    steps: int
    noise_multiplier: float
    epsilon_by_round: tuple[float, ...]
    epsilon_reserved: float
    in_the_unit_of: str
    insider_epsilon: float
    pld_epsilon: float
    remarks: dict[str, str]
    places: tuple[PlaceShown, ...]
    sites: tuple[SitePlanned, ...]


class PrecisionShown(msgspec.Struct, frozen=True, kw_only=True):
    """How precise an answer to one question would be, with all sites, at 95 %.

    Attributes:
        question: Its name.
        cells: How many figures it has.
        count: Half width of a count's interval, of the noise alone.
        figure: Name of the first figure that is no count; empty where all are counts.
        share: Half width that 19 of 20 answers keep to for it, of the noise alone; null where more
            than one in 20 would say nothing, or all figures are counts.
        sampling: The same with sampling.
        widest: As `share`, of the figure that is widest of all.
    """

    question: str
    cells: int
    count: float
    figure: str
    share: float | None
    sampling: float | None
    widest: float | None


class SiteAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of answers at one site whose ledger is at hand.

    Attributes:
        name: Of the site.
        forecast: What its ledger will show; null where it will refuse.
        refusal: Why it will; else empty.
    """

    name: str
    forecast: ForecastShown | None
    refusal: str


class AnswersPlanned(msgspec.Struct, frozen=True, kw_only=True):
    """The answers asked of sites.

    Attributes:
        epsilon: Of all answers together.
        answers: How many.
        questions: How precise each is.
        sites: What ledgers at hand will show.
    """

    epsilon: float
    answers: int
    questions: tuple[PrecisionShown, ...]
    sites: tuple[SiteAsked, ...]


class ReadingShown(msgspec.Struct, frozen=True, kw_only=True):
    """Signal over noise of one kind of adapter, of records made up.

    Attributes:
        kind: Of adapter.
        numbers: How many are trained.
        above: How many of them are above their noise.
        head: Of the head, in a step.
        head_in_run: Of the head, over all steps.
        adapter: Of the adapter, in a step; 0 where there is none.
    """

    kind: str
    numbers: int
    above: int
    head: float
    head_in_run: float
    adapter: float


class ChangeShown(msgspec.Struct, frozen=True, kw_only=True):
    """A setting to change.

    Attributes:
        setting: What to write.
        words: What it brings, and what it asks.
    """

    setting: str
    words: str


class VerdictShown(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on what is learned beside the noise.

    Attributes:
        kind: The adapter to train.
        sentences: The verdict.
        changes: At most three, what helps most first.
        readings: By kind of adapter.
    """

    kind: str
    sentences: tuple[str, ...]
    changes: tuple[ChangeShown, ...]
    readings: tuple[ReadingShown, ...]


class NormBounded(msgspec.Struct, frozen=True, kw_only=True):
    """Values of an update whose norm is checked together; lengths over that of the whole range.

    Attributes:
        first: Name of the first tensor that has values in it.
        last: Name of the last.
        size: Values.
        projections: Numbers that each site shows of it.
        honest: Largest norm of an honest update there.
        limit: What a site is held to.
        mean: How far one hostile site can move the mean; further with probability `missed`.
        missed: That probability, of a round.
    """

    first: str
    last: str
    size: int
    projections: int
    honest: float
    limit: float
    mean: float
    missed: float


class Planned(Answer, frozen=True, kw_only=True):
    """The plan of a run: what it will do and cost.

    Attributes:
        federation: Its name.
        rounds: Of training and of answers.
        sites: How many.
        base_model: Its name.
        base_model_digest: Its digest.
        settings_digest: Of the settings.
        adapter: Kind of adapter.
        trained_parameters: In the round that trains most.
        kept_parameters: Trained as well, and in no upload: they stay at each site.
        remarks: What else is to be said of them, by topic: an earlier adapter, other packages'
            code, an architecture that no table lists.
        encryption: Parameter set.
        value_bits: Of an encrypted value.
        security_bits: At least.
        upload_bytes: A site and round.
        cohorts: Which cohorts the settings allow, in words.
        norms: Which values are bounded together, and how; empty where norms are not checked.
        private: Whether there is privacy; without, it is a baseline on public data.
        training: What training costs; null without privacy, or where nothing is trained.
        answers: What is asked; null where nothing is, or without privacy.
        verdict: What is learned beside the noise; null where nothing can be said, or was asked.
    """

    federation: str
    rounds: int
    sites: int
    base_model: str
    base_model_digest: str
    settings_digest: str
    adapter: str
    trained_parameters: int
    kept_parameters: int
    remarks: dict[str, str]
    encryption: str
    value_bits: int
    security_bits: int
    upload_bytes: int
    cohorts: tuple[str, ...]
    norms: tuple[NormBounded, ...]
    private: bool
    training: TrainingPlanned | None
    answers: AnswersPlanned | None
    verdict: VerdictShown | None
