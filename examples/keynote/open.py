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
answer = pipeline("text-classification", folder, device="cpu")
said = answer([row["comment"] for row in rows], truncation=True, max_length=80, batch_size=1)
right = sum(each["label"] == row["sentiment"] for each, row in zip(said, rows, strict=True))
print(f"right for {right} of {len(rows)} comments that nobody trained on")
