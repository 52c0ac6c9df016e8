"""Entities in a row of BIO tags, and how well predicted ones match: what the field reports.

An entity counts as found if its type, first and last word are all right (CoNLL 2003). A tag `I-X`
with no `X` before it begins an entity, as in the CoNLL evaluation script.
"""

from __future__ import annotations

from collections.abc import Sequence

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
