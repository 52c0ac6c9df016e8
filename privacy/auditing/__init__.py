"""Audits from outside: canaries in one run, and how well members are told from others."""

from privacy.auditing.answers import observe_answers
from privacy.auditing.canaries import Observation, observe_canaries
from privacy.auditing.canary_model import SyntheticRecords
from privacy.auditing.membership import (
    Told,
    exposure,
    most_auc,
    most_exposed,
    most_right_site,
    most_true_positives,
    told_apart,
    true_positives,
)
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
    "Told",
    "design_audit",
    "evaluate",
    "expected_bound",
    "exposure",
    "most_auc",
    "most_exposed",
    "most_right_site",
    "most_true_positives",
    "observe_answers",
    "observe_canaries",
    "told_apart",
    "true_positives",
]
