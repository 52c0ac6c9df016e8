"""Who holds, sees and cannot see what, and what nothing here protects.

These follow from the protocol and change with it, hardly with a run's values.

`report.page` shows the roles and limits, `report.dpia` quotes them, and the dataset report names
what its guarantee does not speak of.
"""

from __future__ import annotations

from dataclasses import dataclass

from fmfl_secure.report.names import count
from fmfl_secure.run.answer_record import ONE_SITE
from fmfl_secure.run.record import RunRecord
from fmfl_secure.settings.noise import DISTRIBUTED, LOCAL, NONE


@dataclass(frozen=True, slots=True)
class Role:
    """A role of secure aggregation, as the page shows it."""

    name: str
    holds: str
    sees: str
    cannot: str


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that is not protected.

    Attributes:
        name: In a few words, with a full stop.
        text: In plain sentences.
    """

    name: str
    text: str


_SEVERAL_RECORDS = Limit(
    "People with several records.",
    "The protected unit is one record. Somebody with k records at a site is protected like a "
    "family of k, at k times epsilon.",
)
_FLOATING_POINT = {
    LOCAL: Limit(
        "Floating-point arithmetic.",
        "The proof speaks of real numbers. The noise is drawn with 53 bits from the operating "
        "system's generator, and a gap between the proof and computer arithmetic remains.",
    ),
    DISTRIBUTED: Limit(
        "Floating-point arithmetic.",
        "Gradients are computed and clipped in floating point, within a tolerance that the "
        "figures allow for. From rounding on everything is whole numbers, and what the drawn noise "
        "differs from the proof's by is counted in delta.",
    ),
}
_LIMITS_OF_PRIVACY = (
    Limit(
        "People at several sites.",
        "Each ledger speaks for one site. For somebody whose data are at two sites the two "
        "ledgers add up: epsilon 3 at each is epsilon 6 for them.",
    ),
    Limit(
        "Facts about the population.",
        "What is true of everybody in the data may be learned and is meant to be. It can concern "
        "a person whether or not they are in the data.",
    ),
    Limit(
        "A restored machine.",
        "The ledger detects edited, deleted and reordered records. If a whole machine is set back "
        "to an earlier state and nobody outside kept a chain head, this is not detected. Keep the "
        "chain heads of this page.",
    ),
)
_ROUND_TIMES = Limit(
    "Round times.",
    "privacy.constant_time was off: a step takes as long as the records of the people in it. "
    "Whoever sees when a site answers can tell the rounds of somebody with many records, and "
    "that they are in the data at all. Epsilon does not count this.",
)
_EVEN_ROUND_TIMES = Limit(
    "What constant work does not hide.",
    "Every step computed a declared number of rows and tokens, and a site answered at times fixed "
    "before its data were read. Caches, power, memory and a process that dies are not covered, nor "
    "how long a picture takes to decode; nor a site with more or longer records than it declared.",
)
_LIMITS_WITHOUT_PRIVACY = (
    Limit(
        "The data.",
        "Nothing limits what the released sums and the adapter reveal of any record.",
    ),
)
_LIMITS_OF_THE_PROTOCOL = (
    Limit(
        "The base model.",
        "What its makers trained it on, and what it reveals of that, is not covered.",
    ),
    Limit(
        "Timing and traffic.",
        "When messages are sent, how large they are and who sends them can be observed.",
    ),
    Limit(
        "The site's own software.",
        "Everything here assumes that the code installed at the site is the code it says. Each "
        "site trusts its own installation.",
    ),
    Limit(
        "A site that gives the sum's key away.",
        "Sites check every sum with a linear authentication code, under a key that only they "
        "share. A replaced or altered sum is refused. One site that gives this key to the "
        "aggregator lets it forge a sum; that would spoil what is made of it and open nobody's "
        "part.",
    ),
)
_FLOATING_POINT_OF_ANSWERS = Limit(
    "Floating-point arithmetic.",
    "A unit's answer is computed and bounded in floating point, within a tolerance that the "
    "figures allow for. With noise in shares everything is whole numbers from rounding on.",
)
_FALSE_ANSWER = Limit(
    "A false answer.",
    f"{ONE_SITE} A site can make rounds fail as well.",
)
_POISONED_UPDATE = Limit(
    "A poisoned update.",
    "A site can send a well-formed but harmful update, or make rounds fail. Neither is detected.",
)
_BOUNDED_UPDATE = Limit(
    "A poisoned update of ordinary size.",
    "Every site showed, by 64 numbers of each 512 to 16,384 values of its update, that it was no "
    "larger than an honest one can be, and whoever sent more was left out. What is smaller is not "
    "told from an honest one: a site can steer within the bound. All parties saw these numbers; "
    "what protects the update they are of is its own noise.",
)
_COLLUSION = {
    LOCAL: Limit(
        "Colluding sites.",
        "K - 1 of K sites together learn the last one's {part} from any sum. Its own noise remains "
        "its protection, and the smallest cohort it accepts.",
    ),
    DISTRIBUTED: Limit(
        "More colluding sites than assumed.",
        "Epsilon counts on the noise of other sites. If more of them than the plan assumes leave "
        "their noise out or tell it, epsilon no longer holds, and nothing detects it. The figure "
        "against all other sites together still does: K - 1 of K sites learn the last one's "
        "{made} from any sum, with its own share of noise in it, which alone protects little.",
    ),
    NONE: Limit(
        "Colluding sites.",
        "K - 1 of K sites together learn the last one's {part} from any sum. Without noise nothing "
        "remains to protect it.",
    ),
}
_OWN = {
    LOCAL: "its own noised {part}",
    DISTRIBUTED: "its own {made} with its share of noise",
    NONE: "its own exact {part}",
}


def part(record: RunRecord) -> str:
    """Returns what a site sends in a round: an update, or an answer where it is asked."""
    if not record.trains:
        return "answer"
    return "update or answer" if record.asked else "update"


def released(record: RunRecord) -> str:
    """Returns what everybody in the federation sees of a round."""
    return "the sum and the adapter" if record.trains else "the sum"


def _filled(text: str, record: RunRecord) -> str:
    made = {"update": "gradient", "answer": "answer"}.get(part(record), "gradient or answer")
    return text.format(part=part(record), made=made)


def roles(record: RunRecord) -> tuple[Role, ...]:
    """Who held, saw and could not see what."""
    noised = _filled(_OWN[record.mechanism.noise_mechanism], record)
    sent, adapter = part(record), "; the adapter" if record.trains else ""
    custodians = record.settings.get("aggregation", {}).get("custodians", ())
    custodian = Role(
        "Custodians" if len(custodians) > 1 else "Custodian",
        f"{', '.join(custodians)}: keys of one attempt, in memory only",
        "the list of uploads of each round it let open",
        f"any {part(record)} or sum. No sum opens without the word of every custodian, whoever "
        "else agrees",
    )
    return (
        Role(
            "Site",
            "its data, its ledger, its identity key, its own secrets of one attempt",
            f"{noised}; the sum of each round{adapter}",
            f"another site's data or {sent}. With what the others sent known, the last one's "
            "follows from any sum: K - 1 colluding sites of K learn it",
        ),
        Role(
            "Coordinator",
            f"the plan of each round{', the adapter' if adapter else ''}",
            f"who takes part and when; the sum of each round{adapter}",
            f"any site's data, single {sent} or upload in the clear",
        ),
        Role(
            "Aggregator",
            "nothing secret",
            "masked ciphertexts, their sizes and times",
            f"any {sent}, and any sum before its release",
        ),
        Role(
            "Decryptor",
            "what opens one attempt's sum, in memory only, destroyed at release or refusal",
            "one ciphertext an attempt, the sum, and the integers it opens to",
            f"any single {sent}: one upload alone decrypts to random numbers, also together with "
            "the aggregator",
        ),
        *([custodian] if custodians else ()),
    )


def privacy_limits(unit: str) -> tuple[Limit, ...]:
    """Lists what the guarantee of a ledger with this unit does not speak of."""
    return (*((_SEVERAL_RECORDS,) if unit == "record" else ()), *_LIMITS_OF_PRIVACY)


def limits(record: RunRecord) -> list[Limit]:
    """Lists what is not protected, each with a name."""
    noise = record.mechanism.noise_mechanism
    found: tuple[Limit, ...] = _LIMITS_WITHOUT_PRIVACY
    if noise.private:
        arithmetic = _FLOATING_POINT[noise] if record.trains else _FLOATING_POINT_OF_ANSWERS
        found = (*privacy_limits(record.mechanism.unit), arithmetic)
        if record.mechanism.unit != "record":
            even = record.settings.get("privacy", {}).get("constant_time")
            found += (_EVEN_ROUND_TIMES if even else _ROUND_TIMES,)
    federation = record.settings.get("federation", {})
    vanished = federation.get("vanished_sites", 0)
    shared = (_quorum(record, int(vanished)),) if vanished else ()
    poisoned: tuple[Limit, ...] = (_FALSE_ANSWER,) if record.asked else ()
    if record.trains:
        bounded = federation.get("norm_check")
        poisoned = (_BOUNDED_UPDATE if bounded else _POISONED_UPDATE, *poisoned)
    together = Limit(_COLLUSION[noise].name, _filled(_COLLUSION[noise].text, record))
    return [*found, *_LIMITS_OF_THE_PROTOCOL, *poisoned, together, *shared]


def _quorum(record: RunRecord, vanished: int) -> Limit:
    assumed = record.settings.get("privacy", {}).get("colluding_sites", 0)
    return Limit(
        "More colluding sites than assumed, where sites may vanish.",
        f"Up to {count(vanished, 'site')} of a cohort may vanish after the upload, and the others "
        f"open for them. While at most {count(assumed, 'site')} of all collude with coordinator, "
        "aggregator and decryptor, no second sum of a round opens; with more, two sums could, and "
        "be subtracted.",
    )
