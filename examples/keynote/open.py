"""Opens the keynote's model with plain transformers, and says how often it is right.

python examples/keynote/open.py adapter new.csv
"""

import csv
import sys
from pathlib import Path

from transformers import pipeline

folder, table = sys.argv[1:]
with Path(table).open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
write = pipeline("text-generation", folder, device="cpu")
asked = [[{"role": "user", "content": row["comment"]}] for row in rows]
said = [each[0]["generated_text"].strip() for each in write(asked, return_full_text=False)]
right = sum(answer == row["sentiment"] for answer, row in zip(said, rows, strict=True))
print(f"right for {right} of {len(rows)} comments that nobody trained on")
