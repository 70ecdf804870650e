"""What is counted of a transaction, under the names that applications have for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, get_type_hints

from engine.app.types import TransactionLimits
from engine.errors import InvalidValue
from engine.transaction.usage import COUNTED, Usage

_COUNTED_AS: Final[Mapping[str, str]] = {
    "database_queries": "ranges_read",
    "scheduled_function_args_bytes": "scheduled_args_bytes",
}
_METRICS: Final = {name: _COUNTED_AS.get(name, name) for name in get_type_hints(TransactionLimits)}
assert sorted(COUNTED) == sorted(_METRICS.values())


def metrics_of(usage: Usage) -> dict[str, dict[str, int]]:
    """A `TransactionMetrics`: what is used, and what is left within all limits that hold now."""
    return {
        name: {"used": getattr(usage, counted), "remaining": usage.left(counted)}
        for name, counted in _METRICS.items()
    }


def budget_of(limits: Mapping[str, object]) -> dict[str, int]:
    """
    What `transaction_limits` was given, by what it is counted as.

    Raises:
        InvalidValue: there is no such limit, or it is no whole number.
    """
    budget: dict[str, int] = {}
    for name, given in limits.items():
        if name not in _METRICS:
            known = ", ".join(_METRICS)
            raise InvalidValue(f"transaction_limits has no {name!r}; there are {known}")
        count = int(given) if isinstance(given, float) and given.is_integer() else given
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise InvalidValue(f"{name} has to be a whole number, not negative, not {given!r}")
        budget[_METRICS[name]] = count
    return budget
