"""What is chosen by name: an unknown name is refused, and nothing stands for it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import msgspec
import pytest
from task_cases import task_on

from fmfl_secure.errors import ConfigError, UnknownKind
from fmfl_secure.models.adapters import ADAPTERS
from fmfl_secure.planning.noise import PLANNED_NOISE
from fmfl_secure.registry import Registry
from fmfl_secure.settings.noise import NOISE, NoiseName
from fmfl_secure.settings.sections import TrainingSection
from fmfl_secure.settings.types import AdapterKind, OptimizerName, ServerOptimizerName
from fmfl_secure.tasks import TASKS, make_task
from fmfl_secure.training.local_round import step_optimizer
from fmfl_secure.training.server_optimizers import SERVER_OPTIMIZERS, STEP_OPTIMIZERS

REGISTRIES = {
    "adapters": ADAPTERS,
    "tasks": TASKS,
    "noise": NOISE,
    "planned-noise": PLANNED_NOISE,
    "optimizers": STEP_OPTIMIZERS,
    "server-optimizers": SERVER_OPTIMIZERS,
}
PRODUCT = Path(__file__).parents[2] / "fmfl_secure"
# Where a kind's name is compared outside its entry, and why it may be.
COMPARED = {
    # The engine of a run, which is no noise mechanism.
    ("cli/run.py", "local"),
    ("bench/flower.py", "local"),
    # A benchmark of bare models, without the registry: it freezes A by itself.
    ("bench/steps.py", "ffa-lora"),
    # Code that opens an export without this package, by task: words for a card, and no behaviour.
    *(("report/opening.py", task) for task in ("causal-lm", "image-classification", "image-text")),
}


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=list(REGISTRIES))
@pytest.mark.parametrize("name", ["", "unheard-of", "LORA", " lora"])
def test_an_unknown_name_is_refused_with_those_that_are_known(registry, name: str) -> None:
    with pytest.raises(UnknownKind) as refused:
        registry.get(name)
    assert repr(name) in str(refused.value)
    assert all(known in refused.value.hint for known in registry.names)
    assert isinstance(refused.value, ConfigError)
    assert refused.value.code == ConfigError.code


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=list(REGISTRIES))
def test_a_known_name_gives_its_own_entry(registry) -> None:
    assert [registry.get(name).name for name in registry.names] == [e.name for e in registry]


def test_two_entries_of_one_name_are_no_registry() -> None:
    with pytest.raises(ValueError, match="two entries are the sort 'x'"):
        Registry("sort", [SimpleNamespace(name="x"), SimpleNamespace(name="x")])


def test_settings_know_the_same_adapters_and_tasks() -> None:
    assert ADAPTERS.names == get_args(AdapterKind)
    assert SERVER_OPTIMIZERS.names == get_args(ServerOptimizerName)
    assert STEP_OPTIMIZERS.names == get_args(OptimizerName)
    assert NOISE.names == PLANNED_NOISE.names == get_args(NoiseName)
    assert {kind.name: kind.section.__struct_config__.tag for kind in TASKS} == {
        name: name for name in TASKS.names
    }


def test_an_unknown_adapter_trains_nothing(tiny_models) -> None:
    """One fell through to training the normalisation layers."""
    task = task_on(tiny_models("bert"), "text-classification", "unheard-of")
    with pytest.raises(UnknownKind, match="'unheard-of' is no known kind of adapter"):
        task.build_model(seed=1)


def test_an_unknown_optimizer_takes_no_step() -> None:
    """One fell through to SGD."""
    unknown = msgspec.structs.replace(TrainingSection(), optimizer="lion")  # type: ignore[arg-type]
    with pytest.raises(UnknownKind, match="'lion' is no known optimizer"):
        step_optimizer(unknown)


def test_an_unknown_task_is_not_made() -> None:
    settings = SimpleNamespace(kind="regression")
    with pytest.raises(UnknownKind, match="'regression' is no known kind of task"):
        make_task(settings, base=None, adapter=None, max_length=8, cache_bytes=0)  # type: ignore[arg-type]


def compared(source: str) -> Iterator[str]:
    """Strings that a source compares something with, matches or looks up in a dictionary."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            beside = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            beside = [node.value]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get":
            beside = [node.func.value]  # type: ignore[attr-defined]
        elif isinstance(node, ast.Subscript):
            beside = [node.value]
        else:
            continue
        inside = [leaf for part in beside for leaf in ast.walk(part)]
        yield from (leaf.value for leaf in inside if isinstance(leaf, ast.Constant))


@pytest.mark.parametrize(
    "source",
    [
        "a.noise == 'none'", "'none' != a", "a in {'none'}", "{'none': 1}.get(a, 2)",
        "{'none': 1}[a]", "match a:\n case 'none': pass",
    ],
)  # fmt: skip
def test_a_comparison_is_found_however_it_is_written(source: str) -> None:
    assert "none" in list(compared(source))


def test_no_kind_is_compared_by_its_name_outside_its_entry() -> None:
    names = {*ADAPTERS.names, *TASKS.names, *NOISE.names}
    found = {
        (str(path.relative_to(PRODUCT)), value)
        for path in PRODUCT.rglob("*.py")
        for value in compared(path.read_text(encoding="utf-8"))
        if value in names
    }
    assert found == COMPARED


def test_nobody_plans_by_asking_which_noise_it_is() -> None:
    """What a mechanism comes to is decided in its entry; others ask the entry."""
    # Advice before a run sets the mechanisms beside each other, as arms of a comparison are.
    beside = {"advice.py", "readings.py"}
    for room in ("planning", "training"):
        for path in (PRODUCT / room).glob("*.py"):
            if path.name not in beside:
                assert "noise_mechanism.in_shares" not in path.read_text(encoding="utf-8"), path
