"""Entities in a row of BIO tags, and how well predicted ones match: what the field reports.

An entity counts as found if its type, first and last word are all right (CoNLL 2003). A tag `I-X`
with no `X` before it begins an entity, as in the CoNLL evaluation script.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fmfl_secure.measures import Entities

Entity = tuple[str, int, int]
"""Type, first word, and the word after its last."""


def find_entities(tags: Sequence[str]) -> set[Entity]:
    """The entities of one text.

    Args:
        tags: `O`, `B-TYPE` or `I-TYPE` for each word.
    """
    found: set[Entity] = set()
    start, kind = 0, ""
    for index, tag in enumerate([*tags, "O"]):
        place, _, own = tag.partition("-")
        if kind and (place != "I" or own != kind):
            found.add((kind, start, index))
            kind = ""
        if own and not kind:
            start, kind = index, own
    return found


def count_entities(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, types: Sequence[str]
) -> Entities:
    """How many entities of each type every text has, by what became of them."""
    counts = np.zeros((3, len(truth), len(types)))
    places = {name: place for place, name in enumerate(types)}
    for text, (own, guess) in enumerate(zip(truth, predicted, strict=True)):
        real, claimed = find_entities(own), find_entities(guess)
        for which, entities in enumerate((real & claimed, real - claimed, claimed - real)):
            for kind, _, _ in entities:
                counts[which, text, places[kind]] += 1.0
    return Entities(*counts)


def entity_scores(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Micro-averaged F1, precision and recall of entities over all texts."""
    hits = wanted = claimed = 0
    for own, guess in zip(truth, predicted, strict=True):
        real, found = find_entities(own), find_entities(guess)
        hits += len(real & found)
        wanted += len(real)
        claimed += len(found)
    return {
        "entity_f1": 2.0 * hits / (wanted + claimed) if wanted + claimed else 1.0,
        "entity_precision": hits / claimed if claimed else 0.0,
        "entity_recall": hits / wanted if wanted else 0.0,
    }
