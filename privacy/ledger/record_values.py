"""Values as records have them, of which none is trusted.

Whatever is missing, malformed or impossible raises, and `Budget.replay` makes that `LedgerDamaged`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from privacy.accounting.rdp import MAX_ORDER
from privacy.errors import LedgerDamaged
from privacy.limits import check_population_size


def whole(value: object) -> int:
    """A whole number, and nothing that merely compares like one.

    Raises:
        TypeError: It is something else.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def text(value: object) -> str:
    """A text, and nothing that merely prints as one.

    Raises:
        LedgerDamaged: It is something else.
    """
    if not isinstance(value, str):
        raise LedgerDamaged(f"{value!r} is not a text")
    return value


def declared_size(body: dict[str, Any]) -> int | None:
    """The population size that a record declares; None if it declares none.

    Raises:
        PlanError: It is no size.
    """
    if "population_size" not in body:
        return None
    size: int = body["population_size"]
    check_population_size(size)
    return size


def read_orders(given: Iterable[object]) -> tuple[int, ...]:
    """Orders as a record has them, or none.

    Raises:
        LedgerDamaged, TypeError: They are not ascending whole numbers of the filter's range.
    """
    orders = tuple(whole(order) for order in given)
    if orders:
        check_orders(orders)
    return orders


def check_orders(orders: tuple[int, ...]) -> None:
    """Require orders that a filter has.

    Raises:
        LedgerDamaged: They are none, not ascending, or out of its range.
    """
    if not orders or sorted(set(orders)) != list(orders):
        raise LedgerDamaged(f"a grant's orders are {orders}, expected ascending ones")
    if not (orders[0] >= 2 and orders[-1] <= MAX_ORDER):
        raise LedgerDamaged(f"a grant's orders are {orders}, expected 2 to {MAX_ORDER}")
