"""The one-run audit: canaries through the real training path, and what guesses about them show."""

from privacy.auditing.canaries import observe_canaries
from privacy.auditing.canary_model import SyntheticRecords
from privacy.auditing.statistics import (
    DESIGN_FAULT,
    AuditDesign,
    design_audit,
    evaluate,
    expected_bound,
)

__all__ = [
    "DESIGN_FAULT",
    "AuditDesign",
    "SyntheticRecords",
    "design_audit",
    "evaluate",
    "expected_bound",
    "observe_canaries",
]
