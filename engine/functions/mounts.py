"""
Which components are mounted: a field of the deployment's row, written by each push.

What is mounted no longer keeps its data: tables and indexes, jobs, which wait, and crons that were
registered.  Mounted again under its path it goes on with that; deleting it is another act.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from engine.errors import UsageError
from engine.functions.crons import forget_crons, stored_crons
from engine.functions.job_rows import components_of, forget_jobs
from engine.functions.table_drop import hide
from engine.functions.turns import Turns
from engine.indexes.catalog import DEPLOYMENT_KEY, Catalog, TableInfo
from engine.transaction.transaction import Transaction

MOUNTS: Final = "mounts"


def mounted(deployed: Mapping[str, Any] | None) -> list[str]:
    """The paths that the row of the deployment says."""
    return list((deployed or {}).get(MOUNTS, ()))


def changed_mounts(
    turn: Transaction, deployed: Mapping[str, Any] | None, now: Collection[str]
) -> Iterator[str]:
    """A line for each component that is mounted from now on, or no longer."""
    if deployed is not None and MOUNTS not in deployed:
        return  # an earlier version pushed it, and said nothing of them
    before = set(mounted(deployed))
    tables = turn.view.catalog.user_tables
    kept = {table.component for table in tables if turn.view.count(table.number)}
    for path in sorted(set(now) - before):
        yield f"mounted {path} again, with its data" if path in kept else f"mounted {path}"
    for path in sorted(before - set(now)):
        yield f"unmounted {path}; its data stays"


def tables_of(catalog: Catalog, path: str) -> list[TableInfo]:
    """The tables of the component that is, or was, at a path, and of those within it."""
    return [table for table in catalog.user_tables if is_within(path, table.component)]


def is_within(path: str, component: str) -> bool:
    """Whether a component is the one at `path`, or mounted somewhere in it."""
    return component == path or component.startswith(f"{path}/")


async def delete_component(turns: Turns, path: str) -> int:
    """
    Remove what is kept of a component that is not mounted, and of those within it, durably.

    Its jobs and crons go first, in slices; a call that was cut off is made again.  Documents go
    behind it, as those of a table that is dropped.

    Args:
        path: of the component, "" is none.

    Returns:
        How many documents it had.

    Raises:
        UsageError: it is mounted, or nothing is kept of it.
    """
    await turns.write(lambda turn: _refuse(turn, path))
    await turns.write(lambda turn: forget_crons(turn, _components(turn, path)))
    while await turns.write(lambda turn: forget_jobs(turn, _components(turn, path))):
        pass
    return await turns.write(
        lambda turn: sum(hide(turn, table) for table in tables_of(turn.catalog, path))
    )


def _refuse(turn: Transaction, path: str) -> None:
    for other in mounted(turn.get(DEPLOYMENT_KEY)):
        if is_within(path, other):
            raise UsageError(
                f"the component {other!r} is mounted; push an application that does not use it, "
                "and delete it then"
            )
    if not path or not (tables_of(turn.catalog, path) or _components(turn, path)):
        raise UsageError(f"nothing is kept of a component {path!r}")


def _components(turn: Transaction, path: str) -> Iterable[str]:
    """Those at and within a path that have jobs or crons."""
    having = {*components_of(turn.view), *(row["component"] for row in stored_crons(turn))}
    return sorted(component for component in having if is_within(path, component))
