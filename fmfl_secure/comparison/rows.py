"""Rows of a comparison: lines of JSON, one a measurement, appended as they come.

    {"kind": "comparison", ...}    whose settings and base model, and on which machine
    {"kind": "row", ...}           one measurement
    {"kind": "refusal", ...}       what the settings rule out, with the reason

A file is of one federation's settings. Where another machine goes on with it, a second header
tells whose the rows after it are.

`comparison.compare` goes on with a file by `go_on` and writes with `append`; `comparison.summary`
makes tables of a `Comparison` that was read.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED

# 1: `local` stepped at the sites, and `pooled` and `alone` by other optimizers. 1 and 2 were one
# JSON object, of the settings' own adapter and a probe.
FORMAT = 3

OWN = "own"
"""The sites' data as their files have them."""

Key = tuple[str, str, str, float | None, int]


class Header(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="comparison"
):
    """Whose rows follow.

    Attributes:
        format: Version of this form.
        federation: Its name.
        settings_digest: `sha256:` over its settings.
        base_model_digest: Of the base model.
        machine: Processor and versions.
    """

    format: int
    federation: str
    settings_digest: str
    base_model_digest: str
    machine: dict[str, str | int]

    @property
    def identity(self) -> tuple[int, str, str]:
        """The fields that all headers of a file agree on."""
        return self.format, self.settings_digest, self.base_model_digest


class Row(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag_field="kind",
    tag="row",
):
    """One arm with one adapter at one privacy target from one seed.

    Attributes:
        adapter: Kind of adapter; empty where none was trained.
        arm: Its name.
        epsilon: The privacy target; None where there is none.
        seed: Of the adapter's initial values, and of a partition that is drawn. Sampling and noise
            are never seeded.
        partition: `own`, or how all sites' data were shared out anew.
        metrics: The task's, on the evaluation data, with `site_accuracy` where records have one
            label: what a site would see if held-out data had its labels' shares, mean over the
            sites. Of several models their mean.
        by_site: Where every site has a model, each one's.
        steps: Optimizer steps.
        size: Trained parameters.
        noise_multiplier: Of one site's noise; with distributed noise of the sum that is certain.
        pld_epsilon: All steps by PLD, or None without privacy.
        insider_epsilon: With distributed noise, what all other sites together may learn.
        cpu_s: CPU seconds of training and evaluation, preparation left out.
    """

    adapter: str
    arm: str
    epsilon: float | None
    seed: int
    partition: str = OWN
    metrics: dict[str, float]
    by_site: dict[str, dict[str, float]] = {}
    steps: int = 0
    size: int = 0
    noise_multiplier: float = 0.0
    pld_epsilon: float | None = None
    insider_epsilon: float | None = None
    cpu_s: float = 0.0

    @property
    def key(self) -> Key:
        """The fields that make it one row."""
        return self.partition, self.adapter, self.arm, self.epsilon, self.seed


class Refusal(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="refusal"
):
    """A row that the settings rule out, and the reason.

    Attributes:
        partition: As in a row.
        adapter: As in a row.
        arm: As in a row.
        epsilon: As in a row.
        reason: Why.
    """

    partition: str
    adapter: str
    arm: str
    epsilon: float | None
    reason: str


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All rows of one federation's settings.

    Attributes:
        header: Whose.
        rows: What was measured.
        refused: What the settings rule out.
    """

    header: Header
    rows: tuple[Row, ...] = ()
    refused: tuple[Refusal, ...] = ()

    def adding(self, line: Row | Refusal) -> Comparison:
        """With one line more; a refusal that is there already changes nothing."""
        replace = msgspec.structs.replace
        if isinstance(line, Row):
            return replace(self, rows=(*self.rows, line))
        return self if line in self.refused else replace(self, refused=(*self.refused, line))


def append(path: Path, line: Header | Row | Refusal) -> None:
    """Write one line at a file's end; durable when this returns.

    Raises:
        RunError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(msgspec.json.encode(line) + b"\n")
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(f"{path} cannot be appended to: {error.strerror or error}") from error


def read_rows(path: Path) -> Comparison:
    """Reads a comparison from its file.

    Raises:
        RunError: It is no comparison, or of several settings.
    """
    try:
        data = path.read_bytes()
        lines = data.splitlines()
        found = [msgspec.json.decode(line, type=Header | Row | Refusal) for line in lines]
    except (OSError, *MALFORMED) as error:
        raise RunError(
            f"{path} is not a comparison that can be gone on with: {error}",
            hint="Name another file, where an earlier version wrote one object in place of lines. "
            "A last line that was cut short can be removed, and is measured again.",
        ) from error
    if not found or not isinstance(found[0], Header) or not data.endswith(b"\n"):
        raise RunError(
            f"{path} is not a comparison that can be gone on with: its first line says nothing of "
            "whose rows follow, or its last one was cut short"
        )
    headers = [line for line in found if isinstance(line, Header)]
    if len({header.identity for header in headers}) > 1:
        raise RunError(f"{path} compares several settings or base models")
    comparison = Comparison(headers[-1])
    for line in found:
        if not isinstance(line, Header):
            comparison = comparison.adding(line)
    return comparison


def go_on(fresh: Header, path: Path | None) -> Comparison:
    """Reads what an earlier comparison of the same settings has measured, or begins one.

    Args:
        fresh: Whose rows will follow; written where the file has none of this machine.
        path: The file; None keeps none.

    Raises:
        RunError: The file is of other settings, or no comparison.
    """
    if path is None:
        return Comparison(fresh)
    if not path.exists():
        append(path, fresh)
        return Comparison(fresh)
    kept = read_rows(path)
    if kept.header.identity != fresh.identity:
        raise RunError(
            f"{path} compares other settings or another base model",
            hint="Name another file with --output, or remove this one.",
        )
    if kept.header != fresh:
        append(path, fresh)
    return msgspec.structs.replace(kept, header=fresh)
