"""Executions as lines: one for the call, one for each of its log lines, its error with frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from engine.functions.history import ExecutionRecord, Retry

Cell = Callable[[ExecutionRecord], str]

COLUMNS: Final[tuple[tuple[str, int, Cell], ...]] = (
    ("ended", -12, lambda each: _time(each)),
    ("from", -8, lambda each: "" if each.cached else each.origin),
    ("outcome", -13, lambda each: _outcome(each)),
    ("ran ms", 8, lambda each: f"{each.duration_ms:.1f}"),
    ("user ms", 8, lambda each: f"{each.user_ms:.1f}"),
    ("queue ms", 8, lambda each: f"{each.queue_ms:.1f}"),
    ("behind", 6, lambda each: str(each.queued)),
    ("commit ms", 9, lambda each: f"{each.commit_ms:.1f}"),
    ("again", 5, lambda each: str(len(each.retries))),
    ("read", 6, lambda each: str(each.documents_read)),
    ("bytes", 9, lambda each: str(each.bytes_read)),
    ("ranges", 6, lambda each: str(each.ranges_read)),
    ("wrote", 6, lambda each: str(each.documents_written)),
    ("bytes", 9, lambda each: str(each.bytes_written)),
    ("jobs", 5, lambda each: str(each.functions_scheduled)),
    ("result", 9, lambda each: str(each.result_bytes)),
)
"""What each is called, how wide it is (to the left, if that is negative) and what stands there."""


def lines_of(execution: ExecutionRecord) -> Iterator[str]:
    """What ran, for how long, and what it said; nothing of answers from the cache."""
    if execution.cached:
        return
    call = f"{_time(execution)}  {_call(execution)}"
    yield f"{call}  {execution.duration_ms:.1f} ms  {_outcome(execution)}"
    yield from _said(execution)


def header() -> str:
    """What stands above `lines_with_costs`."""
    return _in_columns([name for name, _, _ in COLUMNS], "function")


def lines_with_costs(execution: ExecutionRecord) -> Iterator[str]:
    """What it cost, in columns; why it was run again, and what it said."""
    yield _in_columns([cell(execution) for _, _, cell in COLUMNS], _call(execution))
    for retry in execution.retries:
        yield f"    run again: {_why(retry)}"
    yield from _said(execution)


def _in_columns(cells: list[str], last: str) -> str:
    aligned = (
        cell.rjust(width) if width > 0 else cell.ljust(-width)
        for cell, (_, width, _) in zip(cells, COLUMNS, strict=True)
    )
    return f"{'  '.join(aligned)}  {last}"


def _said(execution: ExecutionRecord) -> Iterator[str]:
    for line in execution.log_lines:
        yield f"    {line}"
    if execution.error is not None:
        yield f"    [Request ID: {execution.request_id}]"
        yield from (f"    {line}" for line in execution.error.splitlines())


def _time(execution: ExecutionRecord) -> str:
    return datetime.fromtimestamp(execution.ended_ns / 1e9).strftime("%H:%M:%S.%f")[:-3]


def _call(execution: ExecutionRecord) -> str:
    place = f"{execution.component}/" if execution.component else ""
    return f"{execution.kind} {place}{execution.path}"


def _outcome(execution: ExecutionRecord) -> str:
    if execution.cached:
        return f"cached x{execution.cached}"
    return "failed" if execution.error is not None else "ok"


def _why(retry: Retry) -> str:
    if retry.reason != "conflict" or not retry.table:
        return retry.reason
    what = f"{retry.document} of {retry.table}" if retry.document else retry.table
    return f"{retry.writer or 'the engine'} wrote {what} ({retry.index_name})"
