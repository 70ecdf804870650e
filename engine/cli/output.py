"""
What verbs print: JSON, tables and progress; plain where nobody looks on.

On a terminal tables and bars are rich's where that is installed (`headrace[terminal]`), and
columns and a line that counts where it is not.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from engine.model.json_values import Json

if TYPE_CHECKING:
    from rich.progress import TaskID

INT_MAX: Final = 2**53
CLEARED: Final = "\r\x1b[K"
"""What empties the line of a terminal."""
LINE_EVERY_S: Final = 5.0
"""Between lines about progress where there is no terminal; what takes less says nothing."""


def json_text(value: Json, *, indent: int | None = None) -> str:
    """
    A value of the wire as JSON for people and scripts: 3, where the wire says 3.0.

    It is still read back as the same value.
    """
    return json.dumps(_plain(value), ensure_ascii=False, indent=indent)


def _plain(value: Json) -> Json:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) <= INT_MAX:
        is_negative_zero = value == 0 and math.copysign(1, value) < 0
        return value if is_negative_zero else int(value)
    return value


def is_terminal() -> bool:
    return sys.stdout.isatty()


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere a line a row, with tabs between."""
    if not is_terminal():
        for row in (headers, *rows):
            print("\t".join(row))
        return
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        _print_columns([headers, *rows])
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _print_columns(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


class Advance(Protocol):
    """Told how far it has come."""

    def __call__(self, done: int, total: int | None = None, /) -> None: ...


Told: TypeAlias = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is done, and how much there is, if known."""


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """As `progress_of_steps`, of one."""
    with progress_of_steps() as told:
        yield lambda done, total=None, /: told(what, done, total)


@contextmanager
def progress_of_steps() -> Iterator[Told]:
    """
    How far one thing after another has come, while the block runs.

    A bar or a count on a terminal's stderr, gone at the end; elsewhere a line every few seconds.
    """
    if not sys.stderr.isatty():
        yield _lines()
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    except ImportError:
        try:
            yield _count
        finally:
            print(end=CLEARED, file=sys.stderr, flush=True)
        return
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, TaskID] = {}

    def told(what: str, done: int, total: int | None) -> None:
        if what not in tasks:
            bar.start()
            for task in tasks.values():
                bar.update(task, visible=False)
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    try:
        yield told
    finally:
        bar.stop()


def _count(what: str, done: int, total: int | None) -> None:
    print(f"{CLEARED}{_text(what, done, total)}", end="", file=sys.stderr, flush=True)


def _lines() -> Told:
    said_at = time.monotonic()

    def told(what: str, done: int, total: int | None) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= LINE_EVERY_S:
            said_at = time.monotonic()
            note(_text(what, done, total))

    return told


def _text(what: str, done: int, total: int | None) -> str:
    return f"{what}: {done}" if total is None else f"{what}: {done} of {total}"


def note(text: str) -> None:
    """Say something on stderr, which is not the result."""
    print(text, file=sys.stderr, flush=True)
