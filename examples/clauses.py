"""Synthetic contract clauses and the letters they are filed under; a model of public contracts.

The model has read public forms, which have headings ("Governing law") and no letters. What the
firms' lawyers file a clause under ("G") is what the federation learns to write.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from small_models import small_gpt2
from tables import parts, write_table
from torch import nn
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerBase

_PER_SITE, _HOLDOUT, _PUBLIC = 500, 400, 2000
_WRONG = 0.04  # clauses filed under a wrong letter
# By letter: the heading in public forms, and what a clause may say.
CLAUSES = {
    "T": ("Termination", [
        "Either party may terminate this {deal} upon {days} written notice.",
        "This {deal} ends if the {party} fails to cure a material breach within {days}.",
        "The {party} may cancel for convenience by notice of {days}.",
    ]),
    "C": ("Confidentiality", [
        "The {party} shall keep all {secret} secret and not disclose it to third parties.",
        "No {secret} may be disclosed for {years} after the end of this {deal}.",
        "The {party} returns or destroys {secret} on request within {days}.",
    ]),
    "L": ("Limitation of liability", [
        "Liability of the {party} is capped at {sum} in aggregate.",
        "In no event is the {party} liable for indirect loss or lost profits above {sum}.",
        "The cap of {sum} does not apply to wilful misconduct of the {party}.",
    ]),
    "G": ("Governing law", [
        "This {deal} is governed by the laws of {place}.",
        "The courts of {place} have exclusive jurisdiction over any dispute.",
        "Disputes are settled by arbitration seated in {place}.",
    ]),
    "P": ("Payment", [
        "The {party} pays each invoice within {days} of receipt.",
        "Fees of {sum} fall due on signing of this {deal}.",
        "Overdue invoices of the {party} bear interest after {days}.",
    ]),
    "A": ("Assignment", [
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


def write(out: Path, *, sites: int) -> None:
    """Tables of `clause` and `letter` for each firm and a holdout, and the model's folder."""
    generator = np.random.default_rng(7)
    for part, count in parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items():
        rows = []
        for letter in generator.choice(list(CLAUSES), size=count):
            clause = _clause(CLAUSES[str(letter)][1], generator)
            filed = generator.choice(list(CLAUSES)) if generator.random() < _WRONG else letter
            rows.append((clause, str(filed)))
        write_table(out / "data" / f"{part}.csv", ("clause", "letter"), rows)
    forms = []
    for letter in generator.choice(list(CLAUSES), size=_PUBLIC):
        heading, clauses = CLAUSES[str(letter)]
        forms.append((_clause(clauses, generator), heading))
    model = small_gpt2(out / "model", [f"{clause} {heading}" for clause, heading in forms])
    _train(model, AutoTokenizer.from_pretrained(out / "model"), forms)
    model.save_pretrained(out / "model", safe_serialization=True)


def _clause(clauses: list[str], generator: np.random.Generator) -> str:
    words = {kind: str(generator.choice(choices)) for kind, choices in _WORDS.items()}
    return f"{generator.choice(_BEFORE)}{str(generator.choice(clauses)).format(**words)}"


def _train(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, forms: list[tuple[str, str]]
) -> None:
    """A clause and the heading it stands under, again and again."""
    end = tokenizer.eos_token_id
    rows = [
        torch.tensor([*tokenizer(f"{clause}\n{heading}")["input_ids"], end])
        for clause, heading in forms
    ]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(6):
        for chosen in torch.randperm(len(ids)).split(32):
            batch = ids[chosen]
            labels = batch.masked_fill(batch == end, -100)
            labels[torch.arange(len(batch)), (batch != end).sum(dim=1)] = end
            optimizer.zero_grad()
            model(input_ids=batch, labels=labels).loss.backward()
            optimizer.step()
