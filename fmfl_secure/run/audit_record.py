"""The record of an empirical audit, and the form of `audit.json`.

Nothing in it was computed from anybody's data: an audit trains on canaries and synthetic records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from fmfl_secure.run.ranges import Count, Delta, Figure, Share
from fmfl_secure.storage.files import write_output

AUDIT_NAME = "audit.json"
FORMAT = 1


class AuditRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An empirical audit, and its result.

    Attributes:
        format: Version of this form.
        federation: Name of the federation.
        run: Run id; empty for settings that were audited before a run.
        settings_digest: Of the settings audited.
        base_model_digest: Of the base model trained.
        at: UTC time.
        version: Of this project, whose code was audited.
        unit: What one protected unit is.
        rounds: Rounds trained, as planned.
        steps: Noised steps in all rounds.
        sample_rate: Poisson inclusion probability.
        noise_multiplier: As planned.
        claimed_epsilon: What is claimed of these steps at `delta`, their parameters having been
            fixed in advance: by PLD, with distributed noise by Renyi DP. The smallest figure that
            this project states of them.
        charged_epsilon: What a ledger charges for them.
        delta: At that delta.
        canaries: Units that were in the data with probability 1/2 each.
        spare_canaries: Those of them that lay beside the model's own layers.
        records_per_canary: Records of each.
        guesses_in: Guesses that a canary was in.
        guesses_out: Guesses that one was not.
        correct: How many of all guesses were right.
        confidence: Of the lower bound.
        lower_bound: On epsilon at `delta`.
        verdict: `above-claim` refutes the claim; `below-claim` proves nothing.
        expected_without_noise: Bound to expect had all noise been missing; by simulation, as the
            next three.
        expected_noise_eighth: The same with noise eight times too small.
        expected_noise_half: The same with noise halved.
        expected_correct: The same of a correct mechanism.
        cpu_s: CPU time of the audit, in seconds.
        against: Who sees what was audited: `everyone` with local noise; with distributed noise
            the `outsiders` who see released sums, or all other `sites` together.
        shares: How many sites' shares of distributed noise count against them; 0 with local noise.
        audited: What: training, or answers, each of which had one canary or none.
    """

    format: int
    federation: str
    run: str
    settings_digest: str
    base_model_digest: str
    at: str
    version: str
    unit: str
    rounds: Count
    steps: Count
    sample_rate: Share
    noise_multiplier: Figure
    claimed_epsilon: Figure
    charged_epsilon: Figure
    delta: Delta
    canaries: Count
    spare_canaries: Count
    records_per_canary: Count
    guesses_in: Count
    guesses_out: Count
    correct: Count
    confidence: Share
    lower_bound: Figure
    verdict: Literal["below-claim", "above-claim"]
    expected_without_noise: Figure
    expected_noise_eighth: Figure
    expected_noise_half: Figure
    expected_correct: Figure
    cpu_s: Figure
    against: Literal["everyone", "outsiders", "sites"] = "everyone"
    shares: Count = 0
    audited: Literal["training", "answers"] = "training"

    @property
    def above_claim(self) -> bool:
        """Whether the claim is refuted, at the record's confidence."""
        return self.verdict == "above-claim"


def encode_audit(record: AuditRecord) -> bytes:
    """The record as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def save_audit(folder: Path, record: AuditRecord) -> Path:
    """Write `audit.json` into a run's folder.

    Raises:
        RunError: It cannot be written.
    """
    write_output(folder / AUDIT_NAME, encode_audit(record))
    return folder / AUDIT_NAME
