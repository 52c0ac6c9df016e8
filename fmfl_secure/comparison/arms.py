"""The rows of a comparison, each a change of the federation's own settings.

Every arm takes as many steps of the same optimizer, on released gradients with one memory for the
run, at the same sample rate, clipping bound and learning rates; every private one is calibrated to
the same epsilon and delta. So what differs between two is what their names say. None pays for
repeats.

    federated     without privacy: neither clipped nor noised
    slower        the same at a third of the learning rates. Noise holds Adam's steps back, so rates
                  that suit noise overfit few examples without it (docs/results.md)
    pooled        one party has all data: one noise
    distributed   the sites' noise adds up to one noise
    local         every site's gradient has noise of its own
    local-site    the same, with several steps at the site between uploads, whose difference is
                  averaged; weights and server optimizer as the settings say
    fedprox       the same with FedProx, at the settings' strength or 0.1
    personal      the same, where every site keeps parts of its own: those that the settings name
                  (`adapter.personal`), or its head
    alone         every site by itself; the mean over the sites is reported

Each is trained with every adapter that is asked for; the linear probe is the adapter `head`.

`comparison.compare` goes through `ARMS` and asks each for its settings; `comparison.summary` names
the rows by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import msgspec

from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.noise import DISTRIBUTED, LOCAL, NONE, NoiseMechanism
from fmfl_secure.settings.sections import EvaluationSection, SiteEntry, TrainingSection
from fmfl_secure.settings.types import HEAD_PART

Parties = Literal["together", "alone", "pooled"]

POOLED = "pooled"  # the name of the one party that has all data

_UNLIMITED = 1e9  # what other sites may learn is reported of the arm, and limits nothing here


@dataclass(frozen=True, slots=True)
class Arm:
    """One row of the table.

    Attributes:
        title: In words.
        noise: Where noise comes from.
        parties: Who trains: the federation, each site by itself, or one party with all data.
        at_sites: Whether steps are taken at the sites.
        rate: What learning rates are multiplied by.
        proximal: FedProx's strength where the settings have none.
        own_parts: Whether every site keeps parts of its own.
    """

    title: str
    noise: NoiseMechanism
    parties: Parties = "together"
    at_sites: bool = False
    rate: float = 1.0
    proximal: float = 0.0
    own_parts: bool = False

    @property
    def private(self) -> bool:
        """Whether it has a privacy target."""
        return self.noise.private

    def settings(
        self, config: FederationConfig, *, steps_per_round: int, epsilon: float, seed: int
    ) -> FederationConfig:
        """The federation's settings with this arm's changes.

        Args:
            config: The federation's own.
            steps_per_round: Of arms that take several; the number of steps is the settings' own.
            epsilon: The privacy target.
            seed: Of the adapter's initial values.

        Raises:
            ValueError: They do not go together.
        """
        privacy, federation = config.privacy, config.federation
        steps = federation.rounds * privacy.steps_per_round
        at_once = steps_per_round if self.at_sites else 1
        rounds = max(1, round(steps / at_once))
        replace = msgspec.structs.replace
        one = self.parties == "pooled"
        return replace(
            config,
            federation=replace(
                federation,
                rounds=rounds,
                seed=seed,
                min_sites=1 if one else federation.min_sites,
                weights=federation.weights if self.at_sites else "equal",
            ),
            adapter=replace(
                config.adapter,
                personal=(config.adapter.personal_parts or (HEAD_PART,)) if self.own_parts else (),
                personal_head=False,
            ),
            # One model is scored by the comparison itself; parts of sites' own leave many.
            evaluation=EvaluationSection() if self.own_parts else config.evaluation,
            privacy=replace(
                privacy,
                noise=self.noise.name,
                epsilon=epsilon,
                steps_per_round=at_once,
                repeats=0,
                insider_epsilon=_UNLIMITED if self.noise.in_shares else 0.0,
            ),
            training=self._training(config.training),
            sites=_pooled(config) if one else config.sites,
        )

    def _training(self, training: TrainingSection) -> TrainingSection:
        training = msgspec.structs.replace(
            training,
            learning_rate=self.rate * training.learning_rate,
            head_learning_rate=self.rate * training.head_learning_rate,
        )
        if self.at_sites:
            return msgspec.structs.replace(
                training,
                steps_at="site",
                proximal=(training.proximal or self.proximal) if self.proximal else 0.0,
            )
        return msgspec.structs.replace(
            training,
            steps_at="server",
            server_optimizer="average",
            server_learning_rate=1.0,
            proximal=0.0,
        )


def _pooled(config: FederationConfig) -> tuple[SiteEntry, ...]:
    population = sum(site.population for site in config.sites)
    return (SiteEntry(name=POOLED, population=population),)


ARMS = MappingProxyType(
    {
        "federated": Arm("federated, not private", NONE),
        "slower": Arm("federated, not private, a third of the learning rate", NONE, rate=1 / 3),
        "alone": Arm("each site alone, private", LOCAL, parties="alone"),
        "local": Arm("federated, private: local noise", LOCAL),
        "local-site": Arm(
            "federated, private: local noise, steps at the sites", LOCAL, at_sites=True
        ),
        "fedprox": Arm(
            "federated, private: local noise, steps at the sites, FedProx",
            LOCAL,
            at_sites=True,
            proximal=0.1,
        ),
        "personal": Arm(
            "federated, private: local noise, steps at the sites, parts of their own",
            LOCAL,
            at_sites=True,
            own_parts=True,
        ),
        "distributed": Arm("federated, private: distributed noise", DISTRIBUTED),
        "pooled": Arm("pooled, private", LOCAL, parties="pooled"),
    }
)
"""By the name that `--only` takes, in the order of the table. Before them comes the majority
class, or for tasks without classes the model before any training."""
