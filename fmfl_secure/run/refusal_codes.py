"""Why a site takes no part: the codes that others may hear, and nothing more.

A refusal travels as one of the words below. Which word is fixed by the kind of error, never by a
value that was read from data; a kind that is not listed travels as `failed`. Codes other than
`failed` and `refused` arise before a site reads data, or without them; what goes wrong
afterwards is a `SiteFailure`, and `failed` whatever the cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

GENERIC = "failed"

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        GENERIC: "it failed; the cause stays at the site",
        "refused": "a message that it received did not hold",
        "run": "the plan was not of this run, its settings or its adapter",
        "stopped": "the coordinator or a custodian has stopped the run",
        "configuration": "its own settings do not fit the federation's",
        "model": "its base model or adapter is not the one of this run",
        "admission": "its model, weights, loss or batching let one record move more than it may",
        "plan": "no noise meets the planned privacy target",
        "budget": "its ledger cannot afford the run",
        "ledger": "its ledger cannot be used for the run",
        "ledger-damaged": "its ledger does not verify",
        "ledger-locked": "its ledger lacks records that others have seen",
        "ledger-unavailable": "its ledger cannot be reached",
        "policy.expired": "its policy has expired",
        "policy.min_sites": "its policy asks for larger cohorts",
        "policy.min_share": "its policy asks for cohorts of more of the sites",
        "policy.base_model": "its policy does not allow the base model",
        "policy.architecture": "its policy does not allow an architecture that is in no table",
        "policy.task": "its policy does not allow the task",
        "policy.adapter": "its policy does not allow the kind of adapter",
        "policy.extension": "its policy does not allow the other package's code",
        "policy.rounds": "its policy allows fewer rounds",
        "policy.suite": "its policy does not allow the encryption suite",
        "policy.parameter_set": "its policy does not allow the encryption parameters",
        "policy.non_private": "its data are private and the run adds no noise",
        "policy.epsilon_per_run": "its policy allows less epsilon for a run",
        "policy.delta_per_run": "its policy allows a smaller delta only",
        "policy.insider_epsilon_per_run": "its policy allows other sites to learn less",
        "policy.colluding_sites": "its policy asks for more sites that may collude",
        "policy.queries": "its policy does not allow what is asked of its data",
        "policy.epsilon_per_answer": "its policy allows less epsilon for answers",
        "policy.answers_per_run": "its policy allows fewer answers a run",
        "policy.answers_per_year": "its policy allows fewer answers a year",
        "policy.norm_check": "its policy and the run differ on checks of how large updates are",
        "policy.epsilon_per_dataset": "its data set's own budget cannot afford the run",
    }
)


# Why the server leaves a site out of attempts for a while, by what it saw (`runtime.left_out`).
# No site says these of itself.
OF_ATTEMPTS: Mapping[str, str] = MappingProxyType(
    {
        "attempt.invalid": "it sent what does not hold, and was left out of later attempts",
        "attempt.silent": "it was there and did not answer in time, and was left out after that",
        "attempt.failed": "it alone could not go on with an attempt, and was left out after that",
        "attempt.gone": "it went away in two attempts, and was left out after that",
        "attempt.rehearsed": "a rehearsal named it, and it was left out after that",
        "attempt.refused": "it signed that a sum does not verify which more others verified",
        "attempt.suspected": (
            "sums that it was in were spoiled, nobody knows by whom, and it was left out to see "
            "whether rounds go without it; no proof of anything"
        ),
        "attempt.several": "it could not go on twice, nor could others: whose fault is not known",
    }
)


def meaning(code: str) -> str:
    """Explains a code in a record."""
    return MEANINGS.get(code) or OF_ATTEMPTS.get(code, "not a known code")


def leaving_code(error: Exception) -> str:
    """The word that others hear when a site stops for this error."""
    code = getattr(error, "code", GENERIC)
    return code if code in MEANINGS else GENERIC
