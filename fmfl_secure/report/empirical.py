"""The words for an empirical audit, on the page and on the command line.

An audit can refute a claim and never confirm one, and the words must not suggest that it can.
"""

from __future__ import annotations

from fmfl_secure.report import rounding
from fmfl_secure.run.audit_record import AuditRecord
from fmfl_secure.run.record import RunRecord


def figures(audit: AuditRecord) -> dict[str, str]:
    """Figures by name, the bound beside the claim first."""
    percent = f"{audit.confidence * 100:g}\N{NO-BREAK SPACE}%"
    accountant = "Renyi DP" if audit.shares else "PLD"
    return {
        "Lower bound found": f"epsilon {rounding.left(audit.lower_bound)} at delta "
        f"{rounding.small(audit.delta)}, with {percent} confidence",
        "Claimed": f"epsilon {rounding.spent(audit.claimed_epsilon)} for these {audit.steps} "
        f"{'steps' if audit.audited == 'training' else 'answers'}, by {accountant}; "
        f"{rounding.spent(audit.charged_epsilon)} is charged",
        **_view(audit),
        "The same check would find, about": f"{_about(audit.expected_without_noise)} without any "
        f"noise; {_about(audit.expected_noise_eighth)} with noise eight times too small; "
        f"{_about(audit.expected_noise_half)} with half of the noise; "
        f"{_about(audit.expected_correct)} with all of it",
        "Canaries": _canaries(audit),
        "Guesses": f"{rounding.count(audit.guesses_in)} that a canary was in, "
        f"{rounding.count(audit.guesses_out)} that one was not, fixed beforehand; "
        f"{rounding.count(audit.correct)} were right",
    }


def sentences(audit: AuditRecord) -> list[str]:
    """Says what the audit shows, and what it does not."""
    if audit.above_claim:
        return [alarm(audit)]
    says = (
        "The claim was not contradicted. That is all this says: a bound below the claim proves "
        "nothing, and the guarantee rests on the mechanism and its accounting, not on this check."
    )
    misses = (
        f"It is a smoke alarm for gross mistakes, not a certificate. {_blind_spot(audit)} It "
        "cannot see the noise's tails, nor mistakes that only certain records would meet."
    )
    if audit.audited == "answers":
        used = (
            "Each canary was in a question of its own, asked of made-up records with these "
            "settings: it used nobody's data and cost no budget."
        )
        return [says, misses, *_of_shares(audit), used]
    used = (
        "It trained on canaries and made-up records, with the run's settings: it used nobody's "
        "data and cost no budget."
    )
    return [says, misses, *_of_shares(audit), used]


def alarm(audit: AuditRecord) -> str:
    """Says what to do when an audit refutes the claim."""
    wrong = (1.0 - audit.confidence) * 100
    what = "training" if audit.audited == "training" else "answering"
    return (
        f"STOP. The empirical check contradicts the claimed epsilon: {what} as planned revealed "
        f"at least epsilon {rounding.left(audit.lower_bound)}, against a claim of "
        f"{rounding.spent(audit.claimed_epsilon)}. Noise, clipping or sampling is not what the "
        "plan says. Train on no private data with this installation, publish nothing that it "
        "trained, and find the cause. A correct mechanism sets this alarm off in at most "
        f"{wrong:.3g}\N{NO-BREAK SPACE}% of checks; a second one that does leaves little doubt."
    )


def warnings(record: RunRecord) -> list[str]:
    """Warns of an audit that refutes the claim."""
    audit = record.audit
    return [alarm(audit)] if audit is not None and audit.above_claim else []


def _view(audit: AuditRecord) -> dict[str, str]:
    """Who would learn that much, where there is more than one answer."""
    if audit.against == "outsiders":
        shares = "one site" if audit.shares == 1 else f"{audit.shares} sites"
        return {"Seen by": f"whoever sees released sums; the noise of {shares} counts"}
    if audit.against == "sites":
        return {"Seen by": "all other sites together; this site's own share of noise counts alone"}
    return {}


def _of_shares(audit: AuditRecord) -> list[str]:
    if not audit.shares:
        return []
    installed = (
        "It went through the code that is installed here. Whether the sites of a run did add "
        "their shares of noise, it cannot tell."
    )
    return [installed]


def _about(epsilon: float) -> str:
    return f"{epsilon:.2f}"


def _blind_spot(audit: AuditRecord) -> str:
    """The largest of the simulated mistakes that would have gone unnoticed."""
    for found, mistake in (
        (audit.expected_noise_eighth, "noise eight times too small"),
        (audit.expected_noise_half, "half of the noise missing"),
    ):
        if found <= audit.claimed_epsilon:
            return f"It would most likely not have noticed {mistake}."
    return "It would most likely not have noticed a few percent of the noise missing."


def _canaries(audit: AuditRecord) -> str:
    text = f"{rounding.count(audit.canaries)}, each in the data with probability 1/2"
    if audit.records_per_canary > 1:
        text += f", of {audit.records_per_canary} records each"
    if audit.spare_canaries:
        text += f"; {rounding.count(audit.spare_canaries)} of them beside the model's own layers"
    return text
