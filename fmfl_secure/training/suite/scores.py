"""Scores of answers, as the field reports them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORDS = re.compile(r"\w+")
_BINS = 10


def exact_match(answer: str, truth: str) -> float:
    """1 where an answer is the right one, but for case, blanks and a full stop at its end."""
    return float(_plain(answer) == _plain(truth))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")


def rouge_l(answer: str, truth: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, ROUGE-L of one reference)."""
    left, right = (_WORDS.findall(text.lower()) for text in (answer, truth))
    if not left or not right:
        return float(left == right)
    lengths = [0] * (len(right) + 1)
    for word in left:
        before = 0
        for place, other in enumerate(right, start=1):
            kept = lengths[place]
            lengths[place] = before + 1 if word == other else max(kept, lengths[place - 1])
            before = kept
    common = lengths[-1]
    return 2.0 * common / (len(left) + len(right))


def calibration_error(probabilities: Sequence[NDArray[np.float64]], right: Sequence[int]) -> float:
    """Expected calibration error of the likeliest answers, in ten bins (Guo et al. 2017).

    Args:
        probabilities: Of each row's choices, which may differ in number.
        right: Place of the right one.
    """
    sure = np.array([each.max() for each in probabilities])
    hit = np.array([each.argmax() == r for each, r in zip(probabilities, right, strict=True)])
    places = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [
        (places == each).mean() * abs(hit[places == each].mean() - sure[places == each].mean())
        for each in np.unique(places)
    ]
    return float(np.sum(gaps))


def standard_error(values: Sequence[float]) -> float:
    """Of a mean over rows."""
    if len(values) < 2:
        return float("nan")
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
