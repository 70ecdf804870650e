"""
Room for HTTP requests: so many are worked on at a time, and so much of bodies is on its way.

A request whose body is being read has no place among those that are worked on: a
client would keep the place for as long as it likes to take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from engine.errors import Overloaded
from engine.model.limits import Limits

BODY_BYTES_MIN: Final = 16 << 10
"""What a body counts at least: its request takes memory also while nothing of it is there."""


class Room:
    def __init__(self, limits: Limits) -> None:
        self.limits: Final = limits
        self.requests = 0
        self.bodies_bytes = 0


class Place:
    """
    What one request has of a room: it is worked on, its body is read, or neither.

    Args:
        is_owed: whether it has to get in, asked when there is no room.
    """

    def __init__(self, room: Room, is_owed: Callable[[], bool]) -> None:
        self._room = room
        self._is_owed = is_owed
        self._requests = 0
        self._body_bytes = 0

    @classmethod
    def alone(cls) -> Place:
        """That of a request beside which there is none."""
        return cls(Room(Limits()), lambda: True)

    def work(self) -> None:
        """
        Be worked on, with all of the body there.

        Raises:
            Overloaded: too many are.
        """
        self.leave()
        room = self._room
        if room.requests >= room.limits.http_requests_max and not self._is_owed():
            raise Overloaded("TooManyConcurrentRequests: the HTTP API (http_requests_max)", 0)
        self._requests = 1
        room.requests += 1

    def read(self, size: int) -> None:
        """
        Have read so much of the body, and wait for more.

        Raises:
            Overloaded: there is too much of those that are read.
        """
        self.leave()
        room = self._room
        counted = max(size, BODY_BYTES_MIN)
        if room.bodies_bytes + counted > room.limits.http_bodies_bytes_max and not self._is_owed():
            raise Overloaded("the bodies of HTTP requests (http_bodies_bytes_max)", 0)
        self._body_bytes = counted
        room.bodies_bytes += counted

    def leave(self) -> None:
        self._room.requests -= self._requests
        self._room.bodies_bytes -= self._body_bytes
        self._requests = self._body_bytes = 0
