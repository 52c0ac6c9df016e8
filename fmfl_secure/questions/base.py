"""The interface of a question: its public side, and how a site answers it.

**To add one.** Write a subclass of `Question` in a file of its own here, put it into
`registry.QUESTIONS`, and its name into `QuestionName` of `settings/questions.py`; what it has to be
told goes into `QuestionSection`, public like all settings. Then it is planned, projected, charged,
carried and shown like all others. `tests/unit/test_questions.py` walks the registry.

What it has to keep:

- `query` is a function of settings alone. Nothing of it may come from data.
- `vectors` gives every unit, in the order of `data.units`, one row, a function of that unit's own
  records, of settings and of public models, and of nothing else: not of how many units there are,
  nor of their mean. A unit that the question is not about (one that is trained on, when those held
  out are asked) has a row of zeros. `gate.check_questions` measures both on made-up records.
- Of a unit of many records it is their mean, or another figure that keeps the bound
  (`privacy.queries.unit_means`). What is longer is projected without a word.
- No error and no log line may depend on a single record: whatever a record holds, it has a vector.

The public side is imported where there is no PyTorch: import that inside `vectors`, and
`respondent` for its type alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import QuestionSection
from privacy import Queries
from privacy.queries import Figure, Query

if TYPE_CHECKING:
    from fmfl_secure.questions.respondent import Respondent


class Question(ABC):
    """One question.

    Attributes:
        name: In settings, plans, ledgers and answers.
        said: What is asked, for people.
        sort: What a site's policy has to allow for it: `evaluation`, how a model does on its data,
            or `statistics`, what is in them.
        of_held_out: Whether it is asked of units that sites set apart, and of no others.
    """

    name: ClassVar[str]
    said: ClassVar[str]
    sort: ClassVar[Queries]
    of_held_out: ClassVar[bool] = False

    @abstractmethod
    def query(self, config: FederationConfig, asked: QuestionSection) -> Query:
        """Its cells, and the bound on a unit's vector.

        Args:
            config: The federation's settings.
            asked: What is asked.

        Raises:
            ConfigError: These settings have nothing that it could be asked of.
        """

    @abstractmethod
    def vectors(self, asked: QuestionSection, respondent: Respondent) -> NDArray[np.float64]:
        """Every unit's vector, float64, shape (units, cells).

        Args:
            asked: What is asked.
            respondent: Who answers, from which data.
        """

    @abstractmethod
    def sums(
        self, config: FederationConfig, asked: QuestionSection, units: float
    ) -> NDArray[np.float64]:
        """Sums that might be, were nothing known but what settings say: made up, for `foreseen`.

        How precise an answer would be is said of these, by `figures`: of each figure as of the
        case in which it is widest.

        Args:
            config: The federation's settings.
            asked: What is asked.
            units: Whom it is asked of, of all sites.

        Returns:
            float64, shape (cases, cells).
        """

    @abstractmethod
    def figures(
        self,
        config: FederationConfig,
        asked: QuestionSection,
        cells: NDArray[np.float64],
        stddev: float,
    ) -> dict[str, Figure]:
        """Computes an answer's figures, by name, with their intervals. Public arithmetic.

        Args:
            config: The federation's settings.
            asked: What was asked.
            cells: The sum over units and sites, with its noise; float64, shape (cells,).
            stddev: Of the noise in every cell.
        """
