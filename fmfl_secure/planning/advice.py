"""A verdict before anything is spent: which adapter, what would change it, what to change first.

From the settings and records made up alone (`fmfl_secure.planning.signal`), with thresholds from
measurements on public texts (docs/results.md). A head whose ratio over the run is below 1 ends
points below what it reaches without noise. That an adapter rises above its noise is not enough for
it to pay: of those measured, up to a ratio of 3 in every step, none was better than the linear
head alone by 2 points. So an adapter is advised from 4 on, which is a margin and no measurement,
and from 1 on it is named as one to compare. Candidates are kinds that were measured and may pay;
normalisations rise above their noise as well, and were worse than the head.

Of images those thresholds say nothing: on both sets that were measured (docs/results-models.md)
FFA-LoRA was better than the head, by 5 to 19 points, though both were below their noise in a step.
Its signal was above the head's there, each beside its own noise; so that decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from fmfl_secure.planning.readings import Noise, Reading, Signal, noise_in, with_noise
from fmfl_secure.planning.steps import stepping_at
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.noise import DISTRIBUTED, LOCAL
from fmfl_secure.settings.tasks import ImageClassificationSection, TextClassificationSection
from fmfl_secure.settings.types import LOW_RANK_KINDS, Section
from privacy import PlanError

CANDIDATES: Final = ("head", "ffa-lora", "lora", "lora-xs")
_RISES = 1.0  # in a step, of an adapter: it may be worth a comparison
MEASURED: Final = 2.7  # in a step: up to here none on MiniLM was better than the head by 2 points
_PAYS = 4.0  # clear of that
_LEARNS = 1.0  # over the run, of a head
_PLENTY = 2.0  # over the run: measured, nothing is lost from here on
_WORTH_SAYING = 1.05  # of a ratio
_MOST_CHANGES = 3
_ON_IMAGES = "ffa-lora"  # what was measured there


@dataclass(frozen=True, slots=True)
class Change:
    """A setting to change.

    Attributes:
        setting: What to write.
        gain: What it multiplies the head's signal-to-noise ratio over the run by; 1 where what it
            brings is no ratio.
        words: What it brings, and what it asks.
    """

    setting: str
    gain: float
    words: str


@dataclass(frozen=True, slots=True)
class Advice:
    """Expectations of settings, and changes that would help.

    Attributes:
        readings: By kind of adapter, steps taken at the server.
        verdict: The kind to train.
        shares: Whether noise is in shares.
        sites: How many there are.
        other: The head's ratio over the run with the other mechanism; None where that cannot be.
        insider_epsilon: What all other sites together would learn with shares; None without figure.
        changes: At most three, what helps most first.
        of_images: Whether images are classified.
    """

    readings: tuple[Reading, ...]
    verdict: str
    shares: bool
    sites: int
    other: float | None
    insider_epsilon: float | None
    changes: tuple[Change, ...]
    of_images: bool = False

    def of(self, kind: str) -> Reading:
        """Returns the reading of one kind of adapter."""
        return next(reading for reading in self.readings if reading.kind == kind)

    def sentences(self) -> list[str]:
        """The verdict in words and figures."""
        chosen = self.of(self.verdict)
        told = [
            (
                f"train {self.verdict}: {chosen.above:,} of {chosen.numbers:,} trained numbers "
                "rise above their noise in a step; over the run the head's signal is "
                f"{chosen.head_in_run:.2f} times its noise"
            ),
            *self._more(),
        ]
        if self.other is not None:
            here, there = chosen.head_in_run, self.other
            local, shared = (there, here) if self.shares else (here, there)
            better = "distributed" if shared > local else "local"
            learn = f"{self.insider_epsilon:.3g}" if self.insider_epsilon is not None else "more"
            told.append(
                f"{better} noise: {shared:.2f} times with shares, {local:.2f} with noise of each "
                f"site's own; with shares all other sites together could learn epsilon {learn}"
            )
        return told

    def _more(self) -> Iterator[str]:
        """How many more sites or units it takes."""
        chosen = self.of(self.verdict)
        if chosen.head_in_run < _LEARNS and not chosen.signal.adapter_size:
            yield "even the head is below its noise; it would rise above it with " + self._with(
                _LEARNS / chosen.head_in_run if chosen.head_in_run else math.inf
            )
        adapters = [reading for reading in self.readings if reading.signal.adapter_size]
        if self.of_images:
            yield (
                f"on the two sets of images that were measured {_ON_IMAGES} was better than the "
                "head, and its signal in a step above the head's, each beside its own noise; here "
                f"it is {self._beside_the_head()}. Compare both on public data first"
            )
        elif adapters and not chosen.signal.adapter_size:
            best = max(adapters, key=lambda reading: reading.adapter)
            needed = _PAYS / best.adapter if best.adapter else math.inf
            yield (
                f"no adapter pays yet: {best.kind}'s signal is {best.adapter:.2g} times its noise "
                f"in a step; at up to {MEASURED:g} times, none that was measured on an encoder was "
                f"better than the head by 2 points; it would be {_PAYS:g} times with "
                f"{self._with(needed)}"
            )
            rising = [reading.kind for reading in adapters if reading.adapter >= _RISES]
            if rising:
                yield (
                    f"above their noise: {', '.join(rising)}. Whether they have anything to add no "
                    "plan can tell: compare them with the head on public data first"
                )

    def _beside_the_head(self) -> str:
        found = [reading for reading in self.readings if reading.kind == _ON_IMAGES]
        if not found:
            return "not known, as it does not go with this model"
        return f"{found[0].adapter:.2g} beside {found[0].head:.2g}"

    def _with(self, times: float) -> str:
        if not math.isfinite(times) or times > 1e6:
            return "no number of sites or units that there could be"
        # Noise of sites' own averages out over sites; one noise is shared by all units.
        sites = math.ceil(self.sites * (times if self.shares else times**2))
        allowed = " (min_sites in proportion, if custodians allow what the others learn then)"
        cohort = allowed if self.shares else ""
        return f"{sites:,} sites like these{cohort}, or {times:.1f} times the units at each"


def advise(config: FederationConfig, signals: Mapping[str, Signal]) -> Advice:
    """Reads the signal of these settings against their noise, and proposes changes.

    Args:
        config: The settings, with privacy.
        signals: What to expect of each kind's gradients.

    Raises:
        PlanError: The settings cannot be met.
    """
    given, config = config, _at_server(config)
    if config.privacy.noise_mechanism.in_shares:
        # What the others may learn is told of each, and rules none out: the settings' own met it.
        config = with_noise(config, config.privacy.noise)
    readings = []
    for kind, signal in signals.items():
        noise = noise_in(with_kind(config, kind), signal.head_size + signal.adapter_size)
        readings.append(Reading(kind, signal, noise))
    of_images = isinstance(config.task, ImageClassificationSection)
    paying = [
        reading
        for reading in readings
        if (
            reading.kind == _ON_IMAGES and reading.adapter > reading.head
            if of_images
            else reading.adapter >= _PAYS
        )
    ]
    verdict = max(paying, key=lambda reading: reading.adapter).kind if paying else "head"
    chosen = next(reading for reading in readings if reading.kind == verdict)
    config = with_kind(config, verdict)
    other = _noise(_other_mechanism(config), chosen.numbers)
    ranked = sorted(_changes(given, config, chosen, other), key=lambda change: -change.gain)
    return Advice(
        readings=tuple(readings),
        verdict=verdict,
        shares=config.privacy.noise_mechanism.in_shares,
        sites=len(config.sites),
        other=None if other is None else replace(chosen, noise=other).head_in_run,
        insider_epsilon=chosen.noise.insider_epsilon or (other.insider_epsilon if other else None),
        changes=tuple(ranked[:_MOST_CHANGES]),
        of_images=of_images,
    )


def _at_server(config: FederationConfig) -> FederationConfig:
    """Steps at the server, where they can be: noise averages out before the optimizer looks."""
    try:
        return stepping_at(config, "server")
    except ValueError:
        return config


def with_kind(config: FederationConfig, kind: str) -> FederationConfig:
    """The same settings with another kind of adapter."""
    adapter = msgspec.structs.replace(
        config.adapter,
        kind=kind,
        personal=(),  # what is learned is the same, wherever it is kept
        personal_head=False,
    )
    sites = config.sites
    if kind not in LOW_RANK_KINDS:
        sites = tuple(msgspec.structs.replace(site, rank=0) for site in sites)
    return msgspec.structs.replace(config, adapter=adapter, sites=sites)


def _other_mechanism(config: FederationConfig) -> FederationConfig | None:
    name = LOCAL.name if config.privacy.noise_mechanism.in_shares else DISTRIBUTED.name
    try:
        return with_noise(config, name)
    except ValueError:
        return None


def _noise(config: FederationConfig | None, size: int) -> Noise | None:
    try:
        return None if config is None else noise_in(config, size)
    except PlanError:
        return None


def _changes(
    given: FederationConfig, config: FederationConfig, chosen: Reading, other: Noise | None
) -> Iterator[Change]:
    """Yields changes that would help, in any order."""
    privacy, structs = config.privacy, msgspec.structs.replace
    if given.adapter.kind != chosen.kind:
        yield Change(
            f"adapter.kind = {chosen.kind!r}",
            math.inf,
            f"{chosen.numbers:,} trained numbers, each with less noise beside its signal",
        )
    if not given.steps_at_server and config.steps_at_server:
        yield Change(
            "training.steps_at = 'server', privacy.steps_per_round = 1",
            math.inf,
            "noise averages out over the sites before the optimizer looks; one upload a step",
        )
    unnamed = isinstance(config.task, TextClassificationSection) and not config.task.label_texts
    if unnamed and chosen.head_in_run < _PLENTY:
        yield Change(
            "task.label_texts",
            _PLENTY / max(chosen.head_in_run, 1e-9),
            "a start from what the labels mean costs no epsilon, where their names say something",
        )
    if other is not None and other.insider_epsilon is not None:
        yield from _better(
            chosen,
            other,
            f"privacy.noise = 'distributed', insider_epsilon = {other.insider_epsilon:.3g}",
            "asks that custodians accept what all other sites together could learn",
        )
    if not privacy.noise_mechanism.in_shares and privacy.accounting == "filter":
        exact = _try(config, privacy=structs(privacy, accounting="exact"))
        yield from _better(
            chosen,
            _noise(exact, chosen.numbers),
            "privacy.accounting = 'exact'",
            "asks a grant for this run alone",
        )
    rounds = config.federation.rounds
    longer = _try(config, federation=structs(config.federation, rounds=2 * rounds))
    yield from _better(
        chosen,
        _noise(longer, chosen.numbers),
        f"federation.rounds = {2 * rounds}",
        "takes twice the time and uploads",
    )
    rate = min(1.0, 2 * privacy.sample_rate)
    larger = _try(config, privacy=structs(privacy, sample_rate=rate))
    yield from _better(
        chosen,
        _noise(larger, chosen.numbers),
        f"privacy.sample_rate = {rate:g}",
        f"takes {rate / privacy.sample_rate:.2g} times as long at every site",
    )


def _try(config: FederationConfig, **sections: Section) -> FederationConfig | None:
    try:
        return msgspec.structs.replace(config, **sections)
    except ValueError:
        return None


def _better(chosen: Reading, noise: Noise | None, setting: str, asks: str) -> Iterator[Change]:
    if noise is None or not chosen.head_in_run:
        return
    then = replace(chosen, noise=noise).head_in_run
    gain = then / chosen.head_in_run
    if gain >= _WORTH_SAYING:
        yield Change(
            setting,
            gain,
            f"the head's signal is {then:.2f} times its noise over the run, not "
            f"{chosen.head_in_run:.2f}; {asks}",
        )
