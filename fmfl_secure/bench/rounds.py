"""A whole round of the demonstration beside the same round in the clear.

What is paired: at each site the private round runs as in production, on its own Poisson samples,
and every physical batch that it takes is noted. The round in the clear then trains on those: the
same records, the same batches in the same order, the same number of steps.

| | in the clear | encrypted | private |
| --- | --- | --- | --- |
| training | plain | plain, the same | ledger's commit; clipped per unit, noised |
| update | float32 | quantised, stored encrypted | quantised, stored encrypted |
| sum | mean of vectors | keys, masks, CKKS, MAC, signatures | as encrypted |
| next adapter | computed once | at the coordinator and at every site | as encrypted |

Both arms replay the layers below the adapter from memory (`fmfl_secure.models.prefix`), which is
filled before anything is timed: filling costs both the same, once a run, and would only bring the
ratios nearer to 1. Outside the round and in neither arm: reading data, the admission gate,
long-lived keys, reservations, journals, evaluation, reports, and the network.

`fmfl-secure bench round` (`cli.bench`) calls `measure_rounds`, which fills the frozen prefix once
and then measures pair after pair.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregation import Identity, dequantize, quantize
from aggregation.testing import Federation
from fmfl_secure.bench._paired import cpu_seconds, one_thread, spread
from fmfl_secure.demonstration.federation import prepare_demo
from fmfl_secure.models import Layout
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes, set_adapter_tensors
from fmfl_secure.parties.workspace import Workspace
from fmfl_secure.planning.noise import privacy_plan
from fmfl_secure.planning.plans import quantization
from fmfl_secure.planning.task import build_task
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.tasks import TaskData
from fmfl_secure.training.local_round import build_optimizer, train_locally
from fmfl_secure.training.non_private import PhysicalBatches, train_plain
from privacy import Ledger, PrivacyPlan


def measure_rounds(repeats: int) -> dict[str, Any]:
    """Measure pairs of rounds.

    Args:
        repeats: Pairs, after one that is not counted.

    Returns:
        Medians of CPU seconds, all sites together, and the ratios to the round in the clear.
    """
    with tempfile.TemporaryDirectory() as folder, one_thread():
        demonstration = _Demonstration(Path(folder) / "demo")
        first_pass_s = cpu_seconds(demonstration.fill_prefix)
        demonstration.pair(1)  # caches and self-tests
        pairs = [demonstration.pair(number) for number in range(2, repeats + 2)]
    clear = [pair["plain_training"] + pair["clear_sum"] for pair in pairs]
    encrypted = [p["plain_training"] + p["quantise"] + p["protection"] for p in pairs]
    private = [p["private_training"] + p["protection"] for p in pairs]
    return {
        "sites": len(demonstration.sites),
        "parameters": demonstration.layout.size,
        "steps": demonstration.config.privacy.steps_per_round,
        "physical_batch_size": demonstration.config.training.physical_batch_size,
        "repeats": repeats,
        "first_pass_cpu_s": first_pass_s,
        "cpu_s": {
            "clear": statistics.median(clear),
            **{name: statistics.median(pair[name] for pair in pairs) for name in pairs[0]},
        },
        "encrypted_over_clear": spread([e / c for e, c in zip(encrypted, clear, strict=True)]),
        "private_over_clear": spread([p / c for p, c in zip(private, clear, strict=True)]),
    }


@dataclass(slots=True)
class _SiteState:
    """Everything that one site has at hand before a round."""

    data: TaskData
    plan: PrivacyPlan
    ledger: Ledger
    updates: UpdateStore
    steps: list[PhysicalBatches] = field(default_factory=list)
    integers: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    update: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))


class _Demonstration:
    """The demonstration's four clinics, ready for a round."""

    def __init__(self, folder: Path) -> None:
        path = prepare_demo(folder, fresh=False)
        workspace = Workspace(folder)
        self.config = load_federation(path)
        self.task = build_task(self.config, relative_to=folder)
        self.model = self.task.build_model(seed=self.config.federation.seed)
        self.layout = Layout.of(self.model)
        self.grid = quantization(self.config, self.layout, self.layout.size)
        self.adapter = adapter_bytes(self.model)
        self.sites: list[_SiteState] = []
        for entry in self.config.sites:
            own = workspace.site(entry.name)
            data = self.task.load(
                folder / "data" / f"{entry.name}.csv",
                unit=self.config.task.unit,
                on_bad_row=self.config.task.on_bad_row,
            )
            signer = Identity.load(own / "identity.pem", entry.name)
            ledger = Ledger(own / "ledger.sqlite", signer=signer)
            plan = privacy_plan(self.config, entry)
            self.sites.append(_SiteState(data, plan, ledger, UpdateStore.open(own)))
        self.federation = Federation(
            len(self.sites),
            size=self.layout.size,
            bits=self.grid.bits,
            suite=self.config.aggregation.suite,
            key_agreement="x25519-mlkem768",
        )
        self.federation.quantization = self.grid

    def fill_prefix(self) -> None:
        """Run every record through the frozen layers once."""
        for site in self.sites:
            self.task.evaluate(
                self.model, site.data, batch_size=self.config.training.physical_batch_size
            )

    def pair(self, number: int) -> dict[str, float]:
        """CPU seconds of the parts of one private round and of the same in the clear."""
        run = f"bench-{number}"
        for site in self.sites:  # not of the round: the officer and the run's start
            site.ledger.grant(
                epsilon=self.config.privacy.epsilon,
                delta=self.config.privacy.delta,
                delta_reason="a benchmark on made-up records: a grant for each pair of rounds",
            )
            site.ledger.reserve(
                run=run, event=site.plan.round_event(), rounds=1, plan=self.config.digest
            )
        seconds: defaultdict[str, float] = defaultdict(float)
        for site in self.sites:
            seconds["private_training"] += cpu_seconds(partial(self._train_private, run, site))
            seconds["plain_training"] += cpu_seconds(partial(self._train_plain, site))
        seconds["clear_sum"] = cpu_seconds(self._sum_in_the_clear)
        seconds["quantise"] = cpu_seconds(self._quantise_plain)
        seconds["protection"] = cpu_seconds(partial(self._sum_encrypted, run, number))
        return dict(seconds)

    def _train_private(self, run: str, site: _SiteState) -> None:
        """As `Site.train` does, with a note of every physical batch."""
        step: list[NDArray[np.int64]] = []
        site.steps = []

        def collate(records: NDArray[np.int64]) -> Any:
            step.append(records)
            return site.data.collate(records)

        def on_step(_: int) -> None:
            site.steps.append(step.copy())
            step.clear()

        site.ledger.commit(run=run, round=1)
        site.integers = train_locally(
            self.model,
            self.adapter,
            dataclasses.replace(site.data, collate=collate),
            config=self.config,
            task=self.task,
            plan=site.plan,
            layout=self.layout,
            rank=self.config.adapter.rank,
            quantization=self.grid,
            on_step=on_step,
        )

    def _train_plain(self, site: _SiteState) -> None:
        """The batches just noted, without privacy."""
        set_adapter_tensors(self.model, load_adapter_bytes(self.adapter))
        before = self.layout.flatten(self.model)
        train_plain(
            self.model,
            site.steps,
            loss=self.task.per_record_loss,
            collate=site.data.collate,
            optimizer=build_optimizer(self.model, self.config.training),
        )
        site.update = (self.layout.flatten(self.model) - before).astype(np.float32)

    def _quantise_plain(self) -> None:
        """Quantises updates trained without privacy, as encryption needs; else of no use here."""
        for site in self.sites:
            quantize(site.update, self.grid)

    def _sum_in_the_clear(self) -> None:
        self._next_adapter(np.mean([site.update for site in self.sites], axis=0, dtype=np.float64))

    def _sum_encrypted(self, run: str, number: int) -> None:
        """From quantised updates to the next adapter at the coordinator and at every site."""
        federation = self.federation
        for site in self.sites:
            site.updates.put(run, number, site.integers)
        attempt = federation.start(federation.plan(round_=number))
        aggregator = federation.new_aggregator(attempt)
        handed = federation.handed(attempt)
        for site, (name, party) in zip(self.sites, attempt.sites.items(), strict=True):
            upload = party.upload(attempt.cohort, site.integers, handed[name])
            aggregator.add(upload.manifest, upload.chunks)
        listed = federation.decryptor.confirm(
            attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
        )
        for party in attempt.sites.values():
            aggregator.add_opening(party.open(listed))
        total = aggregator.total()
        release = federation.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
        sums = [party.verify(release) for party in attempt.sites.values()]
        sums.append(federation.coordinator.verify(attempt.cohort, release))
        for verified in sums:
            self._next_adapter(dequantize(verified, self.grid, float(len(self.sites))))

    def _next_adapter(self, mean: NDArray[np.float64]) -> None:
        set_adapter_tensors(self.model, load_adapter_bytes(self.adapter))
        self.layout.unflatten_into(self.model, self.layout.flatten(self.model) + mean)
        adapter_bytes(self.model)
