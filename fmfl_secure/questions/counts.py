"""How many units, by something about them that settings name.

`registry` has an entry of each, and `answering` calls `vectors`: one unit, one vector, of norm 1
at most. `declaring` reads what was answered back into settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.errors import ConfigError
from fmfl_secure.questions.base import Question
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.settings.tasks import (
    ExtensionSection,
    ImageClassificationSection,
    MultiLabelClassificationSection,
)
from privacy import Queries
from privacy.queries import Figure, Query, count, share, unit_means

if TYPE_CHECKING:
    from fmfl_secure.questions.respondent import Respondent

# Where classes of lengths end, if settings do not say: the same whatever `model.max_length` is, so
# that a question is the same one after its answer decided that.
LENGTHS = tuple(1 << power for power in range(4, 13))


class Counts(Question):
    """Base of questions whose cells are counts."""

    sort: ClassVar[Queries] = "statistics"

    @override
    def sums(
        self, config: FederationConfig, asked: QuestionSection, units: float
    ) -> NDArray[np.float64]:
        """Up to half of all in one cell, the rest evenly. Wider is only more."""
        cells = self.query(config, asked).dimension
        found = np.full(cells, 1.0 if cells == 1 else 0.5 / (cells - 1))
        found[0] = max(found[0], 0.5)
        return units * np.stack([found, np.full(cells, 1.0 / cells)])

    def figures(
        self,
        config: FederationConfig,
        asked: QuestionSection,
        cells: NDArray[np.float64],
        stddev: float,
    ) -> dict[str, Figure]:
        """Every cell as a count, and as a share of all."""
        names = self.query(config, asked).cells
        everything = range(len(names))
        counts = {name: count(float(c), stddev) for name, c in zip(names, cells, strict=True)}
        shares = {
            f"share of {name}": share(cells, part=[cell], whole=everything, stddev=stddev)
            for cell, name in enumerate(names)
        }
        return counts | shares


class Units(Counts):
    """How many units each site has: a unit is in the cell of its site."""

    name: ClassVar[str] = "units"
    said: ClassVar[str] = "how many units each site has"

    @override
    def query(self, config: FederationConfig, asked: QuestionSection) -> Query:
        """Makes a query of a site a cell."""
        return Query(self.name, tuple(site.name for site in config.sites), 1.0)

    @override
    def vectors(self, asked: QuestionSection, respondent: Respondent) -> NDArray[np.float64]:
        query = self.query(respondent.config, asked)
        found = np.zeros((len(respondent.data.units), query.dimension))
        found[:, query.cells.index(respondent.site)] = 1.0
        return found


class Labels(Counts):
    """How many units have each label; one whose records have several is divided among them."""

    name: ClassVar[str] = "labels"
    said: ClassVar[str] = "how many units have each label"

    def query(self, config: FederationConfig, asked: QuestionSection) -> Query:  # noqa: ARG002
        """Makes a query of a label a cell.

        Raises:
            ConfigError: The task has no labels.
        """
        labels: tuple[str, ...] = getattr(config.task, "labels", ())
        if not labels:
            raise ConfigError(
                f"the task {config.task.kind!r} has no labels that could be counted",
                hint="Ask without 'labels'.",
            )
        # A record may have all of several labels: so long is its vector then.
        several = isinstance(config.task, MultiLabelClassificationSection)
        return Query(self.name, labels, len(labels) ** 0.5 if several else 1.0)

    @override
    def vectors(self, asked: QuestionSection, respondent: Respondent) -> NDArray[np.float64]:
        data, query = respondent.data, self.query(respondent.config, asked)
        if len(data.label_sets):
            records = data.label_sets.astype(np.float64)
        else:
            records = np.eye(query.dimension)[data.labels]
        return unit_means(records, data.units)


class Lengths(Counts):
    """How long the longest record of each unit is, in tokens, by classes that settings name."""

    name: ClassVar[str] = "lengths"
    said: ClassVar[str] = "how long the longest record of a unit is, in tokens"

    def query(self, config: FederationConfig, asked: QuestionSection) -> Query:
        """Makes a query of a class of lengths a cell, the last without an end.

        Raises:
            ConfigError: The task reads no text.
        """
        if isinstance(config.task, ImageClassificationSection | ExtensionSection):
            raise ConfigError(
                f"the task {config.task.kind!r} reads no text whose tokens could be counted",
                hint="Ask without 'lengths'.",
            )
        edges = self.edges(asked)
        classes = (*(f"up to {edge} tokens" for edge in edges), f"more than {edges[-1]} tokens")
        return Query(self.name, classes, 1.0)

    @staticmethod
    def edges(asked: QuestionSection) -> tuple[int, ...]:
        """Where classes of lengths end, in tokens, ascending."""
        return asked.lengths or LENGTHS

    @override
    def vectors(self, asked: QuestionSection, respondent: Respondent) -> NDArray[np.float64]:
        data = respondent.data
        edges = self.edges(asked)
        lengths = data.lengths if len(data.lengths) else data.record_cost
        found = np.zeros((len(data.units), len(edges) + 1))
        for row, records in enumerate(data.units):
            if len(records):
                longest = lengths[records].max()
                found[row, np.searchsorted(edges, longest)] = 1.0
        return found
