"""
Whether the deployment is paused: a field of the row that says what is deployed.

So it outlives the engine and every push, and queries that are shown are run again when it changes,
as they all read that row.
"""

from __future__ import annotations

from typing import Any, Final

from engine.errors import Paused, UsageError
from engine.functions.results import Caller
from engine.indexes.catalog import DEPLOYMENT_KEY
from engine.transaction.transaction import Transaction

PAUSED: Final = "paused"
_GO_ON: Final = ("job", "cron", "action", "operator")
"""Who calls what goes on: what has begun comes to its end, and operators look at what there is."""


def is_paused(deployed: dict[str, Any] | None) -> bool:
    """What the row of the deployment says."""
    return deployed is not None and bool(deployed.get(PAUSED))


def set_paused(turn: Transaction, *, paused: bool) -> bool:
    """
    Say so in the row; returns whether that is news.

    Raises:
        UsageError: nothing was ever deployed.
    """
    deployed = turn.get(DEPLOYMENT_KEY)
    if deployed is None:
        raise UsageError("nothing is deployed here yet, so there is nothing to pause")
    if is_paused(deployed) == paused:
        return False
    turn.put_row(DEPLOYMENT_KEY, {**deployed, PAUSED: paused})
    return True


def refuse_if_paused(caller: Caller, path: str) -> None:
    """
    Raises:
        Paused: `caller` begins something new.
    """
    if caller.origin not in _GO_ON:
        raise Paused(
            f"{path} was not called: this deployment is paused. `headrace resume` lets functions "
            "be called again"
        )
