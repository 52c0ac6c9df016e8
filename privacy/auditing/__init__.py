"""The one-run audit: canaries through the real training path, and what guesses about them show."""

from privacy.auditing.answers import observe_answers
from privacy.auditing.canaries import Observation, observe_canaries
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
    "Observation",
    "SyntheticRecords",
    "design_audit",
    "evaluate",
    "expected_bound",
    "observe_answers",
    "observe_canaries",
]
