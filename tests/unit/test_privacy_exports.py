"""What the package offers, what importing it costs, and what it never prints."""

import subprocess
import sys

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import privacy
from privacy.ledger.chain import new_record
from privacy.mechanism.noise import GaussianSource
from privacy.mechanism.training import ClippedSum, PrivateTrainer


def test_exports():
    assert privacy.__all__ == [
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
    assert all(hasattr(privacy, name) for name in privacy.__all__)


def test_the_ledger_imports_no_machine_learning_library():
    code = (
        "import sys, privacy.ledger.ledger; print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    imported = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "privacy" in imported
    assert not {"torch", "opacus", "transformers", "peft", "tenseal"} & set(imported)
    assert not {"fmfl_secure", "aggregation"} & set(imported)


def test_every_error_carries_a_word_that_may_leave_the_site():
    def below(kind):
        return {kind}.union(*(below(k) for k in kind.__subclasses__()))

    kinds = below(privacy.PrivacyError)
    states = ("Damaged", "Locked", "Unavailable")
    assert {kind.__name__ for kind in kinds} == {
        n
        for n in privacy.__all__
        if n.startswith("Storage") or n.endswith(("Error", "Exhausted", "Refusal", *states))
    }
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_reprs_show_no_secret_and_no_data():
    signer = Ed25519PrivateKey.generate()
    record = new_record(previous=None, kind="open", body={}, signer=signer)
    assert record.salt not in repr(record)
    assert repr(GaussianSource()) == "GaussianSource()"
    model = torch.nn.Linear(2, 1)
    units = [np.array([i]) for i in range(7)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    plan = privacy.PrivacyPlan("record", 10, 0.5, 1.0, 1.0, 1, 1, 0, 1e-5)
    trainer = PrivateTrainer(
        model,
        plan=plan,
        loss=lambda model, batch: model(batch)[:, 0],
        collate=lambda records: torch.ones(len(records), 2),
        units=units,
        optimizer=optimizer,
        physical_batch_size=3,
    )
    assert repr(trainer) == object.__repr__(trainer)
    assert repr(trainer._clipped_sum) == object.__repr__(trainer._clipped_sum)
    assert ClippedSum.__repr__ is object.__repr__
