"""The protocol's messages, and what all roles check alike: the face for those who carry them.

No I/O and no secrets. `aggregation` has the roles; whoever takes their messages from one to the
other, and wants to know early whether one holds, finds here what reads each kind.
"""

from aggregation.crypto.graph import MAX_ATTEMPTS
from aggregation.crypto.projections import LEAST_GROUP, MOST_GROUP, rows_of
from aggregation.protocol.accusation import Accusation, read_accusation
from aggregation.protocol.checks import (
    read_announcement,
    read_cohort,
    read_custodian,
    read_opening_list,
    read_plan,
    read_upload,
)
from aggregation.protocol.exchange import (
    EXCHANGE_CAP,
    Exchange,
    hand_out,
    read_exchange,
    verify_and_hand_out,
)
from aggregation.protocol.journal import Entry as JournalEntry
from aggregation.protocol.journal import Head, heads_of
from aggregation.protocol.journal_heads import ACTS, RECOVERED, lacking, read_head, sign_head
from aggregation.protocol.journal_recovery import set_aside
from aggregation.protocol.membership import (
    follow_membership,
    membership_name,
    read_membership,
    sign_membership,
)
from aggregation.protocol.messages import (
    MAX_SHARED,
    Announcement,
    Approval,
    Confirmation,
    CustodianReady,
    Opening,
    Ready,
    Release,
    Sigma,
    UploadManifest,
    digest,
    sender,
    unseal,
)
from aggregation.protocol.norms import NormCheck, Projections, limit_of
from aggregation.protocol.plan import (
    OF_NOTHING,
    REHEARSED,
    NormGroup,
    Vanishing,
    exchange_form,
    mask_graph,
    openings_for,
)
from aggregation.protocol.prepared import prepared
from aggregation.protocol.rehearsal import Reveal, public_integers, read_reveal, rehearsal_grid
from aggregation.protocol.round import FixedCohort, Round
from aggregation.protocol.verdict import LOST, REFUSED, VERIFIED, Outcome, Verdict, read_verdict

__all__ = [
    "ACTS",
    "EXCHANGE_CAP",
    "LEAST_GROUP",
    "LOST",
    "MAX_ATTEMPTS",
    "MAX_SHARED",
    "MOST_GROUP",
    "OF_NOTHING",
    "RECOVERED",
    "REFUSED",
    "REHEARSED",
    "VERIFIED",
    "Accusation",
    "Announcement",
    "Approval",
    "Confirmation",
    "CustodianReady",
    "Exchange",
    "FixedCohort",
    "Head",
    "JournalEntry",
    "NormCheck",
    "NormGroup",
    "Opening",
    "Outcome",
    "Projections",
    "Ready",
    "Release",
    "Reveal",
    "Round",
    "Sigma",
    "UploadManifest",
    "Vanishing",
    "Verdict",
    "digest",
    "exchange_form",
    "follow_membership",
    "hand_out",
    "heads_of",
    "lacking",
    "limit_of",
    "mask_graph",
    "membership_name",
    "openings_for",
    "prepared",
    "public_integers",
    "read_accusation",
    "read_announcement",
    "read_cohort",
    "read_custodian",
    "read_exchange",
    "read_head",
    "read_membership",
    "read_opening_list",
    "read_plan",
    "read_reveal",
    "read_upload",
    "read_verdict",
    "rehearsal_grid",
    "rows_of",
    "sender",
    "set_aside",
    "sign_head",
    "sign_membership",
    "unseal",
    "verify_and_hand_out",
]
