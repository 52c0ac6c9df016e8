"""Reading an audit's record back, with its bound computed again from its counts.

Apart from the record itself: whoever only passes reports on needs no statistics.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED, MOST_DOCUMENT, read_regular
from fmfl_secure.run.audit_record import AUDIT_NAME, FORMAT, AuditRecord
from privacy import AuditError


def decode_audit(data: bytes) -> AuditRecord:
    """Read `audit.json`; bound and verdict are computed again from the counts.

    Raises:
        RunError: It is not an audit's record, or its figures contradict each other.
    """
    # It brings SciPy and PyTorch, and few runs have an audit that needs them.
    from privacy.auditing import AuditDesign  # noqa: PLC0415

    try:
        record = msgspec.json.decode(data, type=AuditRecord)
        if record.format != FORMAT:
            raise RunError(f"an audit's record has format {record.format}, expected {FORMAT}")
        design = AuditDesign(
            canaries=record.canaries,
            guesses_in=record.guesses_in,
            guesses_out=record.guesses_out,
            delta=record.delta,
            confidence=record.confidence,
        )
        bound = design.bound(record.correct)
    except (AuditError, *MALFORMED) as error:
        raise RunError(f"not an audit's record: {error}") from error
    above = record.lower_bound > record.claimed_epsilon
    if abs(bound - record.lower_bound) > 1e-5 or above != record.above_claim:
        raise RunError(
            f"an audit's record says {record.lower_bound} and {record.verdict}, its own counts "
            f"give {bound}"
        )
    return record


def load_audit(
    folder: Path, *, run: str, settings_digest: str, base_model_digest: str
) -> AuditRecord | None:
    """The audit in a run's folder, or None.

    Raises:
        RunError: It is not an audit's record, or one of another run, settings or base model.
    """
    path = folder / AUDIT_NAME
    hint = f"Make it again with fmfl-secure audit {folder}, or remove it."
    try:
        record = decode_audit(read_regular(path, most_bytes=MOST_DOCUMENT))
    except FileNotFoundError:
        return None
    except (OSError, RunError) as error:
        raise RunError(f"cannot read {path}: {error}", hint=hint) from error
    theirs = (record.run, record.settings_digest, record.base_model_digest)
    if theirs != (run, settings_digest, base_model_digest):
        raise RunError(f"{path} is of another run, settings or base model", hint=hint)
    return record
