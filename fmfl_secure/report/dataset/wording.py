"""The sentences of a dataset report, from its record alone.

`report.dataset.page` calls these for its sentences, from top to bottom of the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fmfl_secure.planning.terms import holds_answers, run_of
from fmfl_secure.report import deltas, rounding
from fmfl_secure.report.dataset.record import DatasetRecord, DatasetRun
from fmfl_secure.report.names import count, listing
from fmfl_secure.report.verdict import verdict
from fmfl_secure.run.refusal_codes import MEANINGS


def unit(record: DatasetRecord) -> str:
    """One protected unit, in words."""
    return "one record" if record.unit == "record" else f"everything of one “{record.unit}”"


def promised(record: DatasetRecord) -> str:
    """States what the grants promise."""
    if not record.grants:
        return "Nothing was granted, so nothing could be trained."
    if not math.isfinite(record.guarantee_epsilon):
        return "Nothing holds any more: the data were used without privacy, or no bound is known."
    counted = [grant for grant in record.grants if grant.counts]
    if not counted:
        return "No grant stands, so nothing can be trained: see the warning above."
    grants = count(len(counted), "grant")
    delta = rounding.small(record.guarantee_delta)
    return (
        f"Everything ever trained on these data and sent out depends on {unit(record)} by at most "
        f"epsilon {rounding.typed(record.guarantee_epsilon)} at delta {delta}: "
        f"{grants}{' added up' if len(counted) > 1 else ''}."
    )


def meaning(record: DatasetRecord) -> str:
    """Explains the grants' promise for one person; empty without a grant that counts."""
    if not any(grant.counts for grant in record.grants):
        return ""
    return verdict(record.guarantee_epsilon, min(record.guarantee_delta, 1.0)).sentence


def spent(record: DatasetRecord) -> str:
    """States what was spent, over the ledger's life."""
    if not math.isfinite(record.guarantee_epsilon) and record.grants:
        return "No figure can be given: what was used has no epsilon."
    if not record.trainings:
        return "Nothing yet: no training has begun."
    runs = [run for run in record.runs if run.trained]
    parts = [
        f"epsilon {rounding.spent(grant.epsilon_spent)} of {rounding.typed(grant.epsilon)}"
        + (f" of grant {grant.number}" if len(record.grants) > 1 else "")
        for grant in record.grants
        if grant.epsilon_spent > 0
    ]
    answers = sum(len(run.trained) for run in runs if holds_answers(run.run))
    trainings = sum(len(run.trained) for run in runs) - answers
    done = [count(trainings, "training")] if trainings or not answers else []
    done += [count(answers, "answer")] if answers else []
    told = {run_of(run.run) for run in runs}
    text = (
        f"{listing(parts)}, by {listing(done)} in {count(len(told), 'run')}"
        f"{' and what a recovery charged' if any(loss.trainings for loss in record.losses) else ''}"
        "."
    )
    again = [run.run for run in runs if len(set(run.trained)) < len(run.trained)]
    if again:
        text += f" In {count(len(again), 'run')} a round was trained again, and paid again."
    return text[:1].upper() + text[1:]


def left(record: DatasetRecord) -> str:
    """States what is left, and what is held."""
    if not record.grants:
        return "Nothing was granted."
    parts = [
        f"epsilon {rounding.left(grant.epsilon_left)} of {rounding.typed(grant.epsilon)}"
        + (f" of grant {grant.number}" if len(record.grants) > 1 else "")
        for grant in record.grants
    ]
    text = f"{listing(parts)}."
    held = [run for run in record.runs if run.open]
    if held:
        rounds = sum(run.rounds_reserved - len(run.trained) for run in held)
        text += (
            f" {count(len(held), 'run')} not ended yet {'holds' if len(held) == 1 else 'hold'} "
            f"{count(rounds, 'training')}, which count as used until given back."
        )
    return text[:1].upper() + text[1:] + " When nothing is left, the site refuses."


def visibility(record: DatasetRecord) -> str:
    """Who could see what, over all runs."""
    named = [run.outcome for run in record.runs if run.outcome and run.outcome.rounds]
    text = (
        "Of each round that released, the other sites and the coordinator see the sum and the "
        "adapter; the aggregator and the key holder saw masked uploads. No single update of this "
        "site could be opened, unless all other sites of the sum work together. What sums and "
        "adapters reveal is what epsilon bounds."
    )
    if named:
        sites = list(dict.fromkeys(name for outcome in named for name in outcome.sites))
        text += f" In sums with it were {listing(sites)}." if sites else ""
    return text


def intact(record: DatasetRecord) -> str:
    """Whether the history is whole."""
    text = (
        f"The chain of {count(record.head_sequence, 'record')} verifies: every record is signed by "
        "the site's key, none was changed, removed from the middle or reordered, and they add up."
    )
    if record.heads_missing:
        return f"{text} But it is not the whole history: see the warning above."
    if record.heads_checked:
        kept = count(record.heads_checked, "head")
        verb = "is" if record.heads_checked == 1 else "are all"
        return f"{text} {kept} that others kept of it {verb} in it."
    return (
        f"{text} No head that others kept was at hand, so a ledger set back as a whole would not "
        "show."
    )


def warnings(record: DatasetRecord) -> list[str]:
    """Collects what a reader must not miss, worst first."""
    found = [
        f"On {use.at[:10]} the data were used without privacy (run {use.run}: {use.reason}). No "
        "bound holds, and every grant is exhausted."
        for use in record.without_privacy
    ]
    if record.heads_missing:
        latest = max(record.heads_missing, key=lambda head: int(head.partition(":")[0]))
        found.append(
            f"The ledger was set back or replaced: {count(len(record.heads_missing), 'head')} that "
            f"others have seen of it {'is' if len(record.heads_missing) == 1 else 'are'} not in "
            f"it, the latest {latest[:20]}…. Trainings are missing from the figures. The site is "
            "locked until its officer records what to charge: fmfl-secure ledger recover."
        )
    found += deltas.warnings("this ledger", record.grants, record.population_size)
    found.extend(
        f"On {loss.at[:10]} the officer recorded a lost history ({loss.reason}): "
        + (
            "everything granted so far was charged, as what was lost is not known."
            if loss.unbounded
            else f"{count(loss.trainings, 'training')} charged for it."
        )
        for loss in record.losses
    )
    over = [
        grant
        for grant in record.grants
        if math.isfinite(grant.epsilon_charged)
        and grant.epsilon_charged > grant.epsilon * (1 + 1e-9)
    ]
    found.extend(
        f"More is charged to grant {grant.number} than it permits: epsilon "
        f"{rounding.spent(grant.epsilon_charged)} of {rounding.typed(grant.epsilon)}."
        for grant in over
    )
    return found


def state(run: DatasetRun) -> str:
    """Says how a run ended, for this site."""
    outcome = run.outcome
    if outcome is not None and outcome.refusal is not None:
        word = f"refused ({outcome.refusal})"
        return f"{word}, charged nothing" if not run.trained and not run.open else word
    if run.open:
        ended = "stopped" if outcome and outcome.status == "stopped" else "not ended"
        return f"{ended}: holds {count(run.rounds_reserved - len(run.trained), 'training')}"
    if run.released:
        return f"closed at the site: {run.released}"
    if run.grant == 0:
        return "not charged here"
    if outcome is not None:
        return outcome.status
    return "ended" if run.trained else "ended before any training"


def refusals(runs: Sequence[DatasetRun]) -> list[tuple[DatasetRun, str]]:
    """Refused runs, each with what its code means."""
    return [
        (run, MEANINGS.get(run.outcome.refusal, "a code of another version"))
        for run in runs
        if run.outcome is not None and run.outcome.refusal is not None
    ]
