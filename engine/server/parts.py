"""
A large transition in parts, for clients that put them together.

Clients take a minute without a message for a dead server.  On a slow line a large
transition is longer than that on its way, and a part of it is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from engine.server.messages import TransitionChunk, encode

_RELEASE: Final = re.compile(r"/api/(\d{1,9})\.(\d{1,9})\.\d{1,9}/sync/?")
_SINCE: Final = (1, 28)
"""Of npm's client.  Others drop a connection that has parts, and say no version in their path."""


def takes_parts(path: str) -> bool:
    """Whether the client that speaks the sync protocol at `path` puts parts together."""
    release = _RELEASE.fullmatch(path)
    return release is not None and (int(release[1]), int(release[2])) >= _SINCE


def in_parts(transition: bytes, *, bytes_max: int, transition_id: str) -> tuple[bytes, ...]:
    """
    Messages of at most `bytes_max` of a transition's text each, before they are escaped.

    One character goes in each at least.
    """
    chunks = list(_between_characters(transition, bytes_max))
    return tuple(
        encode(
            TransitionChunk(
                chunk=chunk.decode(),
                part_number=number,
                total_parts=len(chunks),
                transition_id=transition_id,
            )
        )
        for number, chunk in enumerate(chunks)
    )


def _between_characters(text: bytes, size: int) -> Iterator[bytes]:
    start = 0
    while start < len(text):
        end = start + max(size, 4)  # the longest character
        while end < len(text) and _is_inside_character(text[end]):
            end -= 1
        yield text[start:end]
        start = end


def _is_inside_character(byte: int) -> bool:
    return byte & 0xC0 == 0x80
