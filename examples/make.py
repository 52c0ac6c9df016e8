"""Writes an example's data, and a small base model where none is at hand. Nobody's data.

    python examples/make.py digits --out examples/digits

Text examples use the built-in MiniLM. `radiology` gets DINOv2-small, `keynote` and `law_firm` get
SmolLM2 where the package is installed that carries it, and say so. The others, and these with
`--stand-in`, get a model built from a configuration and trained for a moment on public examples
that no site holds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import chest
import clauses
import comments
import digits
import instructions
import notes
import queries
import shapes

EXAMPLES = {
    "hospital_network": notes.write_departments,
    "bank": queries.write,
    "mailbox": queries.write_mails,
    "deidentification": notes.write,
    "instructions": instructions.write,
    "preferences": instructions.write_preferences,
    "digits": digits.write,
    "image_text": shapes.write_captions,
    "image_text_classification": shapes.write_claims,
}

ON_PUBLISHED_MODELS = {
    "keynote": comments.write,
    "law_firm": clauses.write,
    "radiology": chest.write,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("example", choices=sorted(EXAMPLES | ON_PUBLISHED_MODELS))
    parser.add_argument("--out", type=Path, required=True, help="the example's folder")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument(
        "--stand-in", action="store_true", help="build a small model, whatever is installed"
    )
    arguments = parser.parse_args()
    if arguments.example in ON_PUBLISHED_MODELS:
        write = ON_PUBLISHED_MODELS[arguments.example]
        write(arguments.out, sites=arguments.sites, stand_in=arguments.stand_in)
    else:
        EXAMPLES[arguments.example](arguments.out, sites=arguments.sites)
    print(f"wrote {arguments.out / 'data'}")


if __name__ == "__main__":
    main()
