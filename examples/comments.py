"""Synthetic comments of patients on their stay, and what each comes to: positive or negative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from published import in_place
from small_models import small_gpt2, train_decoder
from tables import write_table

_PATIENTS, _NEW, _PUBLIC = 300, 300, 1500
_WRONG = 0.05  # comments filed under the other word
_KINDS = ("negative", "positive")
# By what they are about: what somebody says who was not content, and who was.
_SAID = (
    (["Nobody answered the bell for an hour.", "The night nurse was rude to my mother.",
      "I was passed from one desk to the next."],
     ["The nurses explained every step.", "Somebody came at once, even at night.",
      "They knew my name from the first day."]),
    (["I waited five hours for a ten minute talk.", "My appointment was moved three times.",
      "They lost my referral and told me to start again."],
     ["I was seen within a quarter of an hour.", "Admission took no time at all.",
      "Everything ran on the minute."]),
    (["The doctor looked at the screen and not at me.", "I still do not know what was found.",
      "My questions were brushed aside."],
     ["The doctor drew me a picture of what would be done.", "She took my worries seriously.",
      "I left knowing exactly what was found."]),
    (["The food was cold every evening.", "The room had not been cleaned when I came.",
      "It was too loud to sleep."],
     ["The room was spotless and quiet.", "Even the food was worth a second helping.",
      "I slept better than at home."]),
    (["I was in pain all night before anybody gave me something.",
      "The wound had to be opened again.", "They gave me a drug that I had said I cannot take."],
     ["The pain was well under control.", "The wound healed as they had promised.",
      "After a week I could climb stairs again."]),
    (["I was sent home without a letter for my doctor.", "Nobody told us who to call afterwards.",
      "The bill has three mistakes in it."],
     ["The letter for my doctor was ready when I left.", "They rang a week later to ask after me.",
      "Going home was well prepared."]),
)  # fmt: skip
_FACTS = (
    "I was on the second floor for four days.", "My knee was operated on in March.",
    "I came by ambulance on a Sunday.", "My husband drove me there.", "It was my third stay.",
    "I am sixty-eight and live alone.", "The ward has two beds a room.",
)  # fmt: skip


def write(out: Path, *, sites: int, stand_in: bool) -> None:
    """Tables of `patient_id`, `comment` and `sentiment`, and the model's folder.

    A patient has one or two comments. One in four praises and complains, and comes to what it
    ends with. `new.csv` has comments that come in later.
    """
    generator = np.random.default_rng(7)
    names = [f"site-{n}" for n in range(1, sites + 1)]
    for part, patients in [(name, _PATIENTS) for name in names] + [("new", _NEW)]:
        rows = []
        for patient in range(patients):
            for _ in range(1 + int(generator.integers(2))):
                comment, kind = _comment(generator)
                filed = 1 - kind if generator.random() < _WRONG else kind
                rows.append((f"{part}-{patient:04d}", comment, _KINDS[filed]))
        write_table(out / "data" / f"{part}.csv", ("patient_id", "comment", "sentiment"), rows)
    folder = out / "model"
    if not in_place(folder, "smollm2", stand_in=stand_in):
        public = [_comment(generator) for _ in range(_PUBLIC)]
        forms = [(comment, _KINDS[kind]) for comment, kind in public]
        train_decoder(small_gpt2(folder, [" ".join(form) for form in forms]), folder, forms)


def _comment(generator: np.random.Generator) -> tuple[str, int]:
    kind = int(generator.integers(2))
    about = generator.permutation(len(_SAID))
    said = [str(generator.choice(_SAID[n][kind])) for n in about[: 1 + generator.integers(2)]]
    if generator.random() < 0.25:
        other = str(generator.choice(_SAID[about[-1]][1 - kind]))
        said = [other, f"But {said[0][0].lower()}{said[0][1:]}", *said[1:]]
    if generator.random() < 0.6:
        said.insert(0, str(generator.choice(_FACTS)))
    return " ".join(said), kind
