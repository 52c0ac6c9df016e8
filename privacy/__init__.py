"""Differential privacy for one site: plan, private training, and an enforced budget.

A `PrivacyPlan` couples what is trained with what is charged. `SitePolicy` says what a site allows
of what others plan. `Ledger` holds a population's budget and refuses what it cannot afford;
`privacy.mechanism.training.PrivateTrainer` trains a model under the plan, after
`privacy.mechanism.admission.check_admission` has measured that model and loss have the sensitivity
the plan promises; `privacy.auditing.canaries` and `privacy.auditing.statistics` look for gross
mistakes in both. Modules that import torch are imported by name; what is exported here does not, so
that a ledger can be read on a machine without it.

    plan = PrivacyPlan.calibrated(unit="record", population=1000, ..., epsilon=3, delta=1e-5)
    ledger.reserve(run=run_id, event=plan.round_event(), rounds=plan.rounds, plan=digest)
    ledger.commit(run=run_id, round=1)          # durable; only now read data
    PrivateTrainer(model, plan=plan, ...).train_round()

With a `PrivacyPlan` the guarantee is local: it holds against everyone outside the site, all of them
colluding, with no help from encryption or aggregation. With a `DistributedPlan` each site adds a
share of the noise, and the guarantee is of the sum: a second figure says what the other sites can
learn together. This package knows nothing of encryption or aggregation.

In a run `parties.site` asks the policy, `parties.run_budget` the ledger, and
`training.local_round` trains.
"""

from privacy.accounting.affordability import (
    MAX_ROUNDS,
    AffordableRun,
    Headroom,
    RunKind,
    Sampler,
    affordable_runs,
    least_noise_multiplier,
)
from privacy.accounting.events import (
    Event,
    NonPrivate,
    PoissonSampledGaussian,
    PoissonSampledSkellam,
    parse_event,
)
from privacy.accounting.exact import exact_epsilon, exact_noise_multiplier
from privacy.accounting.pld import attack_success_bound, pld_epsilon
from privacy.accounting.rdp import (
    add_costs,
    calibrate_noise_multiplier,
    epsilon_spent,
    filter_delta,
    filter_orders,
    rdp_cost,
    zero_cost,
)
from privacy.errors import (
    AdmissionError,
    AuditError,
    BudgetExhausted,
    LedgerDamaged,
    LedgerError,
    LedgerLocked,
    LedgerUnavailable,
    PlanError,
    PolicyRefusal,
    PrivacyError,
    StorageDamaged,
    StorageError,
    StorageExists,
    StorageMissing,
    StorageUnavailable,
    StorageUnusable,
    TrainingError,
)
from privacy.ledger.anchors import Anchor, read_anchors
from privacy.ledger.budget import Budget
from privacy.ledger.chain import Record
from privacy.ledger.charges import Charge
from privacy.ledger.datasets import Dataset, DatasetCap
from privacy.ledger.decided import UNSAID, Decided
from privacy.ledger.entries import Recovery, Reservation, Spend
from privacy.ledger.export import export_csv, export_json, read_export
from privacy.ledger.forecast import Forecast, Part, forecast, forecast_parts, with_reserved
from privacy.ledger.grants import Grant, GrantStatus
from privacy.ledger.heads import is_head, missing_heads
from privacy.ledger.ledger import Ledger
from privacy.ledger.standing import above_limit, objections
from privacy.limits import (
    MAX_EPSILON,
    MAX_POPULATION_SIZE,
    as_written,
    check_delta,
    check_population_delta,
    largest_delta,
)
from privacy.mechanism.constant_work import (
    DUMMY,
    ConstantWork,
    PaddedCollate,
    StepWork,
    declare_work,
)
from privacy.mechanism.distributed import DistributedPlan
from privacy.mechanism.plan import RELATION, PrivacyPlan
from privacy.mechanism.sampling import cap_contributions
from privacy.mechanism.share_runs import ShareRuns
from privacy.names import plain
from privacy.policy import (
    MIN_SHARE,
    QUERIES,
    Queries,
    RunProposal,
    SitePolicy,
    check_answers_per_year,
    check_extensions,
    check_policy,
    share_of,
)

__all__ = [
    "DUMMY",
    "MAX_EPSILON",
    "MAX_POPULATION_SIZE",
    "MAX_ROUNDS",
    "MIN_SHARE",
    "QUERIES",
    "RELATION",
    "UNSAID",
    "AdmissionError",
    "AffordableRun",
    "Anchor",
    "AuditError",
    "Budget",
    "BudgetExhausted",
    "Charge",
    "ConstantWork",
    "Dataset",
    "DatasetCap",
    "Decided",
    "DistributedPlan",
    "Event",
    "Forecast",
    "Grant",
    "GrantStatus",
    "Headroom",
    "Ledger",
    "LedgerDamaged",
    "LedgerError",
    "LedgerLocked",
    "LedgerUnavailable",
    "NonPrivate",
    "PaddedCollate",
    "Part",
    "PlanError",
    "PoissonSampledGaussian",
    "PoissonSampledSkellam",
    "PolicyRefusal",
    "PrivacyError",
    "PrivacyPlan",
    "Queries",
    "Record",
    "Recovery",
    "Reservation",
    "RunKind",
    "RunProposal",
    "Sampler",
    "ShareRuns",
    "SitePolicy",
    "Spend",
    "StepWork",
    "StorageDamaged",
    "StorageError",
    "StorageExists",
    "StorageMissing",
    "StorageUnavailable",
    "StorageUnusable",
    "TrainingError",
    "above_limit",
    "add_costs",
    "affordable_runs",
    "as_written",
    "attack_success_bound",
    "calibrate_noise_multiplier",
    "cap_contributions",
    "check_answers_per_year",
    "check_delta",
    "check_extensions",
    "check_policy",
    "check_population_delta",
    "declare_work",
    "epsilon_spent",
    "exact_epsilon",
    "exact_noise_multiplier",
    "export_csv",
    "export_json",
    "filter_delta",
    "filter_orders",
    "forecast",
    "forecast_parts",
    "is_head",
    "largest_delta",
    "least_noise_multiplier",
    "missing_heads",
    "objections",
    "parse_event",
    "plain",
    "pld_epsilon",
    "rdp_cost",
    "read_anchors",
    "read_export",
    "share_of",
    "with_reserved",
    "zero_cost",
]
