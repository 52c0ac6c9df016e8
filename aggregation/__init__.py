"""Secure aggregation: sites upload encrypted, masked updates; only their exact sum is opened.

A round, bytes in and bytes out, carried by the caller (see `docs/protocol.md`):

    plan_message = coordinator.plan(plan)                                   # 1
    attempt = SiteAttempt(identity, plan_message, ...)                      # 2, at every site
    ready = attempt.ready(); announcement = decryptor.announce(plan_message)  # 4
    cohort = coordinator.cohort(plan_message, announcement, readies)        # 4
    upload = attempt.upload(cohort, quantize(update, plan.quantization))    # 5
    aggregator.add(upload.manifest, upload.chunks)                          # 5
    listed, secrets = aggregator.opening_list(), aggregator.sealed_secrets()  # 6
    opening_list = decryptor.confirm(cohort, listed, secrets)               # 6
    aggregator.add_opening(attempt.open(opening_list))                      # 6
    total = aggregator.total()                                              # 7
    release = decryptor.release(cohort, opening_list, total.manifest, total.chunks)  # 8
    mean = dequantize(attempt.verify(release), plan.quantization, weight_sum)  # 9

Each role is an object of its own with an identity of its own. Everything that comes from outside
is verified, and refused with a subclass of `AggregationError`, whose `code` is all that may leave.
"""

from aggregation.ckks.packing import Packing
from aggregation.ckks.parameters import Encoding, ParameterSet, choose, parameter_set
from aggregation.ckks.quantization import Quantization, Segment, dequantize, quantize
from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.crypto.pairwise import HYBRID
from aggregation.errors import (
    AggregationError,
    BackendError,
    BackendUnavailable,
    CohortError,
    ConfigurationError,
    IdentityError,
    IdentityUnavailable,
    InputError,
    JournalError,
    JournalUnavailable,
    MessageError,
    NormError,
    OpeningError,
    ParameterError,
    PlanError,
    RecordedError,
    RefusedError,
    ReleaseError,
    ReplayError,
    RoleError,
    SealedError,
    SignatureError,
    StateError,
    UploadError,
)
from aggregation.protocol.evidence import MOST_EVIDENCE, Evidence, read_evidence
from aggregation.protocol.journal import Journal, MemoryJournal, SqliteJournal
from aggregation.protocol.journal_heads import hold_to as hold_journal_to
from aggregation.protocol.journal_heads import is_journal_head
from aggregation.protocol.journal_heads import read_head as read_journal_head
from aggregation.protocol.journal_heads import sign_head as sign_journal_head
from aggregation.protocol.journal_recovery import recover_journal
from aggregation.protocol.membership import MembershipList
from aggregation.protocol.plan import Member, RoundPlan
from aggregation.protocol.uploads import SumUpload, Upload, upload_size
from aggregation.roles.aggregator import Aggregator
from aggregation.roles.coordinator import Coordinator
from aggregation.roles.custodian import Custodian
from aggregation.roles.decryptor import Decryptor
from aggregation.roles.recovery import recorded_opening
from aggregation.roles.rehearsed import DEVIATIONS, UNREVEALED, Judgement, judge
from aggregation.roles.site import SiteAttempt
from aggregation.roles.verdicts import said_of, verdict_after_restart

__all__ = [
    "DEVIATIONS",
    "HYBRID",
    "MOST_EVIDENCE",
    "UNREVEALED",
    "AggregationError",
    "Aggregator",
    "BackendError",
    "BackendUnavailable",
    "CohortError",
    "ConfigurationError",
    "Coordinator",
    "Custodian",
    "Decryptor",
    "Encoding",
    "Evidence",
    "Identity",
    "IdentityError",
    "IdentityUnavailable",
    "InputError",
    "Journal",
    "JournalError",
    "JournalUnavailable",
    "Judgement",
    "Member",
    "MembershipList",
    "MemoryJournal",
    "MessageError",
    "NormError",
    "OpeningError",
    "Packing",
    "ParameterError",
    "ParameterSet",
    "PlanError",
    "PublicIdentity",
    "Quantization",
    "RecordedError",
    "RefusedError",
    "ReleaseError",
    "ReplayError",
    "RoleError",
    "RoundPlan",
    "SealedError",
    "Segment",
    "SignatureError",
    "SiteAttempt",
    "SqliteJournal",
    "StateError",
    "SumUpload",
    "Upload",
    "UploadError",
    "choose",
    "dequantize",
    "hold_journal_to",
    "is_journal_head",
    "judge",
    "parameter_set",
    "quantize",
    "read_evidence",
    "read_journal_head",
    "recorded_opening",
    "recover_journal",
    "said_of",
    "sign_journal_head",
    "upload_size",
    "verdict_after_restart",
]
