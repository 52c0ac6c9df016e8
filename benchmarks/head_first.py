"""Whether the head before the adapter pays: for a share of the steps, the head alone is trained.

Through the product's own rounds in the clear (`fmfl_secure.comparison`), with a task whose first
rounds leave the adapter frozen: noise falls on fewer numbers then, and the adapter has a gradient
from its first step on. Rows are appended to a file of JSON lines, and those there are skipped:

    python benchmarks/head_first.py examples/medical_abstracts/federation.toml \
        --output docs/results/head_first.jsonl --arm distributed --epsilon 3
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from fmfl_secure.comparison import ARMS, OWN
from fmfl_secure.comparison.simulate import simulate
from fmfl_secure.comparison.sources import Sources
from fmfl_secure.models.layout import Layout
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.tasks import Task


class HeadFirst:
    """A task whose first rounds train the head alone."""

    def __init__(self, task: Task, rounds: int) -> None:
        self._task, self._rounds = task, rounds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def begin_round(self, model: nn.Module, number: int) -> Layout:
        """The round's layout; leaves what it does not train without gradients."""
        slots = self._both(model).slots
        named = dict(model.named_parameters())
        for slot in slots:
            alone = number <= self._rounds and not slot.name.startswith("head.")
            named[slot.name].requires_grad_(not alone)
        return Layout.of(model)

    @property
    def distinct_rounds(self) -> tuple[int, ...]:
        """One of each sort."""
        return (1, self._rounds + 1)

    def _both(self, model: nn.Module) -> Layout:
        for name, parameter in model.named_parameters():
            if name in self._trained(model):
                parameter.requires_grad_(requires_grad=True)
        return self._task.begin_round(model, 1)

    def _trained(self, model: nn.Module) -> frozenset[str]:
        if not hasattr(self, "_names"):
            self._names = frozenset(n for n, p in model.named_parameters() if p.requires_grad)
        return self._names


def measure(
    config: FederationConfig,
    sources: Sources,
    *,
    arm: str,
    epsilon: float,
    seed: int,
    share: float,
) -> dict[str, float]:
    """Accuracy and macro F1 after all steps."""
    changed = ARMS[arm].settings(config, steps_per_round=1, epsilon=epsilon, seed=seed)
    task: Any = sources.task(changed)
    if share:
        task = HeadFirst(task, round(share * changed.federation.rounds))
    shares = sources.shares(changed, OWN, seed)
    (parties,) = sources.parties(ARMS[arm], changed, shares)
    trained = simulate(changed, task, parties)
    size = changed.training.physical_batch_size
    found = task.evaluate(trained.model, sources.evaluation(changed), batch_size=size)
    return {name: round(found[name], 4) for name in ("accuracy", "macro_f1")}


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("federation", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--arm", nargs="*", default=["distributed"])
    parser.add_argument("--epsilon", type=float, nargs="*", default=[3.0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--share", type=float, nargs="*", default=[0.0, 0.3])
    parser.add_argument("--from-zero", action="store_true", help="Without task.label_texts.")
    given = parser.parse_args()
    config = load_federation(given.federation)
    if given.from_zero:
        task = msgspec.structs.replace(config.task, label_texts=())
        config = msgspec.structs.replace(config, task=task)
    sources = Sources(given.federation, config)
    go(config, sources, given)


def go(config: FederationConfig, sources: Sources, given: argparse.Namespace) -> None:
    """All rows that are asked for."""
    lines = given.output.read_text().splitlines() if given.output.exists() else []
    done = {key(json.loads(line)) for line in lines}
    for seed in range(1, given.seeds + 1):
        for arm in given.arm:
            for epsilon in given.epsilon:
                for share in given.share:
                    row = {
                        "data": config.federation.name,
                        "start": "zero" if given.from_zero else "labels",
                        "adapter": config.adapter.kind,
                        "arm": arm,
                        "epsilon": epsilon,
                        "head_first": share,
                        "seed": seed,
                    }
                    if key(row) in done:
                        continue
                    chosen = {"arm": arm, "epsilon": epsilon, "seed": seed, "share": share}
                    row |= measure(config, sources, **chosen)
                    with given.output.open("a") as file:
                        file.write(json.dumps(row) + "\n")


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What makes it one row."""
    names = ("data", "start", "adapter", "arm", "epsilon", "head_first", "seed")
    return tuple(row[name] for name in names)


if __name__ == "__main__":
    main()
