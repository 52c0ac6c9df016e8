"""Answers of the commands of a federation's life: init, partition, check, run, ask.

Its commands return these (`cli.init`, `cli.federation`, `cli.run`, `cli.ask`), and `--json` prints
them; `docs/answers.schema.json` is made from the types.
"""

from __future__ import annotations

import msgspec

from fmfl_secure.cli.answers.base import Answer


class Initialised(Answer, frozen=True, kw_only=True):
    """A federation's folder, with what was missing in it.

    Attributes:
        settings: Path of its settings.
        new_settings: Whether they were written now.
        made: What was made, in words.
        simulated: Whether all sites are one person's, and grants were made in their place.
        left_open: Settings that nobody has chosen yet, by section and key: until then nothing is
            granted.
        next: What to do next, in order; empty where nothing was made.
    """

    settings: str
    new_settings: bool
    made: tuple[str, ...]
    simulated: bool
    left_open: tuple[str, ...]
    next: tuple[str, ...]


class PartShown(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a table.

    Attributes:
        path: Of its file.
        rows: How many it has.
    """

    path: str
    rows: int


class Partitioned(Answer, frozen=True, kw_only=True):
    """A table in parts.

    Attributes:
        files: All parts.
    """

    files: tuple[PartShown, ...]


class StartFileWritten(Answer, frozen=True, kw_only=True):
    """A start file was written, from which a server starts a run.

    Attributes:
        path: Of the file.
        size_bytes: Of the file.
        base_model: Name of the base model.
        base_model_digest: Of the base model.
        base_model_license: As its folder says; empty where it does not.
        settings_digest: Of the settings that it is for.
    """

    path: str
    size_bytes: int
    base_model: str
    base_model_digest: str
    base_model_license: str
    settings_digest: str


class QuestionShown(msgspec.Struct, frozen=True, kw_only=True):
    """Something that only people can answer.

    Attributes:
        found: What was seen.
        advice: What to do about it.
    """

    found: str
    advice: str


class SiteChecked(Answer, frozen=True, kw_only=True):
    """A site's data and policy, which allow the run. Counts are of private data.

    Attributes:
        site: Its name.
        path: Its data.
        records: How many are usable.
        shortened: Records longer than the model reads: a run reads their beginnings alone.
        read_as: How the data were read, in words.
        beyond: In which ways they are more than is declared, in words.
        cohorts: Which cohorts the settings allow, in words.
        pictures: Of pictures, what was read, a line each.
        contact_sheet: File with small pictures of the site's data; empty where none was asked for.
        questions: Who may be in it under several ids.
    """

    site: str
    path: str
    records: int
    shortened: int
    read_as: tuple[str, ...]
    beyond: tuple[str, ...]
    cohorts: tuple[str, ...]
    pictures: tuple[str, ...]
    contact_sheet: str
    questions: tuple[QuestionShown, ...]


class RunDone(Answer, frozen=True, kw_only=True):
    """A finished run.

    Attributes:
        run: Its id.
        status: What became of it.
        folder: Where it is.
        adapter: Folder of its adapter.
        report: Its page.
        rounds: Rounds that ended.
        metrics: Of the last one, on the set declared public; empty where there is none.
        epsilon: The most that any site's ledger shows; null without privacy.
    """

    run: str
    status: str
    folder: str
    adapter: str
    report: str
    rounds: int
    metrics: dict[str, float]
    epsilon: float | None


class FigureShown(msgspec.Struct, frozen=True, kw_only=True):
    """One number of an answer.

    Attributes:
        value: The estimate; null where the noise leaves none.
        noise: 95 % interval of the noise alone; null where nothing can be said.
        sampling: 95 % interval of noise and sampling; null where nothing can be said.
    """

    value: float | None
    noise: tuple[float, float] | None
    sampling: tuple[float, float] | None


Figures = dict[str, dict[str, FigureShown]]
"""An answer's figures, by question and name."""


class SitesAnswered(Answer, frozen=True, kw_only=True):
    """One noised sum of what sites hold.

    Attributes:
        figures: By question and name.
        sites: Who is in the sum.
        at: UTC time of its release.
        epsilon: The most that every site's ledger was charged; 0 for an answer that was kept.
        delta: At which.
        folder: Where it is kept.
    """

    figures: Figures
    sites: tuple[str, ...]
    at: str
    epsilon: float
    delta: float
    folder: str


class AdapterChosen(Answer, frozen=True, kw_only=True):
    """Which of several adapters is right most often on what the sites hold.

    Attributes:
        winner: The one ahead.
        is_clear: Whether it is, beyond what noise may do.
        ahead: By candidate, in units, how far: 95 % intervals that hold all at once.
        bias: The most that the winner's own figure is too high on average, in units.
        output: Folder that it was written to; empty where none was named.
        answer: The sites' answer.
    """

    winner: str
    is_clear: bool
    ahead: dict[str, tuple[float, float]]
    bias: float
    output: str
    answer: SitesAnswered
