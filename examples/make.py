"""Writes an example's data, and a small base model where none is at hand. Nobody's data.

    python examples/make.py digits --out examples/digits

Text examples use the built-in MiniLM. The others get a model built from a configuration and, for
images, trained for a moment on public examples that no site holds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import chest
import clauses
import digits
import instructions
import notes
import queries
import shapes

EXAMPLES = {
    "hospital_network": notes.write_departments,
    "bank": queries.write,
    "mailbox": queries.write_mails,
    "law_firm": clauses.write,
    "radiology": chest.write,
    "deidentification": notes.write,
    "instructions": instructions.write,
    "digits": digits.write,
    "image_text": shapes.write_captions,
    "image_text_classification": shapes.write_claims,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("example", choices=sorted(EXAMPLES))
    parser.add_argument("--out", type=Path, required=True, help="the example's folder")
    parser.add_argument("--sites", type=int, default=4)
    arguments = parser.parse_args()
    EXAMPLES[arguments.example](arguments.out, sites=arguments.sites)
    print(f"wrote {arguments.out / 'data'}")


if __name__ == "__main__":
    main()
