"""A site's own settings (`site.toml`) and a custodian's: they never leave either.

What `[policy]` of a site may say is in `privacy.policy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, get_args, get_type_hints

import msgspec

from fmfl_secure.extensions import is_extension
from fmfl_secure.registry import nearest
from fmfl_secure.settings.sections import AggregationSection
from fmfl_secure.settings.tasks import ExtensionSection, TaskSection
from fmfl_secure.settings.types import AdapterKind, NonEmpty, Section
from privacy import MIN_SHARE, Dataset, DatasetCap, SitePolicy
from privacy.storage import is_url, without_secrets

# Names that a policy's lists may hold besides other packages', by rule.
_NAMES: Final = {
    "tasks": tuple(
        str(each.__struct_config__.tag)
        for each in get_args(TaskSection)
        if each is not ExtensionSection  # which goes by its own name
    ),
    "adapters": get_args(AdapterKind),
    "suites": get_args(get_type_hints(AggregationSection)["suite"]),
}


class SiteData(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[data]` of `site.toml`.

    Attributes:
        path: The training file.
        name: The custodian's own name for this data set. The ledger notes it with every run;
            empty counts as any of them.
        visibility: `private`, or `public` for data anyone may see.
        holdout: A file of held-out units, of the same columns: never trained on, and asked where
            `[evaluation] data = "sites"`. People who are in both files are in this one alone. Empty
            for none beside those that `evaluation.holdout` sets apart.
        holdout_key: Where this site's secret is that decides who these are; made where there is
            none. Sites' folders about the same people name the same one. Keep it as long as the
            ledger: with another, units that were trained on would be asked.
    """

    path: NonEmpty
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    visibility: Literal["private", "public"] = "private"
    holdout: str = ""
    holdout_key: NonEmpty = "holdout.key"


class SiteBudget(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[budget]` of `site.toml`.

    Attributes:
        population: The custodian's name for the people in the data; the ledger belongs to it.
        ledger: Where the ledger is: a file, or the URL of a PostgreSQL database. Every data set
            about the same people names the same one.
        anchors: File or folder of the data-protection officer's anchors, which the ledger has to
            hold before anything is reserved; empty for none.
        reservation_days: For how long a run's budget is held. A training that has not begun by
            then never will, and what it would have cost comes back.
    """

    population: NonEmpty
    ledger: NonEmpty = "ledger.sqlite"
    anchors: str = ""
    reservation_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 30

    def __repr__(self) -> str:
        ledger = without_secrets(self.ledger)
        return f"SiteBudget({self.population!r}, ledger={ledger!r}, anchors={self.anchors!r}, ...)"

    def ledger_from(self, folder: Path) -> Path | str:
        """Where the ledger is, seen from a site's folder. A URL may hold a password."""
        return self.ledger if is_url(self.ledger) else folder / self.ledger


class SiteTime(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[time]` of `site.toml`.

    Attributes:
        round_s: Shortest time from a round's begin to this site's answer, with
            `privacy.constant_time`: longer than reading the data takes. Where training takes
            longer, a multiple.
    """

    round_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0


class SiteConfig(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of `site.toml`; see the sections. What `[policy]` may say is in `privacy.policy`."""

    data: SiteData
    budget: SiteBudget
    policy: SitePolicy = SitePolicy()
    time: SiteTime = SiteTime()

    def __post_init__(self) -> None:
        if self.policy.caps_datasets and not self.data.name:
            raise ValueError(
                "policy.max_epsilon_per_dataset needs data.name: a data set's budget goes by a "
                "name of the custodian's own, which stays the same when the file changes"
            )
        for rule, known in _NAMES.items():
            for name in getattr(self.policy, rule) or ():
                if name not in known and not is_extension(name):
                    raise ValueError(
                        f"policy.{rule}: nothing is called {name!r}, so that it allows nothing. "
                        f"{nearest(name, known)}Known: {', '.join(known)}"
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
        min_share: The same as a share of all sites that it pinned.
        last_round: Of any run; no later round opens. 0 sets no limit.
    """

    min_sites: Annotated[int, msgspec.Meta(ge=3)] = 3
    min_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = MIN_SHARE
    last_round: Annotated[int, msgspec.Meta(ge=0)] = 0


class CustodianConfig(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole of `custodian.toml`: a custodian's policy."""

    policy: CustodianPolicy = CustodianPolicy()
