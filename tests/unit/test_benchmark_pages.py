"""docs/benchmarks.md says what the kept JSON of a run says, and not what an earlier one said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

WANTED_AGGREGATE = 20  # times the per-tensor pattern
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")


def kept(name: str) -> Any:
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))


def spread(figures: dict[str, float], digits: int) -> str:
    median, low, high = (figures[n] for n in ("median", "quartile_1", "quartile_3"))
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("encryption, masks, MAC and every signature", "encrypted_over_clear"),
        ("and differentially private training", "private_over_clear"),
    ],
)
def test_a_whole_round(row: str, field: str) -> None:
    assert f"| {row} | {spread(kept('round')[field], 3)} |" in PAGE


def test_what_a_whole_round_takes() -> None:
    found = kept("round")
    assert f"Medians of {found['repeats']} pairs" in PAGE
    clear, protection = found["cpu_s"]["clear"], found["cpu_s"]["protection"]
    assert (
        f"In the clear the round takes {clear:.1f} CPU seconds, protection {protection:.3f}."
        in (PAGE)
    )


def test_a_round_of_the_engine() -> None:
    found = kept("engine")
    assert f"| ratio | {spread(found['engine_over_protocol'], 1)} |" in PAGE
    assert f"| the engine, all but training | {found['cpu_s']['engine']:.3f} |" in PAGE


def test_the_service_under_load() -> None:
    for found in kept("service"):
        cpu, seconds = found["cpu_seconds_a_round"], found["seconds_a_round"]
        row = (
            f"| {found['sites']:,} | {found['rounds']} | {found['errors']} | "
            f"{found['upload_bytes']:,} | "
            f"{cpu['server']:.2f} | {cpu['decryptor']:.2f} | {cpu['sites']:.2f} | "
            f"{cpu['in_process']:.2f} | {seconds['https']['median']:.1f} | "
            f"{seconds['in_process']['median']:.1f} | {found['peak_mib']['server']:,} |"
        )
        assert row in PAGE, row


def test_rounds_on_flower() -> None:
    for found in kept("flower"):
        assert set(found["rounds"]) == {"released"}
        assert set(found["attempts"]) == {1}
        engine = (
            f"{found['engine']}, {'one process' if found['engine'] == 'local' else 'two processes'}"
        )
        seconds = found["seconds_a_round"]
        row = (
            f"| {engine} | {found['sites']:,} | {'yes' if found['trains'] else 'no'} | "
            f"{len(found['rounds'])} | {seconds['first']:.1f} | {seconds['median']:.1f} | "
            f"{found['cpu_seconds_a_round']:.1f} | {found['peak_mib_of_a_process']:,} |"
        )
        assert row in PAGE, row


def aggregation_rows(kept: dict[str, Any]) -> list[str]:
    """The rows of the page on secure aggregation, of 8 sites."""
    rows = []
    for each in kept["compared"]:
        ratios, floor, over = each["ratios"], each["floor_ms"], each["over_floor"]
        by = "**{:.1f} x**" if ratios["aggregate"] < WANTED_AGGREGATE else "{:.1f} x"
        beginning = f"| {each['shape']} | {each['bits']} |"
        rows.append(
            f"| {each['shape']} ({each['parameters']:,}) | {each['bits']} | "
            f"{each['upload_bytes_per_parameter']:.2f} | {each['client_mparams_per_s']:.1f} | "
            f"{each['aggregate_mparams_per_s']:.0f} | {each['decrypt_mparams_per_s']:.1f} | "
            f"{ratios['upload']:.1f} x | {ratios['client']:.1f} x | "
            f"{by.format(ratios['aggregate'])} | {ratios['decrypt']:.1f} x | "
            f"{'yes' if each['exact'] else 'no'} |"
        )
        rows.append(
            f"{beginning} {ratios['client_whole_round']:.1f} x | "
            f"{ratios['aggregate_whole_round']:.1f} x |"
        )
        beside = (
            f"{over[party] * floor[party]:.1f} | {floor[party]:.1f} | {over[party]:.1f}"
            for party in ("client", "aggregate", "decrypt")
        )
        rows.append(f"{beginning} {' | '.join(beside)} |")
        if each["bits"] == min(other["bits"] for other in kept["compared"]):
            pattern = each["per_tensor_ckks"]
            rows.append(
                f"| {each['shape']} | {pattern['upload_bytes_per_parameter']:.0f} | "
                f"{pattern['client_mparams_per_s']:.2f} | "
                f"{pattern['aggregate_mparams_per_s']:.1f} | "
                f"{pattern['decrypt_mparams_per_s']:.1f} |"
            )
    return rows


def test_secure_aggregation() -> None:
    for row in aggregation_rows(kept("aggregation")):
        assert row in PAGE, row
