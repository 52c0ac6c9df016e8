"""Writes the tables of docs/results.md and docs/results-models.md anew, from the raw rows.

    python benchmarks/results_tables.py docs/results.md docs/results-models.md

A table stands between `<!-- table FORM FILE ... -->` and `<!-- end -->`. FORM is `rows` of what
`fmfl-secure compare --output` wrote, `choices` and `without-noise` of server_choices.py's rows,
`head-first` of head_first.py's, `members` of attacks.py's, `attacks`, `late` and `sigma` of
robustness.py's, or `flags` of norm_rates.py's. After the file, of rows: `old=FILE` puts figures of
the same arms beside them, headed `was=`; `adapter=`, `arm=` (with commas) and `partition=` leave
out others.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fmfl_secure.comparison import OWN, Summary, read_rows, summarise
from privacy.auditing import most_auc, most_true_positives

METRICS = {"accuracy": "accuracy", "macro_f1": "macro F1"}
ON_MIX = {"site_accuracy": "accuracy on a site's labels"}

_BLOCK = re.compile(r"(<!-- table (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def number(mean: float, spread: float, count: int) -> str:
    """Mean and spread in the way papers write accuracies."""
    found = f"{mean:.3f}".removeprefix("0")
    return found if count < 2 else f"{found} ± {spread:.3f}".replace("± 0.", "± .")


def cell(line: Summary | None, metric: str) -> str:
    """One figure, or nothing."""
    if line is None or metric not in line.mean:
        return ""
    return number(line.mean[metric], line.stdev[metric], line.seeds)


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(re.sub(r"\| +\|", "|  |", line) for line in lines) + "\n"


def rows_table(path: Path, options: Mapping[str, str]) -> str:
    """What `compare` measured."""
    lines = _chosen(path, options)
    old = {}
    if "old" in options:
        earlier = _chosen(path.parent.parent / options["old"], {})
        old = {_key(line): line for line in earlier}
    anew = any(line.partition != OWN for line in lines)
    metrics = METRICS | (ON_MIX if anew else {})
    head = ["", "adapter", *(["data"] if anew else []), "epsilon", *metrics.values(), "seeds"]
    rows = []
    for line in lines:
        epsilon = "" if line.epsilon is None else f"{line.epsilon:g}"
        row = [line.title, line.adapter, *([line.partition] if anew else []), epsilon]
        row += [cell(line, metric) for metric in metrics]
        row.append(str(line.seeds) if line.adapter else "")
        if old:
            row += [cell(old.get(_key(line)), metric) for metric in METRICS]
        rows.append(row)
    if old:
        was = options.get("was", "before").replace("-", " ")
        head += [f"{name} {was}" for name in METRICS.values()]
    return markdown(head, rows)


def choices_table(path: Path, _: Mapping[str, str]) -> str:
    """What server_choices.py measured."""
    found: dict[str, dict[tuple[str, float], list[dict[str, float]]]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["choice"], {}).setdefault((row["data"], row["epsilon"]), []).append(
            row
        )
    columns = sorted({column for by in found.values() for column in by})
    table = []
    for choice, by in found.items():
        cells = []
        for column in columns:
            rows = by.get(column, [])
            if not rows:
                cells.append("")
                continue
            accuracy = [row["accuracy"] for row in rows]
            spread = statistics.stdev(accuracy) if len(rows) > 1 else 0.0
            f1 = number(statistics.mean(row["macro_f1"] for row in rows), 0.0, 1)
            cells.append(f"{number(statistics.mean(accuracy), spread, len(rows))} / {f1}")
        table.append([choice, *cells])
    return markdown(["", *(f"{data}, epsilon {epsilon:g}" for data, epsilon in columns)], table)


def without_noise_table(path: Path, _: Mapping[str, str]) -> str:
    """What server_choices.py measured without noise: on records held out, and on those trained."""
    found: dict[str, list[dict[str, float]]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["choice"], []).append(row)
    table = []
    for choice, rows in found.items():
        values = [[row[metric] for row in rows] for metric in ("accuracy", "macro_f1")]
        values.append([row["fitted_accuracy"] for row in rows])
        cells = [number(statistics.mean(x), statistics.stdev(x), len(x)) for x in values]
        table.append([choice, *cells])
    return markdown(["", *METRICS.values(), "accuracy on the training records"], table)


def head_first_table(path: Path, _: Mapping[str, str]) -> str:
    """What head_first.py measured."""
    found: dict[tuple[str, str, float], dict[float, list[dict[str, float]]]] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        by_share = found.setdefault((row["start"], row["arm"], row["epsilon"]), {})
        by_share.setdefault(row["head_first"], []).append(row)
    shares = sorted({share for by in found.values() for share in by})
    table = []
    for (start, arm, epsilon), by in found.items():
        cells = []
        for share in shares:
            rows = by.get(share, [])
            means = [statistics.mean(row[metric] for row in rows) for metric in METRICS if rows]
            cells.append(" / ".join(number(mean, 0.0, 1) for mean in means))
        table.append([f"start from {start}", arm, f"{epsilon:g}", *cells])
    heads = [f"head first for {share:.0%}" if share else "both from the start" for share in shares]
    return markdown(["", "noise", "epsilon", *heads], table)


ATTACKS = {
    "none": "none",
    "label flip": "its labels the other way round, through the mechanism",
    "sign flip": "its update with the other sign",
    "scaled": "eight times that",
    "range": "seven times its range against its gradient, in every value",
    "head moved": "the mean moved by .4 of the range, in every value",
    "against, passing": "against its gradient, as far as mostly passes",
    "head moved, passing": "the same for the head moved",
    "backdoor": "backdoor: half of its records with the trigger, through the mechanism",
    "backdoor, boosted": "backdoor: its whole gradient, as large as the sum's range lets it",
    "backdoor, passing": "backdoor: as far as mostly passes",
}


def attacks_table(path: Path, _: Mapping[str, str]) -> str:
    """What robustness.py found of learning: each attack, without and with the norm check."""
    found: dict[str, dict[bool, list[dict[str, float]]]] = {}
    for row in _of_kind(path, "learning"):
        found.setdefault(row["attack"], {}).setdefault(row["norm_check"], []).append(row)
    table = []
    for attack, by in found.items():
        cells = []
        for checked in (False, True):
            rows = by[checked]
            for metric in ("accuracy", "triggered", "to_target"):
                values = [row[metric] for row in rows]
                cells.append(number(statistics.mean(values), statistics.stdev(values), len(values)))
        rows = by[True]
        lost = [sum(row[name] for row in rows) for name in ("named", "rounds")]
        sent = statistics.mean(row["sent_of_limit"] or 0.0 for row in by[False])
        table.append([ATTACKS[attack], f"{sent:.2g}", *cells, f"{lost[0]:.0f} of {lost[1]:.0f}"])
    both = ("clean", "trigger", "to target")
    head = ["the hostile site sends", "norm over its limit"]
    head += [f"{name}, {arm}" for arm in ("unchecked", "checked") for name in both]
    return markdown([*head, "rounds in which it was named"], table)


def late_table(path: Path, _: Mapping[str, str]) -> str:
    """What robustness.py found of sites that are gone once they uploaded."""
    table = []
    for row in _of_kind(path, "protocol"):
        if row["attack"] == "late":
            given = [row[name] for name in ("vanished_sites", "gone", "rounds", "released")]
            lost = row["rounds"] - row["released"]
            table.append([*map(str, given), str(lost), str(row["with_their_updates"])])
    return markdown(
        ["`vanished_sites`", "gone of 8", "rounds", "released", "lost", "with all updates in"],
        table,
    )


def sigma_table(path: Path, _: Mapping[str, str]) -> str:
    """What robustness.py found of a site that sends a wrong sigma in every round."""
    table = [
        [f"`{row['rehearsals']}`", "behaves" if row["behaves"] else "spoils", str(row["rounds"]),
         ", ".join(map(str, row["lost"])), str(row["held"]), row["named"] or "nobody"]
        for row in _of_kind(path, "protocol") if row["attack"] == "wrong sigma"
    ]  # fmt: skip
    head = ["`rehearsals`", "in them it", "rounds", "lost", "rehearsals held", "named"]
    return markdown(head, table)


def flags_table(path: Path, _: Mapping[str, str]) -> str:
    """What norm_rates.py found of honest updates that the norm check refuses."""
    names = {"as uploaded": "as uploaded", "at the largest public norm": "at the largest norm"}
    table = []
    for arm, found in json.loads(path.read_text()).items():
        for key, name in names.items():
            one = found[key]
            low, middle, high = one["norms_over_largest"]
            norms = "1" if low > 0.99 else f"{low:.2f} to {high:.2f}, median {middle:.2f}"
            table.append(
                [f"{arm}, {name}", norms, f"{one['rounds']:,}", str(one["flagged"]),
                 "{:.2g} to {:.2g}".format(*one["interval_95"]), f"{one['stated_odds']:.2g}",
                 f"{one['longest_over_limit']:.2f}",
                 " / ".join(f"{100 * one[of]['1.2']:.2f} %" for of in
                            ("beyond_smaller_limits", "chi_square_at_the_largest_norm"))]
            )  # fmt: skip
    head = [
        "updates", "norm, of the largest", "rounds", "flagged", "95 % interval", "stated odds",
        "longest, of its limit", "groups beyond 1.2 / chi-square at the largest norm",
    ]  # fmt: skip
    return markdown(head, table)


def members_table(path: Path, _: Mapping[str, str]) -> str:
    """What attacks.py found of who was trained on: a line for each attack, figures by seed."""
    found: dict[float | None, list[dict[str, Any]]] = {}
    for row in _rows(path):
        found.setdefault(row["epsilon"], []).append(row)
    table = []
    for epsilon, rows in found.items():
        if epsilon is None:
            trained, allowed = "without noise", "no bound"
        else:
            bounds = {"epsilon": epsilon, "delta": rows[0]["delta"]}
            trained = f"epsilon {epsilon:g}, delta {rows[0]['delta']:g}"
            area = number(most_auc(**bounds), 0.0, 1)
            allowed = f"{area}, {most_true_positives(0.1, **bounds):.1%}"
        for attack in rows[0]["attacks"]:
            each = [row["attacks"][attack] for row in rows]
            areas = ", ".join(number(one["auc"], 0.0, 1) for one in each)
            shares = ", ".join(f"{one['found_at_10']:.0%}" for one in each)
            flagged = f"{sum(one['flagged'] for one in each)} of {len(each)}"
            table.append([trained, attack, areas, shares, allowed, flagged])
    head = ["trained", "attack", "area", "found at 10 %", "epsilon allows", "flagged"]
    return markdown(head, table)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _of_kind(path: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in _rows(path) if row["kind"] == kind]


FORMS = {
    "attacks": attacks_table,
    "late": late_table,
    "members": members_table,
    "sigma": sigma_table,
    "flags": flags_table,
    "rows": rows_table,
    "choices": choices_table,
    "without-noise": without_noise_table,
    "head-first": head_first_table,
}


def regenerated(page: Path) -> str:
    """The page with every table made anew."""

    def anew(found: re.Match[str]) -> str:
        form, name, *given = found[2].split()
        options = dict(option.split("=", 1) for option in given)
        return found[1] + FORMS[form](page.parent / name, options) + found[3]

    return _BLOCK.sub(anew, page.read_text(encoding="utf-8"))


def _chosen(path: Path, options: Mapping[str, str]) -> list[Summary]:
    lines = summarise(read_rows(path))
    if "adapter" in options:
        lines = [x for x in lines if x.adapter in {"", *options["adapter"].split(",")}]
    if "partition" in options:
        lines = [x for x in lines if x.partition == options["partition"]]
    if "arm" in options:
        lines = [x for x in lines if x.arm in options["arm"].split(",")]
    return lines


def _key(line: Summary) -> tuple[str, str, str, float | None]:
    return line.partition, line.adapter, line.arm, line.epsilon


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(regenerated(Path(name)), encoding="utf-8")
