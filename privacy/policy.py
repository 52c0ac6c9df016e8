"""A site's own rules, which it checks before data are read, whatever is planned elsewhere.

A policy is the site's own. A run is described to it as a `RunProposal`, made from what the
coordinator signed and from what the site measured itself (the base model's digest), and
`check_policy` either returns or raises a `PolicyRefusal` whose code names the rule and nothing
else. Every rule is a function of public settings, of the policy and of the clock, never of data,
so the code may be told to others.

| code | the run is refused because |
| --- | --- |
| `policy.expired` | the policy's last day is over |
| `policy.min_sites` | it opens sums of fewer sites |
| `policy.min_share` | it opens sums of a smaller share of all sites |
| `policy.base_model` | its base model is not on the list |
| `policy.architecture` | its base model is built in a way that nobody has measured |
| `policy.task` | its task is not on the list |
| `policy.adapter` | its adapter is not on the list |
| `policy.extension` | it names code of another package that is not on the list |
| `policy.rounds` | it plans too many rounds |
| `policy.suite` | its encryption suite is not on the list |
| `policy.parameter_set` | its encryption parameter set is not on the list |
| `policy.non_private` | it would train on private data without noise |
| `policy.epsilon_per_run` | it may cost more epsilon |
| `policy.delta_per_run` | it asks for a larger delta |
| `policy.insider_epsilon_per_run` | all other sites together may learn more |
| `policy.colluding_sites` | it assumes that fewer sites collude |
| `policy.queries` | it asks more of the data than may be asked |
| `policy.epsilon_per_answer` | its answers may cost more epsilon |
| `policy.answers_per_run` | it asks for too many answers |
| `policy.norm_check` | it tells numbers of this site's update to the others, or does not |
| `policy.answers_per_year` | with the last year's it asks for too many |
| `policy.epsilon_per_dataset` | with earlier runs on the same data set it may cost more |

The last one needs the ledger, which raises it when a run reserves (`privacy.ledger.datasets`).

`parties.site` checks a policy before it reserves anything. `parties.run_budget` asks
`check_answers_per_year`, which needs the ledger, and `planning.task` asks `check_extensions`
before other packages' code is imported.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Final, Literal

import msgspec

from privacy.errors import PolicyRefusal
from privacy.limits import MAX_EPSILON

# What may be asked of data, each with what stands before it.
Queries = Literal["none", "evaluation", "statistics"]
QUERIES: Final[tuple[Queries, ...]] = ("none", "evaluation", "statistics")

MIN_SHARE: Final = 0.6667  # two thirds of all sites, where nobody says otherwise

# To leave a rule out is to have no limit: one that is written down is a number that limits.
_Epsilon = Annotated[float, msgspec.Meta(gt=0, le=MAX_EPSILON)]
_Delta = Annotated[float, msgspec.Meta(gt=0, lt=1)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Word = Annotated[str, msgspec.Meta(min_length=1)]
_Digest = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^sha256:[0-9a-f]{64}\Z",
        description="sha256: and 64 digits of 0-9 and a-f; fmfl-secure plan prints it.",
    ),
]
# A list that is there names what is allowed; an empty one could be read as all or as nothing.
_Words = Annotated[tuple[_Word, ...], msgspec.Meta(min_length=1)]
_Digests = Annotated[tuple[_Digest, ...], msgspec.Meta(min_length=1)]


class SitePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A site's rules. A rule that is left out allows everything, but for the first five.

    Attributes:
        min_sites: Smallest cohort whose sum may be opened with this site in it, at least 3.
        min_share: The same as a share of all sites that this site pinned: who picks a cohort
            could else fill it with the fewest, all colluding but one.
        non_private: What becomes of a run that adds no noise, on data that are not public:
            `refuse`, or `exhaust`, which lets it train and ends every grant of the ledger.
        extensions: Code of other packages that may run here, by name; none unless it is listed.
        architectures: `listed`: base models of the architectures that were measured. `gated`:
            others too, if they pass the admission gate.
        expires: Last day, UTC, on which anything is admitted.
        base_models: Digests of the base models allowed.
        tasks: Kinds of task allowed.
        adapters: Kinds of adapter allowed.
        max_rounds: Most rounds that a run may plan.
        suites: Encryption suites allowed.
        parameter_sets: Ids of the encryption parameter sets allowed.
        max_epsilon_per_run: Most epsilon that one run may cost, repeats included.
        max_delta_per_run: Largest delta at which that may be stated.
        max_insider_epsilon_per_run: Most epsilon that one run may cost against all other sites
            together, which know their own shares of distributed noise.
        min_colluding_sites: With distributed noise, how many sites of a cohort a run has to
            assume to give their noise away, at least; where sites may vanish after their upload,
            how many to collude, which decides by how many openings a sum opens.
        max_epsilon_per_dataset: Most epsilon that all runs on one data set may cost together,
            over the ledger's life; at `max_delta_per_dataset`, which goes with it.
        max_delta_per_dataset: The delta of that.
        queries: What may be asked of the data: `none`; `evaluation`, how a model does on them; or
            `statistics` as well, what is in them. Nothing where it is left out.
        max_epsilon_per_answer: Most epsilon that a run's answers may cost together.
        max_answers_per_run: Most answers that a run may give.
        max_answers_per_year: Most that all runs may give in 365 days; the ledger keeps count.
        norm_check: What becomes of a run that checks how large each update is, for which 64 numbers
            a tensor of every site's are told to all: `refuse`, `accept`, or `require`, which
            refuses one that does not check.
    """

    min_sites: Annotated[int, msgspec.Meta(ge=3)] = 3
    min_share: _Share = MIN_SHARE
    non_private: Literal["refuse", "exhaust"] = "refuse"
    extensions: tuple[_Word, ...] = ()
    architectures: Literal["listed", "gated"] = "listed"
    expires: dt.date | None = None
    base_models: _Digests | None = None
    tasks: _Words | None = None
    adapters: _Words | None = None
    max_rounds: Annotated[int, msgspec.Meta(ge=1)] | None = None
    suites: _Words | None = None
    parameter_sets: _Words | None = None
    max_epsilon_per_run: _Epsilon = math.inf
    max_delta_per_run: _Delta = 1.0
    max_insider_epsilon_per_run: _Epsilon = math.inf
    min_colluding_sites: Annotated[int, msgspec.Meta(ge=0)] = 1
    max_epsilon_per_dataset: _Epsilon = math.inf
    max_delta_per_dataset: _Delta = 1.0
    queries: Queries = "none"
    max_epsilon_per_answer: _Epsilon = math.inf
    max_answers_per_run: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_answers_per_year: Annotated[int, msgspec.Meta(ge=0)] | None = None
    norm_check: Literal["refuse", "accept", "require"] = "refuse"

    def __post_init__(self) -> None:
        if (self.max_epsilon_per_dataset < math.inf) != (self.max_delta_per_dataset < 1.0):
            raise ValueError(
                "max_epsilon_per_dataset and max_delta_per_dataset go together: "
                "an epsilon is a bound at some delta below 1 only"
            )
        if self.non_private == "exhaust" and (
            self.max_epsilon_per_run < math.inf
            or self.max_insider_epsilon_per_run < math.inf
            or self.caps_datasets
        ):
            raise ValueError(
                "non_private = 'exhaust' allows what has no epsilon, and max_epsilon_per_run, "
                "max_insider_epsilon_per_run or max_epsilon_per_dataset bounds it: leave one out"
            )

    @property
    def caps_datasets(self) -> bool:
        """Whether a data set has a budget of its own."""
        return self.max_epsilon_per_dataset < math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProposal:
    """A run as a site's policy sees it: the public facts that its rules speak of.

    Attributes:
        task: Kind of task.
        adapter: Kind of adapter.
        base_model: `sha256:` digest of the base model, as the site measured it.
        unlisted: Name of its architecture, where that is none of those measured; else empty.
        rounds: Rounds planned.
        min_sites: Smallest cohort whose sum may be opened, as far as weights count.
        smallest_cohort: The same counted by sites, with the settings' share of all of them.
        sites: How many sites there are.
        suite: Encryption suite.
        parameter_set: Id of the encryption parameter set.
        epsilon: What the run may cost a unit here, repeats included: infinite where private data
            are trained on without noise, 0 where the data are public and nothing is charged.
        delta: At that delta.
        insider_epsilon: What it may cost against all other sites together; the same as `epsilon`
            where the noise is the site's own.
        colluding_sites: How many sites it assumes to give their noise away; None where the noise
            is the site's own.
        extensions: What of other packages' code would run here, by name.
        queries: What it asks of the data: the most that any of its questions is.
        answers: How many answers it gives, repeats not counted.
        answer_epsilon: What they may cost a unit together.
        norm_check: Whether it checks how large each site's update is.
    """

    task: str
    adapter: str
    base_model: str
    unlisted: str
    rounds: int
    min_sites: int
    smallest_cohort: int
    sites: int
    suite: str
    parameter_set: str
    epsilon: float
    delta: float
    insider_epsilon: float
    colluding_sites: int | None = None
    extensions: tuple[str, ...] = ()
    queries: Queries = "none"
    answers: int = 0
    answer_epsilon: float = 0.0
    norm_check: bool = False


def share_of(sites: int, share: float) -> int:
    """How many of so many sites are a share of them, rounded up.

    The share is taken for the nearest fraction with a denominator of at most 1000, so that 0.6667
    is two thirds.
    """
    return math.ceil(Fraction(share).limit_denominator(1000) * sites)


def check_policy(policy: SitePolicy, proposal: RunProposal, *, now: dt.datetime) -> None:
    """Return if the policy allows the run.

    Args:
        policy: The site's own.
        proposal: What the run asks.
        now: The time, with its zone; compared in UTC.

    Raises:
        PolicyRefusal: Names the first rule that does not, in the order of the table above.
    """
    today = now.astimezone(dt.UTC).date()
    if policy.expires is not None and today > policy.expires:
        raise PolicyRefusal(
            "expired",
            f"this site's policy expired at the end of {policy.expires}, it is {today} (UTC)",
            hint="Ask whoever is responsible for the data to set a new day in [policy] expires.",
        )
    _at_least("min_sites", "sites whose sum may be opened", proposal.min_sites, policy.min_sites)
    _at_least(
        "min_share",
        f"of {proposal.sites} sites whose sum may be opened",
        proposal.smallest_cohort,
        share_of(proposal.sites, policy.min_share),
    )
    _listed("base_model", "base model", proposal.base_model, policy.base_models)
    if proposal.unlisted and policy.architectures != "gated":
        raise PolicyRefusal(
            "architecture",
            f"architecture {proposal.unlisted!r} is not among those that were measured, and this "
            "site's policy takes no others",
            hint="Use a base model that docs/models.md lists; or set [policy] architectures = "
            "'gated', and the admission gate alone decides.",
        )
    _listed("task", "task", proposal.task, policy.tasks)
    _listed("adapter", "adapter", proposal.adapter, policy.adapters)
    check_extensions(policy, proposal.extensions)
    _at_most("rounds", "rounds", proposal.rounds, policy.max_rounds)
    _listed("suite", "encryption suite", proposal.suite, policy.suites)
    _listed("parameter_set", "parameter set", proposal.parameter_set, policy.parameter_sets)
    if proposal.epsilon == math.inf and policy.non_private != "exhaust":
        raise PolicyRefusal(
            "non_private",
            "training without privacy needs data declared public, this site's are private",
            hint="Plan with privacy.noise = 'local', or set data.visibility = 'public'.",
        )
    _at_most("epsilon_per_run", "epsilon for one run", proposal.epsilon, policy.max_epsilon_per_run)
    _at_most("delta_per_run", "delta for one run", proposal.delta, policy.max_delta_per_run)
    _at_most(
        "insider_epsilon_per_run",
        "epsilon against all other sites together",
        proposal.insider_epsilon,
        policy.max_insider_epsilon_per_run,
    )
    _check_queries(policy, proposal)
    _check_norms(policy, proposal)
    if proposal.colluding_sites is not None:
        _at_least(
            "colluding_sites",
            "sites that may collude",
            proposal.colluding_sites,
            policy.min_colluding_sites,
        )


def _check_queries(policy: SitePolicy, proposal: RunProposal) -> None:
    if QUERIES.index(proposal.queries) > QUERIES.index(policy.queries):
        raise PolicyRefusal(
            "queries",
            f"the run asks for {proposal.queries}, this site's policy allows {policy.queries}",
            hint=_hint("queries"),
        )
    if not proposal.answers:
        return
    _at_most(
        "epsilon_per_answer",
        "epsilon for its answers",
        proposal.answer_epsilon,
        policy.max_epsilon_per_answer,
    )
    _at_most("answers_per_run", "answers", proposal.answers, policy.max_answers_per_run)


def _check_norms(policy: SitePolicy, proposal: RunProposal) -> None:
    if proposal.norm_check and policy.norm_check == "refuse":
        raise PolicyRefusal(
            "norm_check",
            "the run tells 64 numbers of each tensor of this site's updates to all parties, so "
            "that their size can be checked, and this site's policy does not accept that",
            hint="Set [policy] norm_check = 'accept' if whoever is responsible for the data agrees "
            "(docs/policy.md); or plan with federation.norm_check = false.",
        )
    if not proposal.norm_check and policy.norm_check == "require":
        raise PolicyRefusal(
            "norm_check",
            "the run does not check how large each site's update is, and this site's policy "
            "requires that",
            hint="Set federation.norm_check = true, which is for local noise and for training.",
        )


def check_answers_per_year(policy: SitePolicy, *, given: int, planned: int) -> None:
    """Return if a policy allows so many more answers.

    Args:
        policy: The site's own.
        given: By all runs in the last 365 days, or held for them.
        planned: By this run.

    Raises:
        PolicyRefusal: It does not.
    """
    _at_most(
        "answers_per_year",
        f"answers, with {given} that were given or are held in the last 365 days",
        given + planned,
        policy.max_answers_per_year,
    )


def check_extensions(policy: SitePolicy, names: tuple[str, ...]) -> None:
    """Return if a policy allows these to run. To be asked before they are imported, too.

    Args:
        policy: The site's own.
        names: Of other packages' code.

    Raises:
        PolicyRefusal: Names the first that it does not.
    """
    for name in names:
        if name not in policy.extensions:
            raise PolicyRefusal(
                "extension",
                f"{name} is code of another package, and this site's policy names "
                f"{', '.join(policy.extensions) or 'none'}",
                hint=_hint("extension"),
            )


def _at_least(rule: str, what: str, asked: int, least: int) -> None:
    if not asked >= least:
        raise PolicyRefusal(
            rule,
            f"the run plans {asked} {what}, this site's policy asks for at least {least}",
            hint=_hint(rule),
        )


def _at_most(rule: str, what: str, asked: float, most: float | None) -> None:
    if most is not None and not asked <= most:  # refuses NaN too
        raise PolicyRefusal(
            rule,
            f"the run plans {asked:g} {what}, above this site's limit of {most:g}",
            hint=_hint(rule),
        )


def _listed(rule: str, what: str, asked: str, allowed: tuple[str, ...] | None) -> None:
    if allowed is not None and asked not in allowed:
        raise PolicyRefusal(
            rule,
            f"{what} {asked} is not among those that this site allows: {', '.join(allowed)}",
            hint=_hint(rule),
        )


def _hint(rule: str) -> str:
    return (
        f"Plan the run within it, or have whoever is responsible for the data change the "
        f"policy (rule {rule}) in the site's own file."
    )
