"""Executions as lines: one for the call, one for each of its log lines, its error with frames."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from engine.functions.history import ExecutionRecord


def lines_of(execution: ExecutionRecord, *, with_costs: bool = False) -> Iterator[str]:
    """
    Args:
        with_costs: also what it read and wrote.
    """
    at = datetime.fromtimestamp(execution.ended_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]
    place = f"{execution.component}/" if execution.component else ""
    outcome = "failed" if execution.error is not None else "ok"
    call = f"{execution.kind} {place}{execution.path}"
    costs = f"  {_costs(execution)}" if with_costs else ""
    yield f"{at}  {call}  {execution.duration_ms:.1f} ms  {outcome}{costs}"
    for line in execution.log_lines:
        yield f"    {line}"
    if execution.error is not None:
        yield from (f"    {line}" for line in execution.error.splitlines())


def _costs(execution: ExecutionRecord) -> str:
    return (
        f"read {execution.documents_read} documents, {execution.bytes_read} bytes; "
        f"wrote {execution.documents_written}, {execution.bytes_written} bytes; "
        f"request {execution.request_id}"
    )
