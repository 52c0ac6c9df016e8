"""`fmfl-secure bench`: what encryption and privacy cost, measured here and now.

`cli` registers the group `bench`; each command calls the measurement of its name in
`fmfl_secure.bench` and prints the figures or writes them as JSON.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import say

Figures = dict[str, Any]

app = typer.Typer(
    cls=Group,
    help="Measure what encryption, masks and privacy cost on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@command(app, answers=Figures, acts="it measures with parties of its own making")
def aggregation(
    parameters: Annotated[int, typer.Option(help="Values in an update.", min=1)] = 1_000_000,
    model: Annotated[
        Literal["minilm-r8", "gpt2-r8"] | None,
        typer.Option(help="The tensors of this model's LoRA adapter of rank 8 instead."),
    ] = None,
    sites: Annotated[int, typer.Option(help="Sites in the cohort.", min=3, max=1000)] = 8,
    bits: Annotated[int, typer.Option(help="Bits of a quantised value.", min=2, max=24)] = 16,
    repeats: Annotated[int, typer.Option(help="Paired repeats; medians are shown.", min=1)] = 3,
    suite: Annotated[str, typer.Option(help="ckks-collective or ckks-pk.")] = "ckks-collective",
    vanished: Annotated[
        int, typer.Option(help="Instead, what it adds that so many of the sites vanish.", min=0)
    ] = 0,
    norms: Annotated[
        bool, typer.Option("--norms", help="Instead, what it adds that norms are checked.")
    ] = False,
) -> Figures:
    """Whole rounds of secure aggregation beside one CKKS vector a tensor.

    Example: fmfl-secure bench aggregation --parameters 1000000 --sites 8 --bits 8 --json
    """
    if vanished:
        from fmfl_secure.bench.vanished import measure

        if 2 * vanished >= sites:
            raise typer.BadParameter(f"of {sites} sites fewer than {(sites + 1) // 2} may vanish")
        return _show(measure(sites, vanished, repeats))
    from fmfl_secure.bench import secure_aggregation

    sizes = (
        secure_aggregation.tensor_sizes(parameters)
        if model is None
        else secure_aggregation.expand(secure_aggregation.SHAPES[model])
    )
    if norms:
        from fmfl_secure.bench.norms import measure as measure_norms

        return _show(measure_norms(sizes, sites, bits, repeats))
    result = secure_aggregation.compare(sizes, sites, bits, repeats=repeats, suite=suite).as_dict()
    result.pop("samples")
    return _show(result)


@command(app, "round", answers=Figures, acts="it measures with parties of its own making")
def whole_round(
    mode: Annotated[
        Literal["local", "distributed", "engine"],
        typer.Option(help="Noise of each site, or in shares; or rounds of the embedded engine."),
    ] = "local",
    repeats: Annotated[int, typer.Option(help="Pairs; medians are shown.", min=1)] = 7,
) -> Figures:
    """CPU time of a MiniLM round. Local: 4 sites, encrypted and private over in the clear.

    Distributed: a step of 8 sites, its protocol over its training.
    Engine: a round of the embedded engine without its training, over the protocol's own steps.

    Example: fmfl-secure bench round --mode distributed --json
    """
    if mode == "engine":
        from fmfl_secure.bench.engine import measure_engine

        return _show(measure_engine(repeats))
    from fmfl_secure.settings.noise import NOISE

    if NOISE.get(mode).in_shares:
        from fmfl_secure.bench.shares import measure_shares

        return _show(measure_shares(repeats))
    from fmfl_secure.bench.rounds import measure_rounds

    return _show(measure_rounds(repeats))


@command(app, answers=Figures, acts="it measures with parties of its own making")
def training(
    model: Annotated[
        Literal["minilm", "gpt2", "llama", "all"], typer.Option(help="Which kind of model.")
    ] = "all",
    adapter: Annotated[
        Literal["lora", "ffa-lora", "all"], typer.Option(help="Which kind of adapter.")
    ] = "all",
    steps: Annotated[int, typer.Option(help="Pairs of steps; medians are shown.", min=1)] = 15,
) -> Figures:
    """CPU time and peak memory of a private training step over the same step without privacy.

    Example: fmfl-secure bench training --model minilm --adapter ffa-lora --json
    """
    from fmfl_secure.bench.steps import measure_steps

    models = ("minilm", "gpt2", "llama") if model == "all" else (model,)
    adapters = ("lora", "ffa-lora") if adapter == "all" else (adapter,)
    measured = [measure_steps(m, a, steps) for m in models for a in adapters]
    return _show({"steps": measured})


@command(app, answers=Figures, acts="it measures with parties of its own making")
def decoder(
    targets: Annotated[
        Literal["query-value", "all-linear"], typer.Option(help="Adapted in each of 30 layers.")
    ] = "query-value",
    records: Annotated[int, typer.Option(help="Of a step.", min=1)] = 8,
    tokens: Annotated[int, typer.Option(help="Of a record.", min=2, max=8192)] = 64,
    response: Annotated[int, typer.Option(help="Of these, learned, at its end.", min=1)] = 8,
    repeats: Annotated[int, typer.Option(help="Of each; medians are shown.", min=1)] = 5,
) -> Figures:
    """CPU time of a private LoRA step of SmolLM2-135M beside other libraries' steps, and a floor.

    Example: fmfl-secure bench decoder --records 4 --repeats 3 --json
    """
    from fmfl_secure.bench.decoder import measure_decoder

    if response >= tokens:
        raise typer.BadParameter(f"of {tokens} tokens at most {tokens - 1} are a response")
    return _show(
        measure_decoder(
            targets=targets, records=records, tokens=tokens, response=response, repeats=repeats
        )
    )


@command(app, answers=Figures, acts="it measures with parties of its own making")
def large(
    layers: Annotated[int, typer.Option(help="Of the model; 16 make 1.1 billion.", min=1)] = 16,
    tokens: Annotated[int, typer.Option(help="Of each of 4 records.", min=2, max=2048)] = 32,
    half: Annotated[
        bool, typer.Option(help="Keep weights in bfloat16, as in the files, or in float32.")
    ] = True,
    checkpointing: Annotated[
        bool, typer.Option(help="Compute activations twice, or keep them.")
    ] = True,
    blocks: Annotated[
        Literal["q8_0", "q4_0", "q4_1"] | None,
        typer.Option(help="Keep matrices in blocks of 8 or about 4 bits instead."),
    ] = None,
) -> Figures:
    """Peak memory of a private LoRA step of a decoder of 1.1 billion parameters.

    Writes 2.2 GB of random weights to a temporary folder, and deletes them.

    Example: fmfl-secure bench large --layers 4 --tokens 128 --no-checkpointing --json
    """
    from fmfl_secure.bench.large import measure_large

    result = measure_large(
        layers=layers, tokens=tokens, half=half, checkpointing=checkpointing, blocks=blocks
    )
    return _show(result)


@command(app, answers=Figures, acts="it measures with parties of its own making")
def flower(
    sites: Annotated[int, typer.Option(help="Sites.", min=3, max=1000)] = 10,
    rounds: Annotated[int, typer.Option(help="Of the run.", min=1)] = 3,
    engine: Annotated[
        Literal["flower-sim", "local"], typer.Option(help="Flower's simulation, or calls alone.")
    ] = "flower-sim",
    train: Annotated[
        bool, typer.Option(help="Train a tiny model; or carry the aggregation alone.")
    ] = True,
    workers: Annotated[
        int, typer.Option(help="Processes to spread sites over; 0: one a core.", min=0)
    ] = 0,
) -> Figures:
    """Rounds of a synthetic federation on Flower's simulation, or beside it on the local engine.

    Example: fmfl-secure bench flower --sites 200 --rounds 3 --json
    """
    from fmfl_secure.bench.flower import measure_flower
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.transports.flower.extra import needs_flower_extra

    if engine == "flower-sim":
        needs_flower_extra()
    elif not train:
        raise ConfigError("--no-train is for --engine flower-sim")
    result = measure_flower(sites, rounds, engine=engine, train=train, workers=workers)
    return _show(result)


@command(app, answers=Figures, acts="it measures with parties of its own making")
def startup(
    repeats: Annotated[int, typer.Option(help="Starts of each; medians are shown.", min=1)] = 3,
    rank: Annotated[int, typer.Option(help="Of the adapter; 256 makes 104 MiB.", min=1)] = 8,
) -> Figures:
    """CPU time and memory to start server and decryptor, whatever the base model; short commands.

    Example: fmfl-secure bench startup --json
    """
    from fmfl_secure.bench.startup import measure_startup

    return _show(measure_startup(repeats, rank))


@command(app, answers=Figures, acts="it measures with parties of its own making")
def service(
    sites: Annotated[int, typer.Option(help="Simulated sites.", min=3, max=1000)] = 10,
    rounds: Annotated[int, typer.Option(help="Of the run.", min=1)] = 5,
    base: Annotated[str, typer.Option(help="Base model whose adapter is summed.")] = "minilm",
) -> Figures:
    """Rounds of simulated sites over HTTPS, in processes of their own, beside one process alone.

    Example: fmfl-secure bench service --sites 50 --rounds 20 --json
    """
    from fmfl_secure.bench.service import measure
    from fmfl_secure.cli.members import needs_server_extra

    needs_server_extra()
    return _show(measure(sites, rounds, base=base))


def _show(measured: Figures) -> Figures:
    from fmfl_secure.bench import machine

    result = measured | {"machine": machine()}
    for line in _lines(result, indent=0):
        say(line)
    return result


def _lines(result: Figures, *, indent: int) -> list[str]:
    """As indented lines, for people."""
    lines = []
    for key, value in result.items():
        if isinstance(value, dict):
            lines += [" " * indent + f"{key}:", *_lines(value, indent=indent + 2)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                lines += [" " * indent + f"{key}:", *_lines(item, indent=indent + 2)]
        else:
            shown = ", ".join(_shown(v) for v in (value if isinstance(value, list) else [value]))
            lines.append(" " * indent + f"{key}: {shown}")
    return lines


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
