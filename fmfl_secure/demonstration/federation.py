"""The demonstration: four made-up clinics, synthetic notes, one command."""

from __future__ import annotations

import shutil
from pathlib import Path

from fmfl_secure.demonstration.notes import DEMO_CATEGORIES, write_demo_notes
from fmfl_secure.errors import RunError
from fmfl_secure.parties.workspace import initialise

_MARKER = ".fmfl-secure-demo"
_SITES = ("north-clinic", "east-clinic", "south-clinic", "west-clinic")
_NOTES_PER_SITE = 1000
_HOLDOUT = 600

_SETTINGS = """\
# The demonstration: synthetic notes, so everything here may be looked at.

[federation]
name = "demo-clinics"
rounds = 8
min_sites = 3
seed = 7

[model]
base = "minilm"
max_length = 96

[task]
kind = "text-classification"
text_columns = ["note"]
label_column = "category"
labels = [{labels}]
unit = "record"

[adapter]
kind = "ffa-lora"
rank = 8
alpha = 16
last_layers = 1
target_modules = ["query", "value"]

[privacy]
noise = "local"
epsilon = 8.0
delta = 1e-5
sample_rate = 0.2
steps_per_round = 4
max_grad_norm = 1.0
repeats = 1

[training]
optimizer = "adam"
learning_rate = 1e-3
head_learning_rate = 0.1

[aggregation]
suite = "ckks-collective"
bits = 16

[evaluation]
data = "data/holdout.csv"
visibility = "public"
"""


def prepare_demo(
    folder: Path,
    *,
    fresh: bool,
    notes_per_site: int = _NOTES_PER_SITE,
    holdout: int = _HOLDOUT,
) -> Path:
    """Write the demonstration's data, settings, identities and ledgers.

    Args:
        folder: Where.
        fresh: Remove an earlier demonstration; only a folder that this wrote is removed.
        notes_per_site: How many notes a site gets.
        holdout: How many notes the adapter is evaluated on.

    Returns:
        Path of its `federation.toml`.

    Raises:
        RunError: The folder exists and is not to be replaced.
    """
    if folder.exists():
        if not (fresh and (folder / _MARKER).is_file()):
            raise RunError(
                f"{folder} exists already",
                hint="--fresh replaces an earlier demonstration; or choose another --output.",
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARKER).touch()
    data = folder / "data"
    write_demo_notes(data, sites=len(_SITES), per_site=notes_per_site, holdout=holdout, seed=7)
    labels = ", ".join(f'"{label}"' for label in DEMO_CATEGORIES)
    settings = _SETTINGS.format(labels=labels)
    for number, name in enumerate(_SITES, start=1):
        (data / f"site-{number}.csv").rename(data / f"{name}.csv")
        settings += f'\n[[sites]]\nname = "{name}"\npopulation = {notes_per_site}\n'
    federation = folder / "federation.toml"
    federation.write_text(settings, encoding="utf-8")
    initialise(folder, epsilon=None, delta=None, simulated=True)
    return federation
