"""Synthetic contract clauses and what they are filed under, in words; a small model of contracts.

The small model, for where SmolLM2 is not, has read public forms, which have headings ("Limitation
of liability"). What the firms' lawyers file a clause under ("liability") is what the federation
learns to write.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from published import in_place
from small_models import small_gpt2, train_decoder
from tables import parts, write_table

_PER_SITE, _HOLDOUT, _PUBLIC = 300, 200, 2000
_WRONG = 0.04  # clauses filed under a wrong subject
# By subject: the heading in public forms, and what a clause may say.
CLAUSES = {
    "termination": ("Termination", [
        "Either party may terminate this {deal} upon {days} written notice.",
        "This {deal} ends if the {party} fails to cure a material breach within {days}.",
        "The {party} may cancel for convenience by notice of {days}.",
    ]),
    "confidentiality": ("Confidentiality", [
        "The {party} shall keep all {secret} secret and not disclose it to third parties.",
        "No {secret} may be disclosed for {years} after the end of this {deal}.",
        "The {party} returns or destroys {secret} on request within {days}.",
    ]),
    "liability": ("Limitation of liability", [
        "Liability of the {party} is capped at {sum} in aggregate.",
        "In no event is the {party} liable for indirect loss or lost profits above {sum}.",
        "The cap of {sum} does not apply to wilful misconduct of the {party}.",
    ]),
    "governing law": ("Governing law", [
        "This {deal} is governed by the laws of {place}.",
        "The courts of {place} have exclusive jurisdiction over any dispute.",
        "Disputes are settled by arbitration seated in {place}.",
    ]),
    "payment": ("Payment", [
        "The {party} pays each invoice within {days} of receipt.",
        "Fees of {sum} fall due on signing of this {deal}.",
        "Overdue invoices of the {party} bear interest after {days}.",
    ]),
    "assignment": ("Assignment", [
        "The {party} may not assign this {deal} without prior written consent.",
        "Rights under this {deal} pass to a successor of the {party} on a change of control.",
        "Any transfer of this {deal} to an affiliate needs notice of {days}.",
    ]),
}  # fmt: skip
_WORDS = {
    "deal": ["Agreement", "Contract", "Lease", "Engagement", "Licence"],
    "party": ["Supplier", "Client", "Tenant", "Licensee", "Contractor", "Buyer"],
    "days": ["thirty (30) days", "14 days", "ninety days", "ten business days", "60 days"],
    "years": ["three years", "five (5) years", "two years"],
    "secret": ["Confidential Information", "trade secrets", "source code", "client data"],
    "sum": ["EUR 50,000", "the annual fees", "USD 1,000,000", "the contract value"],
    "place": ["England", "Delaware", "Singapore", "Sweden", "Austria", "New York"],
}
_BEFORE = ["", "", "Subject to Schedule 2, ", "Notwithstanding the above, ", "For clarity, "]


def write(out: Path, *, sites: int, stand_in: bool) -> None:
    """Tables of `clause` and `subject` for each firm and a holdout, and the model's folder."""
    generator = np.random.default_rng(7)
    for part, count in parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items():
        rows = []
        for subject in generator.choice(list(CLAUSES), size=count):
            clause = _clause(CLAUSES[str(subject)][1], generator)
            wrong = generator.random() < _WRONG
            rows.append((clause, str(generator.choice(list(CLAUSES)) if wrong else subject)))
        write_table(out / "data" / f"{part}.csv", ("clause", "subject"), rows)
    folder = out / "model"
    if in_place(folder, "smollm2", stand_in=stand_in):
        return
    forms = []
    for subject in generator.choice(list(CLAUSES), size=_PUBLIC):
        heading, clauses = CLAUSES[str(subject)]
        forms.append((_clause(clauses, generator), heading))
    model = small_gpt2(folder, [f"{clause} {heading}" for clause, heading in forms])
    train_decoder(model, folder, forms)


def _clause(clauses: list[str], generator: np.random.Generator) -> str:
    words = {kind: str(generator.choice(choices)) for kind, choices in _WORDS.items()}
    return f"{generator.choice(_BEFORE)}{str(generator.choice(clauses)).format(**words)}"
