"""Explains an (epsilon, delta) for one person, in figures and in words."""

from __future__ import annotations

from dataclasses import dataclass

from fmfl_secure.report import rounding
from privacy import attack_success_bound

_ONE, _FIVE = "1\N{NO-BREAK SPACE}%", "5\N{NO-BREAK SPACE}%"
_VOID = "no meaningful bound"
# From here on an attacker may recognise nine people in ten: no bound in practice.
_VOID_SUCCESS = 0.9
_VOID_EPSILON = 8.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """An (epsilon, delta) explained for one person.

    Attributes:
        at_1: Bound on an attacker's true-positive rate at a false-positive rate of 1 %.
        at_5: The same at 5 %.
        word: The bound in a few words.
        sentence: In a sentence.
        void: Whether it bounds nothing that matters.
    """

    at_1: str
    at_5: str
    word: str
    sentence: str
    void: bool


def verdict(epsilon: float, delta: float) -> Verdict:
    """Put the bound on a membership attacker's success in words."""
    one = attack_success_bound(epsilon, delta, 0.01)
    five = attack_success_bound(epsilon, delta, 0.05)
    at_1, at_5 = rounding.percent(one), rounding.percent(five)
    void = not epsilon < _VOID_EPSILON or one >= _VOID_SUCCESS
    if void:
        word = _VOID
        sentence = (
            f"Epsilon {rounding.typed(epsilon)} is no meaningful bound: it would permit an "
            f"attacker to recognise {at_1} of the people in the data while wrongly naming only "
            f"{_ONE} of the others. Protection then rests on what attackers manage in practice, "
            "and nothing here proves how little that is."
        )
    else:
        word = (
            _strength(one)
            if _strength(one) == _strength(five)
            else f"{_strength(one)} at {_ONE}, {_strength(five)} at {_FIVE}"
        )
        sentence = (
            f"Epsilon {rounding.typed(epsilon)} means: an attacker who wrongly names {_ONE} of the "
            f"people who are not in the data can recognise at most {at_1} of those who are "
            f"({_strength(one)}); one who wrongly names {_FIVE}, at most {at_5} "
            f"({_strength(five)})."
        )
    return Verdict(at_1, at_5, word, sentence, void)


def _strength(success: float) -> str:
    if success >= _VOID_SUCCESS:
        return _VOID
    if success > 0.3:
        return "weak limit"
    return "clear limit" if success > 0.15 else "strong limit"
