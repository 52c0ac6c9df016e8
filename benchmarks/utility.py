"""Accuracy of a federation beside its baselines, over several seeds, through the real engine.

    python benchmarks/utility.py examples/sst2 --data ../shared/data/sst2/train.tsv \
        --limit 10000 --report ../shared/data/sst2/dev.tsv --seeds 3 --output sst2.json

A seed fixes the partition and the adapter's initial values; sampling and noise come from the
operating system every time. Baselines run the same schedule: `none` without clipping and noise,
`head` with a linear probe on the frozen encoder in place of the adapter.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fmfl_secure.config import load_federation
from fmfl_secure.data import partition_file, read_table
from fmfl_secure.engines.local import LocalEngine
from fmfl_secure.record import RoundRecord
from fmfl_secure.site import Site
from fmfl_secure.tasks import TaskData
from fmfl_secure.workspace import initialise

VARIANTS = {
    "adapter, private": {"privacy.noise": "local"},
    "adapter, not private": {"privacy.noise": "none"},
    "probe, private": {"privacy.noise": "local", "adapter.kind": "head"},
    "probe, not private": {"privacy.noise": "none", "adapter.kind": "head"},
}


class Silent:
    """An observer that only says that a round is over."""

    def run_started(self, run: str, *, first_round: int, rounds: int) -> None:
        """See `Observer`."""

    def site_refused(self, site: str, code: str, reason: str) -> None:
        """A refusal would falsify the table."""
        raise SystemExit(f"{site} refused ({code}): {reason}")

    def site_training(self, round_number: int, site: str, step: int, steps: int) -> None:
        """See `Observer`."""

    def round_finished(self, record: RoundRecord, epsilon: dict[str, float]) -> None:
        """See `Observer`."""


def with_settings(text: str, changes: dict[str, Any]) -> str:
    """federation.toml with some of the settings it already has replaced."""
    for path, value in changes.items():
        section, key = path.split(".")
        pattern = rf"(\[{section}\][^\[]*?\n{key} = )[^\n]*"
        text, count = re.subn(pattern, lambda m, v=value: m[1] + json.dumps(v), text)
        if count != 1:
            raise SystemExit(f"the example does not set {path}")
    return text


def share_prepared_data() -> None:
    """Let variants of one seed share tokenised data and frozen layers' outputs."""
    original = Site._read_data
    prepared: dict[tuple[str, bool], TaskData] = {}

    def shared(self: Site) -> TaskData:
        path = str((self._folder / self._settings.data.path).resolve())
        key = (path, self._config.adapter.kind == "head")
        if key not in prepared:
            if prepared and Path(path).parent != Path(next(iter(prepared))[0]).parent:
                prepared.clear()  # the next seed's data
            prepared[key] = original(self)
        return prepared[key]

    Site._read_data = shared  # type: ignore[method-assign]


def majority(folder: Path, sites: int, suffix: str, label_column: str, report: Path) -> float:
    """Accuracy of always answering the most frequent label of the training data."""
    labels: Counter[str] = Counter()
    for number in range(1, sites + 1):
        table = read_table(folder / f"site-{number}{suffix}")
        labels.update(map(str, table.column(label_column).to_pylist()))
    answer = labels.most_common(1)[0][0]
    truth = list(map(str, read_table(report).column(label_column).to_pylist()))
    return truth.count(answer) / len(truth)


def run_seed(arguments: argparse.Namespace, seed: int, work: Path) -> list[dict[str, Any]]:
    """All variants on one partition."""
    example = arguments.example / "federation.toml"
    config = load_federation(example)
    parts = partition_file(
        arguments.data,
        len(config.sites),
        work / "data",
        label_column=config.task.label_column,
        holdout=arguments.holdout,
        limit=arguments.limit,
        seed=seed,
    )
    suffix = arguments.data.suffix
    report = arguments.report or parts.out / f"holdout{suffix}"
    rows = [
        {
            "variant": "majority class",
            "seed": seed,
            "accuracy": majority(
                parts.out, len(config.sites), suffix, config.task.label_column, report
            ),
        }
    ]
    for name, changes in VARIANTS.items():
        if arguments.only and name not in arguments.only:
            continue
        folder = work / re.sub(r"\W+", "-", name)
        folder.mkdir()
        settings = with_settings(
            example.read_text(encoding="utf-8"),
            {"federation.seed": seed, "evaluation.data": str(report.resolve()), **changes},
        )
        (folder / "federation.toml").write_text(settings, encoding="utf-8")
        pattern = str(parts.out.resolve() / f"{{site}}{suffix}")
        initialise(folder, epsilon=None, delta=None, data=pattern)
        for site in config.sites:
            file = folder / "sites" / site.name / "site.toml"
            text = file.read_text(encoding="utf-8")
            text = text.replace('visibility = "private"', 'visibility = "public"')
            file.write_text(text, encoding="utf-8")
        began = time.monotonic(), time.process_time()
        record = LocalEngine(
            folder / "federation.toml", folder / "run", resume=False, observer=Silent()
        ).run()
        statement = record.sites[0].statement
        rows.append(
            {
                "variant": name,
                "seed": seed,
                **record.rounds[-1].metrics,
                "epsilon_spent": statement.grants[0].epsilon_spent if statement else None,
                "pld_epsilon": statement.pld_epsilon_run if statement else None,
                "wall_s": round(time.monotonic() - began[0], 1),
                "cpu_s": round(time.process_time() - began[1], 1),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation by variant."""
    summary = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        line: dict[str, Any] = {"variant": variant}
        for metric in ("accuracy", "macro_f1"):
            values = [row[metric] for row in rows if row["variant"] == variant and metric in row]
            if values:
                line[metric] = statistics.mean(values)
                line[f"{metric}_stdev"] = statistics.stdev(values) if len(values) > 1 else 0.0
        summary.append(line)
    return summary


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("example", type=Path, help="folder with a federation.toml")
    parser.add_argument("--data", type=Path, required=True, help="table to partition")
    parser.add_argument("--report", type=Path, help="file to report on; default: the holdout")
    parser.add_argument("--holdout", type=float, default=0.0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="a variant's name; may be repeated")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    share_prepared_data()
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        with tempfile.TemporaryDirectory() as work:
            rows += run_seed(arguments, seed, Path(work))
        result = {
            "example": arguments.example.name,
            "settings": load_federation(arguments.example / "federation.toml").digest,
            "machine": platform.machine(),
            "summary": summarise(rows),
            "rows": rows,
        }
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["summary"], indent=2))


if __name__ == "__main__":
    main()
