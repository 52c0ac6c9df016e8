"""The words for distributed noise, which has two figures where local noise has one.

Sites add shares of noise, and only a sum carries all of them. So what a site is promised depends on
who looks: whoever sees released sums, or all other sites together, who can take their own parts
away. The second figure is the larger one, and every sentence here that gives the first names the
assumption it rests on.

`report.wording` and `report.dpia` put these sentences beside those of the first figure.
"""

from __future__ import annotations

from fmfl_secure.report import rounding
from fmfl_secure.report.names import count, listing, who
from fmfl_secure.report.overview import Account, accounts, insider_guarantee, statements
from fmfl_secure.report.protection import part, released
from fmfl_secure.run.record import RunRecord
from fmfl_secure.run.statement import SiteStatement


def in_force(record: RunRecord) -> bool:
    """Whether a second figure has to be stated: this run has one, or a ledger permits shares."""
    return record.mechanism.noise_mechanism.in_shares or bool(_permitted(record))


def assumption(record: RunRecord) -> str:
    """States the assumption of the first figure, as a condition."""
    if not record.mechanism.noise_mechanism.in_shares:
        return "as long as no more sites collude than the runs with shares of noise assumed"
    assumed = record.mechanism.colluding_sites
    if not assumed:
        return "as long as no site whose part is in a sum leaves its noise out or tells it"
    return (
        f"as long as at most {assumed} of the sites whose parts are in a sum "
        f"{'leaves its' if assumed == 1 else 'leave their'} noise out or "
        f"{'tells' if assumed == 1 else 'tell'} it to others"
    )


def promised_to(record: RunRecord) -> str:
    """Whom the first figure is promised against."""
    return (
        f"to whoever sees the released sums and the adapters, other sites included, "
        f"{assumption(record)}"
    )


def promised(record: RunRecord) -> str:
    """States the second figure as granted; empty where there is none."""
    found = sorted({insider_guarantee(statement) for statement in _permitted(record)})
    if not found:
        return "No ledger states a figure against all other sites together"
    text = f"epsilon {rounding.typed(found[-1])}"
    if len(found) > 1:
        text = f"from epsilon {rounding.typed(found[0])} to {text}, depending on the site"
    return (
        f"To all other sites together, who can take their own parts out of every sum, it is: "
        f"{text}, whatever they do"
    )


def planned(record: RunRecord) -> str:
    """States the second figure that this run may cost; continues a sentence."""
    if not record.mechanism.noise_mechanism.in_shares:
        return ""
    return (
        ", and against all other sites together at most epsilon "
        f"{rounding.typed(record.mechanism.insider_epsilon)}"
    )


def weakest(record: RunRecord) -> float | None:
    """The largest second figure of a ledger; None where there is none."""
    return max((insider_guarantee(one) for one in _permitted(record)), default=None)


def spent(record: RunRecord) -> str:
    """States the second figure spent at the worst site; empty where there is none.

    Training and answers that are charged to several grants add up.
    """
    found: dict[str, list[Account]] = {}
    for one in charged(record):
        if one.of_this_run:
            found.setdefault(one.site, []).append(one)
    if not found:
        return ""
    worst = max(
        found.values(), key=lambda each: sum(one.grant.insider_epsilon_spent or 0.0 for one in each)
    )
    worst.sort(key=lambda one: one.grant.number)
    granted = rounding.add(one.grant.insider_epsilon or 0.0 for one in worst)
    return (
        f"Against all other sites together, most at {listing([one.label for one in worst])}: "
        f"epsilon {rounding.spent(sum(one.grant.insider_epsilon_spent or 0.0 for one in worst))} "
        f"of {rounding.typed(granted)}."
    )


def left(record: RunRecord) -> str:
    """States the second figure left, where it is least; empty where there is none."""
    found = charged(record)
    if not found:
        return ""
    worst = min(found, key=insider_left)
    alike = [one.label for one in found if insider_left(one) == insider_left(worst)]
    names = who(alike, len(record.sites))
    least = names if len(alike) == len(found) else f"least at {names}"
    return (
        f"Against all other sites together, {least}: epsilon "
        f"{rounding.left(insider_left(worst))} of "
        f"{rounding.typed(worst.grant.insider_epsilon or 0.0)}."
    )


def charged(record: RunRecord) -> list[Account]:
    """Grants that permit shares, in the order of `accounts`."""
    return [one for one in accounts(record) if one.grant.insider_epsilon is not None]


def insider_left(account: Account) -> float:
    """Returns how much of a grant's second figure is left."""
    grant = account.grant
    return max(0.0, (grant.insider_epsilon or 0.0) - (grant.insider_epsilon_charged or 0.0))


def visibility(record: RunRecord) -> str:
    """Says by what noise the sum and the adapter are bounded."""
    return (
        f"What {released(record)} {'reveal' if record.trains else 'reveals'} is limited by the "
        f"shares of noise of all sites together, that is, by epsilon, {assumption(record)}. All "
        "other sites together can take their own parts away: what they learn of the last one is "
        "limited by its own share of noise alone, that is, by the second, larger figure."
    )


def trust(record: RunRecord) -> str:
    """Whom a site has to trust."""
    assumed = record.mechanism.colluding_sites
    return (
        f"No site's {part(record)} is private enough by itself, and none is ever opened: each site "
        "adds a share of noise, and a sum is opened only with the shares of at least the smallest "
        "cohort in it. Epsilon counts the shares of all but "
        f"{count(assumed, 'site')} of that cohort, and holds {assumption(record)}. Nothing shows "
        "that a site did add its share: this assumption is for the custodians to judge. Against "
        "all other sites together a site's own share alone counts; that is the second figure, and "
        "it rests on no assumption about others. In either case the site trusts its own installed "
        "code, and the protocol that opens no sum twice with the same share in it."
    )


def _permitted(record: RunRecord) -> list[SiteStatement]:
    return [
        statement
        for _, statement in statements(record)
        if any(grant.insider_epsilon is not None for grant in statement.grants)
    ]
