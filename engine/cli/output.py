"""
What verbs print: JSON, tables and progress; plain where nobody looks on.

On a terminal tables and bars are rich's where that is installed (`headrace[terminal]`), and
columns and a line that counts where it is not.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final, Protocol

from engine.model.json_values import Json

INT_MAX: Final = 2**53
CLEARED: Final = "\r\x1b[K"
"""What empties the line of a terminal."""


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


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar or a count on a terminal's stderr while the block runs; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield _silent
        return
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:
        yield partial(_count, what)
        print(CLEARED, end="", file=sys.stderr, flush=True)
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int | None = None, /) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


def _count(what: str, done: int, total: int | None = None, /) -> None:
    of_total = "" if total is None else f" of {total}"
    print(f"{CLEARED}{what}: {done}{of_total}", end="", file=sys.stderr, flush=True)


def _silent(_done: int, _total: int | None = None, /) -> None:
    """Nobody looks on."""


def note(text: str) -> None:
    """Say something on stderr, which is not the result."""
    print(text, file=sys.stderr, flush=True)
