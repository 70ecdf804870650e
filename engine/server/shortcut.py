"""
Shortcut: what some hosts have besides ASGI's `send` and `receive`, for a text that nobody waits on.

A host need not have one; what cannot go this way goes the long way, and in the same order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

Take: TypeAlias = Callable[["str | None"], Awaitable[None]]
"""Called with each text that arrives, or `None` for a message that is no text."""


class WayOut(Protocol):
    """To the client."""

    def begin(self, *messages: bytes) -> bool:
        """Have the kernel take of some texts what it has room for; whether that was anything."""
        ...

    @property
    def is_begun(self) -> bool:
        """Whether the kernel has a part of what was begun, and not the rest."""
        ...

    async def finish(self) -> None:
        """Send the rest of what was begun."""
        ...


class Shortcut(WayOut, Protocol):
    """Both ways."""

    def listen(self, take: Take) -> bool:
        """
        Have `take` called with each text that arrives; nothing more is read while it runs.

        Returns whether that is so from now on: not while others wait to be received. What ends the
        connection still comes by `receive`.
        """
        ...
