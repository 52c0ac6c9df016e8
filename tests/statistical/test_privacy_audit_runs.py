"""The audit raises the alarm on gross faults and, but for its promised share, on nothing else.

First the statistics, on mechanisms that are exactly as private as claimed; then the whole path,
with faults injected into the trainer. Nothing here can be asked of the program by an option.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from audited import SIGNIFICANCE, unless_refuted
from scipy import stats

from privacy import AuditError, PrivacyPlan, pld_epsilon
from privacy.accounting.events import PoissonSampledGaussian
from privacy.auditing.canaries import observe_canaries
from privacy.auditing.canary_model import SyntheticRecords
from privacy.auditing.canary_training import with_room
from privacy.auditing.statistics import AuditDesign, design_audit, evaluate, expected_bound
from privacy.mechanism.distributed import DistributedPlan
from privacy.mechanism.skellam import SkellamSource
from privacy.mechanism.training import ClippedSum, PrivateTrainer

# Statistics alone: randomised response is the mechanism that makes theorem 5.2 tight.


def alarms(*, epsilon, delta, claimed_delta, audits, claim, guesses_in=400, guesses_out=400):
    """How many audits of randomised response refute a claim.

    Each canary is revealed with probability delta, and answered right with the odds e^epsilon
    otherwise: (epsilon, delta)-DP, and no better.
    """
    design = AuditDesign(1000, guesses_in, guesses_out, claimed_delta, 0.95)
    generator = np.random.default_rng(5)
    refuted = 0
    for _ in range(audits):
        included = generator.random(1000) < 0.5
        right = generator.random(1000) < 1 / (1 + math.exp(-epsilon))
        revealed = generator.random(1000) < delta
        answer = np.where(right | revealed, included, ~included)
        scores = np.where(answer, 1.0, -1.0) * (1.0 + revealed)
        refuted += evaluate(design, included=included, scores=scores).lower_bound > claim
    return refuted


def test_a_true_claim_is_refuted_in_one_of_twenty_audits_at_most():
    audits = 4000
    refuted = alarms(epsilon=1.0, delta=0.0, claimed_delta=0.0, audits=audits, claim=1.0)
    assert refuted <= stats.binom.ppf(1 - SIGNIFICANCE, audits, 0.05)
    # The bound is tight: were it looser, or wrongly tighter, this would not be near one of 20.
    assert refuted >= stats.binom.ppf(SIGNIFICANCE, audits, 0.03)


def test_a_false_claim_is_refuted():
    assert alarms(epsilon=1.3, delta=0.0, claimed_delta=0.0, audits=200, claim=1.0) > 180


def test_delta_is_accounted_for():
    """What only delta explains is not taken for epsilon, and would be without its term."""
    arms = {"epsilon": 1.0, "delta": 0.04, "audits": 400, "claim": 1.0}
    fewest = {"guesses_in": 14, "guesses_out": 0}  # of about 20 that are in and revealed
    true = alarms(**arms, **fewest, claimed_delta=0.04)
    assert true <= stats.binom.ppf(1 - SIGNIFICANCE, 400, 0.05)
    assert alarms(**arms, **fewest, claimed_delta=0.0) > 300


# The whole path: a small model, the private trainer, faults injected into it.


def a_plan(*, unit="record", sample_rate=0.2, steps=4, rounds=6, epsilon=1.0):
    return PrivacyPlan.calibrated(
        unit=unit,
        population=300,
        sample_rate=sample_rate,
        max_grad_norm=0.7,
        steps_per_round=steps,
        rounds=rounds,
        repeats=0,
        epsilon=epsilon,
        delta=1e-5,
    )


class Audit:
    """One audit of a plan, designed once and run as often as asked."""

    def __init__(
        self, plan, *, records_per_canary=1, width=34, shares=1, event=None, gradients=False
    ):
        self.plan = plan
        event = event or plan.round_event()
        self.epsilon = pld_epsilon([event] * plan.rounds, plan.delta)
        self.claim = PoissonSampledGaussian(
            plan.sample_rate, event.noise_multiplier, event.steps * plan.rounds
        )
        self.shares, self.gradients = shares, gradients
        self.design = design_audit(self.claim, epsilon=self.epsilon, delta=plan.delta)
        self.records_per_canary = records_per_canary
        self.width = width

    def observe(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            data = torch.randn(5, 16)
            model = torch.nn.Sequential(
                torch.nn.Linear(16, self.width), torch.nn.Tanh(), torch.nn.Linear(self.width, 16)
            )
        return observe_canaries(
            model,
            plan=self.plan,
            loss=lambda model, batch: model(batch).square().mean(dim=1),
            records=SyntheticRecords(
                lambda records: data[torch.from_numpy(records)], np.arange(5, dtype=np.int64)
            ),
            canaries=self.design.canaries,
            shares=self.shares,
            gradients=self.gradients,
            records_per_canary=self.records_per_canary,
            build_optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
            physical_batch_size=64,
        )

    def bound(self):
        found = self.observe()
        return evaluate(self.design, included=found.included, scores=found.scores).lower_bound

    def is_refuted(self):
        """Whether each of AUDITS audits raises the alarm."""
        return unless_refuted(self.bound, lambda bound: bound > self.epsilon) > self.epsilon


def scale_noise(patch, factor):
    """The trainer adds so much of the noise that the plan asks for and the ledger charges."""
    correct = PrivacyPlan.noise_stddev.fget
    patch.setattr(PrivacyPlan, "noise_stddev", property(lambda plan: factor * correct(plan)))


@pytest.fixture(scope="module")
def audit():
    return Audit(a_plan())


def test_the_correct_trainer_is_not_flagged():
    audit = Audit(a_plan(epsilon=3.0))
    assert not audit.is_refuted()
    found = audit.observe()
    assert found.spare == 0
    # And canaries did leave a trace: eight standard deviations are expected of their mean.
    shift = found.scores[found.included].mean() - found.scores[~found.included].mean()
    spread = found.scores.std() / math.sqrt(audit.design.canaries / 4)
    assert shift > 2.5 * spread


@pytest.mark.parametrize("factor", [0.0, 1 / 8], ids=["missing", "eighth"])
def test_missing_noise_and_noise_eight_times_too_small_are_flagged(audit, monkeypatch, factor):
    scale_noise(monkeypatch, factor)
    bound = audit.bound()
    assert bound > audit.epsilon
    expected = expected_bound(audit.design, audit.claim, noise_factor=factor)
    assert bound == pytest.approx(expected, rel=0.5)  # the path does what the simulation does


@pytest.mark.parametrize("factor", [1.0, 0.0, 1 / 8], ids=["correct", "missing", "eighth"])
def test_released_gradients_are_audited_as_they_are_released(monkeypatch, factor):
    """Flagged where their noise is too small, and only there."""
    audit = Audit(a_plan(steps=1, rounds=12), gradients=True)
    stepped = []
    monkeypatch.setattr(PrivateTrainer, "train_round", lambda *_: stepped.append(1))
    scale_noise(monkeypatch, factor)
    assert audit.is_refuted() == (factor < 1.0)
    assert not stepped, "no optimizer at a site"


def test_canaries_beside_the_models_own_layers_work_alike(monkeypatch):
    small = Audit(a_plan(epsilon=3.0), width=4)
    assert small.observe().spare == small.design.canaries - 2 * 16 * 4
    assert not small.is_refuted()
    scale_noise(monkeypatch, 1 / 8)
    assert small.bound() > small.epsilon


def test_clipping_records_in_place_of_people_is_flagged(monkeypatch):
    people = Audit(a_plan(unit="patient_id", steps=2, rounds=4), records_per_canary=8)
    assert not people.is_refuted()
    clip_records(monkeypatch)
    assert people.bound() > people.epsilon


def clip_records(patch):
    """The classical mistake where the unit is a person."""
    correct = ClippedSum.accumulate

    def record_by_record(self, units):
        correct(self, [np.array([record]) for unit in units for record in unit])

    patch.setattr(ClippedSum, "accumulate", record_by_record)


def test_taking_every_unit_at_every_step_is_flagged(monkeypatch):
    rare = Audit(a_plan(sample_rate=0.05, steps=4, rounds=4))
    assert not rare.is_refuted()
    monkeypatch.setattr(
        "privacy.mechanism.sampling.poisson_sample",
        lambda units, _: np.arange(units, dtype=np.int64),
    )
    assert rare.bound() > rare.epsilon


def test_canaries_that_do_not_arrive_are_an_error_and_no_clean_bill(audit, monkeypatch):
    """Gradients lost on the way look like perfect privacy; the audit must not be fooled."""
    correct = ClippedSum.accumulate
    monkeypatch.setattr(
        ClippedSum, "accumulate", lambda self, units: correct(self, list(units)[::2])
    )
    with pytest.raises(AuditError, match="reaches the clipped sum with"):
        audit.observe()


def test_steps_that_are_not_seen_are_an_error_too(audit, monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "register_step_pre_hook", lambda *_: None)
    with pytest.raises(AuditError, match="0 steps were seen of 24"):
        audit.observe()


# Distributed noise: the same canaries at one site of a cohort of five, one of them colluding.


def a_distributed_plan(*, unit="record", rounds=12, epsilon=1.0):
    return DistributedPlan.calibrated(
        unit=unit,
        population=300,
        largest_population=300,
        sample_rate=0.2,
        max_grad_norm=0.7,
        dimension=16 * 34 + 34 + 34 * 16 + 16,
        min_cohort=5,
        colluding_sites=1,
        rounds=rounds,
        repeats=0,
        epsilon=epsilon,
        delta=1e-5,
    )


@pytest.fixture(scope="module")
def sums():
    """What whoever sees released sums is promised: four shares are in each."""
    return Audit(a_distributed_plan(), shares=4)


@pytest.fixture(scope="module")
def sites():
    """What all other sites together are promised: the site's own share protects alone."""
    plan = a_distributed_plan()
    return Audit(plan, event=plan.round_event().seen_by_sites())


def scale_shares(patch, factor):
    """The samplers draw so much of the noise that the plan asks for and the ledger charges."""
    draw = SkellamSource.integers
    patch.setattr(
        SkellamSource,
        "integers",
        lambda self, count: np.rint(factor * draw(self, count)).astype(np.int64),
    )


@pytest.mark.parametrize("shares", [4, 1], ids=["sums", "sites"])
def test_correct_shares_are_not_flagged(shares):
    plan = a_distributed_plan(epsilon=3.0 if shares == 4 else 1.0)
    event = plan.round_event()
    audit = Audit(plan, shares=shares, event=event if shares == 4 else event.seen_by_sites())
    assert not audit.is_refuted()
    found = audit.observe()
    assert found.spare == 0
    shift = found.scores[found.included].mean() - found.scores[~found.included].mean()
    spread = found.scores.std() / math.sqrt(audit.design.canaries / 4)
    assert shift > 2.5 * spread  # canaries did leave a trace


@pytest.mark.parametrize("view", ["sums", "sites"])
@pytest.mark.parametrize("factor", [0.0, 1 / 8], ids=["missing", "eighth"])
def test_shares_left_out_and_shares_eight_times_too_small_are_flagged(
    request, monkeypatch, view, factor
):
    audit = request.getfixturevalue(view)
    scale_shares(monkeypatch, factor)
    bound = audit.bound()
    assert bound > audit.epsilon
    expected = expected_bound(audit.design, audit.claim, noise_factor=factor)
    assert bound == pytest.approx(expected, rel=0.5)


def test_a_share_for_more_parameters_keeps_its_claim():
    """A spare layer widens the vector; the audit must not get less noise, or more, by that."""
    plan = a_distributed_plan()
    wider = with_room(plan, 3 * plan.dimension)
    assert with_room(plan, plan.dimension) is plan
    assert wider.dimension == 3 * plan.dimension
    assert wider.noise_multiplier == pytest.approx(plan.noise_multiplier, rel=1e-4)
    narrow, wide = (pld_epsilon([p.round_event()] * p.rounds, p.delta) for p in (plan, wider))
    assert 0.99 * narrow <= wide <= narrow


def test_more_shares_than_a_sum_has_are_refused(sums):
    for shares in (0, 5):
        with pytest.raises(AuditError, match="expected 1 to 4"):
            Audit(sums.plan, shares=shares).observe()


def test_people_with_distributed_noise_are_clipped_as_people(monkeypatch):
    people = Audit(a_distributed_plan(unit="patient_id", rounds=8), records_per_canary=8, shares=4)
    assert not people.is_refuted()
    clip_records(monkeypatch)
    assert people.bound() > people.epsilon


@pytest.mark.slow
def test_the_correct_trainer_is_flagged_in_one_of_twenty_audits_at_most():
    audit, audits = Audit(a_plan(epsilon=3.0)), 60
    flagged = sum(audit.bound() > audit.epsilon for _ in range(audits))
    assert flagged <= stats.binom.ppf(1 - SIGNIFICANCE, audits, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
def test_faults_are_flagged_nearly_always(monkeypatch, epsilon):
    audit = Audit(a_plan(epsilon=epsilon))
    with monkeypatch.context() as patch:
        scale_noise(patch, 1 / 8)
        assert sum(audit.bound() > audit.epsilon for _ in range(15)) >= 13
    with monkeypatch.context() as patch:
        scale_noise(patch, 0.0)
        assert all(audit.bound() > audit.epsilon for _ in range(5))
    with monkeypatch.context() as patch:  # what it cannot see, said in so many words in the docs
        scale_noise(patch, 1 / 2)
        assert sum(audit.bound() > audit.epsilon for _ in range(5)) <= 2
