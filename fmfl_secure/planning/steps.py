"""The two places where steps can be taken, side by side: what each uploads, and its noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from fmfl_secure.planning.noise import Place, noise_of
from fmfl_secure.planning.plans import site_plan, upload_bytes
from fmfl_secure.settings.federation import FederationConfig

USUAL_STEPS = 4
"""Steps between two uploads, where settings that step at the server do not say."""


@dataclass(frozen=True, slots=True)
class StepsAt:
    """Figures of a run that takes its steps in one place.

    Attributes:
        place: Where.
        chosen: Whether the settings say so.
        rounds: Uploads of a site.
        steps_per_round: Between two of them.
        upload_bytes: Of one site, in one round.
        noise_multiplier: At every site.
    """

    place: Place
    chosen: bool
    rounds: int
    steps_per_round: int
    upload_bytes: int
    noise_multiplier: float


def stepping_at(
    config: FederationConfig, place: Place, *, steps_per_round: int = USUAL_STEPS
) -> FederationConfig:
    """The settings with as many steps, taken in a place.

    Args:
        config: The settings, with local noise or none.
        place: Where.
        steps_per_round: At the sites, where the settings step elsewhere; rounds are rounded up.

    Raises:
        ValueError: The settings do not go with it.
    """
    replace = msgspec.structs.replace
    steps = config.federation.rounds * config.privacy.steps_per_round
    at_server = place == "server"
    if at_server == config.steps_at_server:
        return config
    at_once = 1 if at_server else steps_per_round
    training = replace(config.training, steps_at=place)
    if at_server:
        training = replace(
            training, server_optimizer="average", server_learning_rate=1.0, proximal=0.0
        )
    weights = "equal" if at_server else config.federation.weights
    return replace(
        config,
        federation=replace(config.federation, rounds=-(-steps // at_once), weights=weights),
        privacy=replace(config.privacy, steps_per_round=at_once),
        training=training,
    )


def both_places(config: FederationConfig, size: int) -> Iterator[StepsAt]:
    """Both, the settings' own first; that one alone where the other cannot be.

    Args:
        config: The settings, with privacy.
        size: Trained parameters of the round that trains most, d.

    Raises:
        PlanError: The target cannot be met.
        ParameterError: No encryption parameter set fits.
    """
    own: Place = "server" if config.steps_at_server else "site"
    for place in sorted(noise_of(config).steps_at, key=lambda place: place != own):
        try:
            changed = stepping_at(config, place)
        except ValueError:  # such as a head of a site's own, which the server does not step
            continue
        plan = site_plan(changed, changed.sites[0], size)
        if plan is not None:
            yield StepsAt(
                place=place,
                chosen=place == own,
                rounds=changed.federation.rounds,
                steps_per_round=changed.privacy.steps_per_round,
                upload_bytes=upload_bytes(changed, size),
                noise_multiplier=plan.noise_multiplier,
            )
