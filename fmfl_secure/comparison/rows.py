"""What a comparison measured: one row an arm, privacy target and seed, kept as they come."""

from __future__ import annotations

from pathlib import Path

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.storage.files import write_files

FORMAT = 2  # 1: `local` stepped at the sites, and `pooled` and `alone` by other optimizers


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One arm at one privacy target from one seed.

    Attributes:
        arm: Its name.
        epsilon: The privacy target; None where there is none.
        seed: Of the adapter's initial values. Sampling and noise are never seeded.
        metrics: The task's, on the evaluation data; of sites alone, their mean.
        by_site: Of sites alone, each one's.
        steps: Optimizer steps.
        noise_multiplier: Of one site's noise; with distributed noise of the sum that is certain.
        pld_epsilon: All steps by PLD, or None without privacy.
        insider_epsilon: With distributed noise, what all other sites together may learn.
        cpu_s: CPU seconds of training and evaluation, preparation left out.
    """

    arm: str
    epsilon: float | None
    seed: int
    metrics: dict[str, float]
    by_site: dict[str, dict[str, float]] = {}
    steps: int = 0
    noise_multiplier: float = 0.0
    pld_epsilon: float | None = None
    insider_epsilon: float | None = None
    cpu_s: float = 0.0

    @property
    def key(self) -> tuple[str, float | None, int]:
        """What makes it one row."""
        return self.arm, self.epsilon, self.seed


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All rows of one federation's settings.

    Attributes:
        format: Version of this form.
        federation: Its name.
        settings_digest: `sha256:` over its settings.
        base_model_digest: Of the base model.
        machine: Processor and versions.
        rows: What was measured.
        refused: Arms that the settings rule out, with the reason.
    """

    format: int
    federation: str
    settings_digest: str
    base_model_digest: str
    machine: dict[str, str | int]
    rows: tuple[Row, ...] = ()
    refused: dict[str, str] = {}

    def has(self, key: tuple[str, float | None, int]) -> bool:
        """Whether a row is there."""
        return any(row.key == key for row in self.rows)

    def with_row(self, row: Row) -> Comparison:
        """With one row more."""
        return msgspec.structs.replace(self, rows=(*self.rows, row))

    def with_refusal(self, arm: str, reason: str) -> Comparison:
        """With an arm that cannot be."""
        return msgspec.structs.replace(self, refused={**self.refused, arm: reason})


def keep(comparison: Comparison, path: Path) -> None:
    """Write it, replacing what was there in one step."""
    data = msgspec.json.format(msgspec.json.encode(comparison), indent=1) + b"\n"
    write_files(path.parent, {path.name: data})


def go_on(fresh: Comparison, path: Path) -> Comparison:
    """What an earlier comparison of the same settings has measured, or the fresh one.

    Raises:
        RunError: The file is of other settings, or no comparison.
    """
    if not path.exists():
        return fresh
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Comparison)
    except (OSError, msgspec.DecodeError) as error:
        raise RunError(f"{path} is not a comparison that can be gone on with: {error}") from error
    identity = (fresh.format, fresh.settings_digest, fresh.base_model_digest)
    if (kept.format, kept.settings_digest, kept.base_model_digest) != identity:
        raise RunError(
            f"{path} compares other settings or another base model",
            hint="Name another file with --output, or remove this one.",
        )
    return kept
