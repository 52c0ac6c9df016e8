"""Measures a round of the embedded engine beside the protocol's own steps.

One real run of many rounds in one process: the demonstration's four clinics, with every role,
ledger, journal and file, and so little training that it is soon over. After each round the same
process takes the protocol's own steps once more, by themselves and in memory: a plan, keys,
exchanges, uploads of random values, sum, opening, release, and its check by everybody. Each round
is one pair:

    engine      all of a round but training: those steps, and what makes them a run that may be
                killed and looked at: charges, chained journals and ledgers on the disk, heads told
                to others, stored updates, the next adapter at everybody, the run's own state
    protocol    those steps alone

Both are CPU time on one thread. The run's start and its end, with the report, are in neither.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from aggregation.testing import Federation
from fmfl_secure.bench._paired import cpu_seconds, one_thread, spread
from fmfl_secure.bench.shares import RoundClock
from fmfl_secure.demonstration.federation import prepare_demo
from fmfl_secure.planning.task import build_task, largest_layout
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.transports.local.engine import LocalEngine

_FIRST = 2  # rounds that fill caches
_NOTES = 100  # at each site


def measure_engine(rounds: int) -> dict[str, Any]:
    """Measure rounds of one run.

    Args:
        rounds: Rounds that count.

    Returns:
        Medians of CPU seconds a round, all parties together, and the ratio of engine to protocol.
    """
    with tempfile.TemporaryDirectory() as folder, one_thread():
        federation = prepare_demo(
            Path(folder) / "demo", fresh=False, notes_per_site=_NOTES, holdout=1
        )
        config = _with_rounds(load_federation(federation), _FIRST + rounds)
        task = build_task(config, relative_to=federation.parent)
        size = largest_layout(task, task.build_model(seed=config.federation.seed)).size
        clock = _Pairs(
            Federation(
                len(config.sites),
                size=size,
                bits=config.aggregation.bits,
                suite=config.aggregation.suite,
                key_agreement="x25519-mlkem768",
            )
        )
        output = Path(folder) / "run"
        LocalEngine(federation, output, resume=False, observer=clock, config=config).run()
    pairs = clock.pairs[_FIRST:]
    parts = {"training": "training", "engine": "protocol", "protocol": "alone"}
    ratios = [pair["protocol"] / pair["alone"] for pair in pairs]
    return {
        "mode": "engine",
        "sites": len(config.sites),
        "parameters": size,
        "rounds": rounds,
        "cpu_s": {
            name: statistics.median(pair[part] for pair in pairs) for name, part in parts.items()
        },
        "engine_over_protocol": spread(ratios),
    }


def _with_rounds(config: FederationConfig, rounds: int) -> FederationConfig:
    """The demonstration's settings for a run of many rounds and hardly any training."""
    return msgspec.structs.replace(
        config,
        federation=msgspec.structs.replace(config.federation, rounds=rounds),
        privacy=msgspec.structs.replace(config.privacy, steps_per_round=1),
        evaluation=msgspec.structs.replace(config.evaluation, data=""),
    )


class _Pairs(RoundClock):
    """Takes the protocol's own steps after each round, outside of its time."""

    def __init__(self, federation: Federation) -> None:
        super().__init__()
        self._federation = federation

    def round_finished(self, *told: Any, **named: Any) -> None:
        """A round is complete; its pair follows."""
        super().round_finished(*told, **named)
        number = len(self.pairs)
        self.pairs[-1]["alone"] = cpu_seconds(partial(_take_steps, self._federation, number))
        self.restart()


def _take_steps(federation: Federation, number: int) -> None:
    """A round's steps up to the verified sum, at everybody who verifies it."""
    attempt = federation.start(federation.plan(round_=number))
    release = federation.release(attempt)
    for site in attempt.sites.values():
        site.verify(release)
    federation.coordinator.verify(attempt.cohort, release)
