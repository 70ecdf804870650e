"""The page that developers see at ``/``: functions, tables, recent errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final

from engine.functions.history import ExecutionRecord

ERRORS_SHOWN: Final = 20

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left }
pre { background: #8881; overflow: auto; padding: .6rem }
"""


def page(
    *,
    functions: Sequence[dict[str, Any]],
    tables: Sequence[dict[str, Any]],
    executions: Iterable[ExecutionRecord],
) -> str:
    """
    The HTML of the page.

    Args:
        functions: as `described_functions` has them.
        tables: as `Administration.tables` has them.
        executions: oldest first; those that failed are shown, newest first.
    """
    failed = [each for each in executions if each.error is not None][-ERRORS_SHOWN:]
    errors = "".join(_error(each) for each in reversed(failed)) or "<p>None.</p>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Headrace</title>'
        f"<style>{_STYLE}</style><h1>Headrace is running</h1>"
        f"<h2>Functions</h2>{_functions(functions)}"
        f"<h2>Tables</h2>{_tables(tables)}"
        f"<h2>Recent errors</h2>{errors}</html>"
    )


def _functions(functions: Sequence[dict[str, Any]]) -> str:
    rows = [
        (_placed(each["component"], each["path"]), _kind(each), each["where"]) for each in functions
    ]
    return _table(("function", "kind", "declared"), rows)


def _kind(function: dict[str, Any]) -> str:
    kind = str(function["kind"])
    return kind if function["public"] else f"internal {kind}"


def _tables(tables: Sequence[dict[str, Any]]) -> str:
    rows = [
        (_placed(each["component"], each["name"]), each["documents"], ", ".join(each["indexes"]))
        for each in tables
    ]
    return _table(("table", "documents", "indexes"), rows)


def _error(execution: ExecutionRecord) -> str:
    at = datetime.fromtimestamp(execution.ended_ns / 1e9).strftime("%H:%M:%S")
    title = f"{at} {_placed(execution.component, execution.path)}"
    return f"<h3>{escape(title)}</h3><pre>{escape(execution.error or '')}</pre>"


def _placed(component: str, name: str) -> str:
    return f"{component}/{name}" if component else name


def _table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
