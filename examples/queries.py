"""Synthetic queries of a bank's customers, as people type them, filed by what they want.

Most begin or end with something beside the point, many have typing errors or no capitals, one in
nine says what could be meant in two ways, and one in twenty is filed under a wrong intent.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tables import parts, write_table

_PER_SITE, _HOLDOUT = 600, 500
_WRONG, _TYPING_ERROR, _VAGUE = 0.05, 0.35, 0.11
INTENTS = {
    "card_lost": [
        "I can't find my {card}, I think I left it {place}",
        "my {card} was stolen {place} {when}",
        "lost my wallet {when} with the {card} in it, please block it",
        "someone took my {card} {place}, can you freeze it",
    ],
    "card_declined": [
        "my {card} was declined {place} although there is money on it",
        "payment refused twice {when}, the terminal said contact your bank",
        "why doesn't my {card} work {place}",
        "tried to pay {amount} {place} and the {card} got rejected",
    ],
    "unknown_charge": [
        "there is a charge of {amount} {when} that I never made",
        "I don't recognise a payment of {amount} to some shop",
        "somebody used my {card} for {amount}, that was not me",
        "what is this direct debit of {amount} {when}, I did not agree to it",
    ],
    "transfer_pending": [
        "I sent {amount} {when} and it still hasn't arrived",
        "transfer to my {person} is still pending, how long does it take",
        "my {person} says the {amount} I sent is not there yet",
        "when will the money I transferred {when} be in the other account",
    ],
    "fees": [
        "why did you take a fee of {amount} for withdrawing cash {place}",
        "what do you charge for payments in another currency",
        "I was billed {amount} for keeping the account, how do I avoid that",
        "is there a cost for sending money abroad to my {person}",
    ],
    "loan_request": [
        "can I borrow {amount} to renovate the kitchen",
        "what interest would I pay on a loan of {amount}",
        "I'd like to ask for a mortgage together with my {person}",
        "is it possible to raise my overdraft to {amount}",
    ],
    "login_problem": [
        "the app logs me out whenever I enter the code",
        "I forgot my password and the reset mail never comes",
        "got a new phone {when} and can't sign in any more",
        "my account in the app is locked after three wrong tries",
    ],
    "change_details": [
        "I moved {when}, how do I update my address",
        "need to change my phone number in your records",
        "I got married {when} and have a new surname",
        "please correct the email that you have for me",
    ],
}
# What could belong to either of two, as some of what people write does.
_EITHER = {
    "something is wrong with my {card}, please call me": ("card_lost", "card_declined"),
    "{amount} is missing from my account {when}": ("unknown_charge", "fees"),
    "the {amount} did not go through {when}": ("transfer_pending", "card_declined"),
    "I can't get at my account since {when}, new number": ("login_problem", "change_details"),
    "what would {amount} cost me": ("loan_request", "fees"),
}
_TOPICS = [0.1, 0.5, 0.3, 0.1]  # of mails with none to three
_BESIDE_THE_POINT = [
    "Thank you for the friendly help, that settled it.",
    "Are you open on the holiday?",
    "I was very happy with the branch in Leeds",
    "please ignore my last message",
]
_WORDS = {
    "card": ["card", "debit card", "credit card", "visa"],
    "place": ["on the train", "at the supermarket", "in Lisbon", "at a petrol station", "online"],
    "when": ["yesterday", "last week", "on Monday", "two days ago", "this morning", "on the 3rd"],
    "amount": ["£40", "€250", "19.99", "1,200 euros", "85 pounds", "€3,000", "600"],
    "person": ["sister", "landlord", "son", "business partner", "ex husband", "mother"],
}
_BEFORE = ["", "", "Hi, ", "hello there ", "Good morning. ", "URGENT!! ", "Hi team - ", "so "]
_AFTER = [
    "", "", "?", " pls help", ". I've been a customer for 12 years.", " thanks", "!!", " asap",
    ". I waited 40 minutes on the phone already", " Regards, A.",
]  # fmt: skip


def write(out: Path, *, sites: int) -> None:
    """Tables of `query` and `intent`; each site's customers want two things more than others."""
    generator = np.random.default_rng(7)
    names = list(INTENTS)
    for index, (part, count) in enumerate(
        parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items()
    ):
        mix = np.ones(len(names))
        if part != "holdout":
            mix[[2 * index % len(names), (2 * index + 1) % len(names)]] = 1.6
        wanted = generator.choice(names, size=count, p=mix / mix.sum())
        rows = [_row(str(intent), generator) for intent in wanted]
        write_table(out / "data" / f"{part}.csv", ("query", "intent"), rows)


def write_mails(out: Path, *, sites: int) -> None:
    """Tables of `mail` and `topics`: none to three of the intents above, with `;` between them."""
    generator = np.random.default_rng(11)
    for part, count in parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items():
        rows = [_mail(int(n), generator) for n in generator.choice(4, size=count, p=_TOPICS)]
        write_table(out / "data" / f"{part}.csv", ("mail", "topics"), rows)


def _mail(topics: int, generator: np.random.Generator) -> tuple[str, str]:
    if not topics:
        return str(generator.choice(_BESIDE_THE_POINT)), "none"
    intents = sorted(generator.choice(list(INTENTS), size=topics, replace=False))
    texts = [_row(str(intent), generator)[0] for intent in intents]
    return " Also: ".join(texts), ";".join(intents)


def _row(intent: str, generator: np.random.Generator) -> tuple[str, str]:
    phrases = INTENTS[intent]
    if generator.random() < _VAGUE:
        phrases = [text for text, both in _EITHER.items() if intent in both] or phrases
    words = {kind: str(generator.choice(choices)) for kind, choices in _WORDS.items()}
    text = str(generator.choice(phrases)).format(**words)
    text = f"{generator.choice(_BEFORE)}{text}{generator.choice(_AFTER)}"
    if generator.random() < _TYPING_ERROR:
        text = _mistyped(text.lower(), generator)
    filed = generator.choice(list(INTENTS)) if generator.random() < _WRONG else intent
    return text, str(filed)


def _mistyped(text: str, generator: np.random.Generator) -> str:
    """Two neighbouring letters change places, or one is left out."""
    at = int(generator.integers(1, len(text) - 2))
    swapped = text[at + 1] + text[at] if generator.random() < 0.5 else text[at]
    return text[:at] + swapped + text[at + 2 :]
