"""Budgets of single data sets within a population's ledger.

A ledger belongs to a population, and its grants bound what all runs on all of its data sets may
cost together. A custodian may bound one data set further. A data set is a *name that the
custodian gave*, never a digest: a changed byte buys nothing, and a name reveals nothing that was
read from data.

A reservation names its data set and the cap it was admitted under, in an optional field of its
record. A run that named none may have used any: it counts against each. The cap is filtered like
a grant (see `privacy.accounting.rdp`), at orders that its own epsilon and delta give and that the
record keeps, so that replay does not depend on how they are chosen today.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from privacy.accounting.rdp import filter_orders
from privacy.errors import PlanError
from privacy.limits import check_delta, check_epsilon
from privacy.names import plain


@dataclass(frozen=True, slots=True)
class DatasetCap:
    """Most that all runs on one data set may cost together, over the ledger's life.

    Attributes:
        epsilon: > 0, finite.
        delta: 0 < delta < 1.
        orders: The Renyi orders it is filtered at, ascending, each at least 2.
    """

    epsilon: float
    delta: float
    orders: tuple[int, ...]

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon, most=math.inf)  # of an old record, perhaps; `of` is stricter
        check_delta(self.delta)
        sound = self.orders and all(type(order) is int and order >= 2 for order in self.orders)
        if not sound or sorted(set(self.orders)) != list(self.orders):
            raise PlanError(f"orders are {self.orders}, expected ascending whole numbers from 2")

    @classmethod
    def of(cls, epsilon: float, delta: float) -> DatasetCap:
        """The cap at the orders that a grant of this size has.

        Raises:
            PlanError: epsilon or delta is out of range, or no order can carry them.
        """
        return cls(epsilon, delta, filter_orders(epsilon, delta))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set of a population.

    Attributes:
        name: The custodian's name for it, 1 to 200 characters.
        cap: Its own budget; None leaves it to the grants.
    """

    name: str
    cap: DatasetCap | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 200:
            raise PlanError("a data set's name is empty or longer than 200 characters")

    def is_called(self, name: str) -> bool:
        """Whether a name is this data set's: one that reads the same buys no further budget."""
        return plain(name) == plain(self.name)

    def canonical(self) -> dict[str, Any]:
        """As JSON-ready data, floats exact."""
        if self.cap is None:
            return {"name": self.name}
        return {
            "name": self.name,
            "epsilon": float(self.cap.epsilon).hex(),
            "delta": float(self.cap.delta).hex(),
            "orders": list(self.cap.orders),
        }


def parse_dataset(data: Any) -> Dataset:
    """Read a reservation's data set from its record.

    Raises:
        PlanError: It is malformed or not in canonical form.
    """
    try:
        cap = None
        if "epsilon" in data:
            cap = DatasetCap(
                float.fromhex(data["epsilon"]),
                float.fromhex(data["delta"]),
                tuple(data["orders"]),
            )
        name = data["name"]
        if not isinstance(name, str):
            raise TypeError("the name is not a string")
        dataset = Dataset(name, cap)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise PlanError(f"malformed data set: {error!r}") from error
    if dataset.canonical() != data:
        raise PlanError("a data set is not in canonical form")
    return dataset
