"""
A table is dropped: nobody finds it any more from one commit on, and its documents go behind that.

The commit says it in the row of `_tables`, and `IndexUpkeep` removes documents and table in slices,
on after a restart.  Another table may have its name at once; it has another number, so ids of
documents that went are ids of no table.
"""

from __future__ import annotations

from engine.app.registry import Application
from engine.app.validators import IdOf
from engine.errors import UsageError
from engine.indexes.catalog import DEPLOYMENT_KEY, DROPPING, TableInfo
from engine.transaction.transaction import Transaction


def begin_drop(application: Application, component: str, name: str, turn: Transaction) -> int:
    """
    Hide a table from everybody; returns how many documents it has.

    Raises:
        UsageError: there is no such table, or the schema that serves has it or ids of it.
    """
    table = turn.catalog.table(component, name)
    if table is None or table.is_system or table.row is None:
        raise UsageError(f"there is no table {name!r}")
    _refuse_if_declared(application, component, name)
    return hide(turn, table)


def hide(turn: Transaction, table: TableInfo) -> int:
    """As `begin_drop`, whatever any schema says."""
    assert table.row is not None, "a table of the catalog has a row"
    row = turn.get(table.row)
    assert row is not None, "a table of the catalog has a row"
    turn.put_row(table.row, {**row, "state": DROPPING})
    if (deployed := turn.get(DEPLOYMENT_KEY)) is not None:
        # Every query has read this row, so none shows the table any longer.
        turn.put_row(DEPLOYMENT_KEY, {**deployed, "tables": deployed.get("tables", 0) + 1})
    return turn.count(table)


def _refuse_if_declared(application: Application, component: str, name: str) -> None:
    part = application.at(component) if component else application
    if part is None or part.schema is None:
        return
    for other, table in part.schema.tables.items():
        if other == name:
            raise UsageError(
                f"the schema has the table {name!r}; push one without it, and drop it then"
            )
        if any(isinstance(one, IdOf) and one.table_name == name for one in table.validator.walk()):
            raise UsageError(
                f"documents of {other!r} have ids of {name!r}, as the schema says; push one where "
                "they have not, and drop it then"
            )
