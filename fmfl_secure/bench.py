"""`fmfl-secure bench`: what privacy costs, measured here and now.

`app` is registered by the command line. Figures go to standard output as JSON with `--json`, so
that nothing else may print there.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Measure what encryption, masks and privacy cost on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


@app.command()
def aggregation(
    parameters: Annotated[int, typer.Option(help="Values in an update.", min=1)] = 1_000_000,
    sites: Annotated[int, typer.Option(help="Sites in the cohort.", min=3, max=1000)] = 8,
    bits: Annotated[int, typer.Option(help="Bits of a quantised value.", min=2, max=24)] = 16,
    repeats: Annotated[int, typer.Option(help="Paired repeats; medians are shown.", min=1)] = 3,
    suite: Annotated[str, typer.Option(help="ckks-collective or ckks-pk.")] = "ckks-collective",
    as_json: JsonFlag = False,
) -> None:
    """Whole rounds of secure aggregation beside one CKKS vector a tensor.

    Example: fmfl-secure bench aggregation --parameters 1000000 --sites 8 --bits 8 --json
    """
    from aggregation import benchmark  # noqa: PLC0415 - loads TenSEAL

    sizes = benchmark.tensor_sizes(parameters)
    result = benchmark.compare(sizes, sites, bits, repeats=repeats, suite=suite).as_dict()
    result["machine"] = machine()
    _show(result, as_json=as_json)


@app.command(name="round")
def whole_round(
    sites: Annotated[int, typer.Option(help="Sites.", min=3, max=16)] = 4,
    repeats: Annotated[int, typer.Option(help="Repeats; medians are shown.", min=1)] = 3,
    as_json: JsonFlag = False,
) -> None:
    """CPU time of a MiniLM round: in the clear, under encryption, and with local privacy besides.

    Example: fmfl-secure bench round --json
    """
    result = measure_round(sites, repeats)
    result["machine"] = machine()
    _show(result, as_json=as_json)


def measure_round(sites: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of one round of the demonstration's task, all sites together.

    Args:
        sites: Sites; each trains on a demonstration clinic's notes.
        repeats: Interleaved repeats.

    Returns:
        Medians, and the ratios to the round in the clear.
    """
    import numpy as np  # noqa: PLC0415 - the command line stays light

    from aggregation import dequantize, quantize  # noqa: PLC0415
    from aggregation.testing import Federation  # noqa: PLC0415
    from fmfl_secure.config import load_federation  # noqa: PLC0415
    from fmfl_secure.demo import prepare_demo  # noqa: PLC0415
    from fmfl_secure.models import Layout  # noqa: PLC0415
    from fmfl_secure.plain_training import train_plain_round  # noqa: PLC0415
    from fmfl_secure.planning import build_task, privacy_plan, quantization  # noqa: PLC0415
    from fmfl_secure.site import _build_optimizer  # noqa: PLC0415
    from privacy.training import PrivateTrainer  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = prepare_demo(Path(folder) / "demo", fresh=False)
        config = load_federation(path)
        task = build_task(config, relative_to=path.parent)
        model = task.build_model(seed=config.federation.seed)
        training = sorted((path.parent / "data").glob("*.csv"))
        file = next(f for f in training if "holdout" not in f.name)
        data = task.load(file, unit=config.task.unit, on_bad_row=config.task.on_bad_row)
        plan = privacy_plan(config, config.sites[0])
        layout = Layout.of(model)
        grid = quantization(config, layout)

        def train_plain() -> None:
            train_plain_round(
                model,
                config=config,
                task=task,
                data=data,
                optimizer=_build_optimizer(model, config),
            )

        def train_private() -> None:
            PrivateTrainer(
                model,
                plan=plan,
                loss=task.per_record_loss,
                collate=data.collate,
                units=data.units,
                optimizer=_build_optimizer(model, config),
                physical_batch_size=config.training.physical_batch_size,
                record_cost=data.record_cost,
            ).train_round()

        updates = [
            np.random.default_rng(i).normal(scale=1e-3, size=layout.size) for i in range(sites)
        ]

        def in_the_clear() -> None:
            sum(updates[1:], updates[0]) / sites

        def protected() -> None:
            fed = Federation(
                sites,
                size=layout.size,
                bits=grid.bits,
                suite="ckks-collective",
                key_agreement="x25519-mlkem768",
            )
            fed.quantization = grid
            attempt = fed.start()
            aggregator = fed.new_aggregator(attempt)
            for update, site in zip(updates, attempt.sites.values(), strict=True):
                upload = site.upload(attempt.cohort, quantize(update, grid), attempt.exchanges)
                aggregator.add(upload.manifest, upload.chunks)
            listed = fed.decryptor.confirm(
                attempt.cohort, aggregator.opening_list(), aggregator.sealed_secrets()
            )
            for site in attempt.sites.values():
                aggregator.add_opening(site.open(listed))
            total = aggregator.total()
            release = fed.decryptor.release(attempt.cohort, listed, total.manifest, total.chunks)
            for site in attempt.sites.values():
                dequantize(site.verify(release), grid, float(sites))

        train_plain()
        protected()  # both once unmeasured: caches, self-tests
        samples = [
            {
                "plain": sites * _cpu(train_plain) + _cpu(in_the_clear),
                "private": sites * _cpu(train_private),
                "protect": _cpu(protected),
            }
            for _ in range(repeats)
        ]

    def median(value: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(value(sample) for sample in samples)

    return {
        "sites": sites,
        "parameters": layout.size,
        "repeats": repeats,
        "clear_cpu_s": median(lambda s: s["plain"]),
        "protection_cpu_s": median(lambda s: s["protect"]),
        "encrypted_over_clear": median(lambda s: 1 + s["protect"] / s["plain"]),
        "private_over_clear": median(lambda s: (s["private"] + s["protect"]) / s["plain"]),
        "samples": samples,
    }


def _cpu(action: Callable[[], None]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    result.pop("samples", None)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    for key, value in result.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for name, item in value.items():
                typer.echo(
                    f"  {name}: {item:.4g}" if isinstance(item, float) else f"  {name}: {item}"
                )
        else:
            typer.echo(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")


if __name__ == "__main__":
    app()
