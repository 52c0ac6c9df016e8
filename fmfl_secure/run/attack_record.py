"""The record of attacks on a finished adapter, and the form of `attack.json`.

Its figures are exact, of data that somebody named: where these are private, so are the figures, and
the file is in the folder of the site that they are of and nowhere else.

`attacks.attack` fills it in and saves it; `report.attacked` shows it with the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.run.beside_report import read_record
from fmfl_secure.run.ranges import Count, Figure, Share, Spent
from fmfl_secure.storage.files import write_output

ATTACK_NAME: Final = "attack.json"
FORMAT: Final = 1
FLAG_AUC: Final = 0.7  # an attack that tells members apart so well is one to act on


class ToldMembers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How well one attack tells who was trained on.

    Attributes:
        attack: Its name.
        auc: Area under the curve of true against false positives.
        low: Lower end of its interval, at the record's confidence.
        high: Upper end.
        true_positives: By the rate of false positives, in the order of the record's.
    """

    attack: str
    auc: Share
    low: Share
    high: Share
    true_positives: tuple[Share, ...]

    @property
    def flagged(self) -> bool:
        """Whether it is good enough to act on, and no accident of few units."""
        return self.auc >= FLAG_AUC and self.low > 0.5


class ToldSites(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often a member's site is guessed right.

    Attributes:
        sites: How many there are to choose from.
        units: Guesses, of units that taught nothing about the guessing.
        right: Share of right guesses with the adapter, every site weighing the same.
        without: The same from reference models alone, without the adapter.
        allowed: The most that epsilon allows anybody.
    """

    sites: Count
    units: Count
    right: Share
    without: Share
    allowed: Share


class ToldSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a planted secret is exposed.

    Attributes:
        number: Of the secret in its file, from 1: the text itself is nowhere here.
        units: How many units held it, as its file says.
        candidates: Among how many it was ranked.
        exposure: log2 of these over its rank.
        by_chance: How likely an exposure so large is at most, if epsilon holds.
    """

    number: Count
    units: Count
    candidates: Count
    exposure: Figure
    by_chance: Share


class AttackRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Attacks on a finished adapter, and their results.

    Attributes:
        format: Version of this form.
        federation: Name of the federation.
        run: Run id.
        settings_digest: Of its settings.
        adapter_digest: Of its adapter.
        at: UTC time.
        version: Of this project.
        unit: What one protected unit is.
        sites: Whose units were attacked.
        visibility: `public` where all of them declare their data so.
        epsilon: The most that the run may have cost a unit; null without a bound.
        delta: Beside it.
        confidence: Of intervals.
        members: Units that were trained on.
        others: Units that were not.
        others_from: Where these are from: the sites' own held-out units, or the public-like file.
        references: Reference models.
        false_positives: Rates at which true positives are given.
        membership: Attacks on membership.
        allowed_auc: The largest area that epsilon allows any attack.
        allowed_true_positives: The most true positives, by rate.
        told_sites: None where data of one site alone are at hand.
        secrets: Planted secrets; empty without any.
        cpu_s: CPU time, in seconds.
    """

    format: int
    federation: str
    run: str
    settings_digest: str
    adapter_digest: str
    at: str
    version: str
    unit: str
    sites: tuple[str, ...]
    visibility: Literal["public", "private"]
    epsilon: Spent | None
    delta: Share
    confidence: Share
    members: Count
    others: Count
    others_from: Literal["held-out", "public-like"]
    references: Count
    false_positives: tuple[Share, ...]
    membership: tuple[ToldMembers, ...]
    allowed_auc: Share
    allowed_true_positives: tuple[Share, ...]
    told_sites: ToldSites | None
    secrets: tuple[ToldSecret, ...]
    cpu_s: Figure

    @property
    def flagged(self) -> bool:
        """Whether an attack tells members apart so well that somebody should act."""
        return any(each.flagged for each in self.membership)

    @property
    def beyond_epsilon(self) -> bool:
        """Whether one is better than epsilon allows, by more than its interval."""
        return any(each.low > self.allowed_auc for each in self.membership)


def save_attack(folder: Path, name: str, record: AttackRecord) -> Path:
    """Write a record as a file.

    Args:
        folder: Where; made if missing.
        name: The file's name.
        record: The record.

    Raises:
        RunError: It cannot be written.
    """
    encoded = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
    write_output(folder / name, encoded)
    return folder / name


def load_attack(folder: Path, *, run: str, settings_digest: str) -> AttackRecord | None:
    """The attacks in a run's folder, or None.

    Raises:
        RunError: It is no such record, of another run or settings, or of private data, which are
            not for a report that everybody gets.
    """
    path = folder / ATTACK_NAME
    hint = f"Make it again with fmfl-secure attack {folder}, or remove it."
    record = read_record(path, AttackRecord, hint=hint)
    if record is None:
        return None
    if (record.format, record.run, record.settings_digest) != (FORMAT, run, settings_digest):
        raise RunError(f"{path} is of another run, settings or form", hint=hint)
    if record.visibility != "public":
        raise RunError(
            f"{path} has exact figures of private data",
            hint="They are for the site alone: move it back into the site's folder.",
        )
    return record
