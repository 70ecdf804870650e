"""Long work in steps: others have their turns between them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_turns(steps: Generator[None, None, T]) -> T:
    """What comes of `steps`, each of which takes some milliseconds."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
        await trio.lowlevel.checkpoint()
