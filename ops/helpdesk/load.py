"""Loads entries through mutations, several requests at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx
import trio

from ops.helpdesk.corpus import Entry

ENTRIES_PER_MUTATION = 25
REQUESTS_AT_ONCE = 8

Acknowledged = dict[str, tuple[str, str]]
"""Id of each entry that the server said is durable, with its module and name."""


async def load(
    http: httpx.AsyncClient,
    documents: Sequence[Entry],
    on_acknowledged: Callable[[Acknowledged], None] | None = None,
) -> Acknowledged:
    """
    Add all documents, or as many as the server lives to acknowledge.

    Args:
        on_acknowledged: told of everything acknowledged so far, after each answer.
    """
    acknowledged: Acknowledged = {}
    send, receive = trio.open_memory_channel[Sequence[Entry]](0)

    async def worker(parts: trio.MemoryReceiveChannel[Sequence[Entry]]) -> None:
        async for part in parts:
            for doc_id, entry in zip(await _add(http, part), part, strict=True):
                acknowledged[doc_id] = (entry["module"], entry["name"])
            if on_acknowledged is not None:
                on_acknowledged(acknowledged)

    try:
        async with trio.open_nursery() as nursery, send:
            for _ in range(REQUESTS_AT_ONCE):
                nursery.start_soon(worker, receive.clone())
            for first in range(0, len(documents), ENTRIES_PER_MUTATION):
                await send.send(documents[first : first + ENTRIES_PER_MUTATION])
    except* httpx.TransportError:
        pass  # the server is gone; what it acknowledged stands
    return acknowledged


async def _add(http: httpx.AsyncClient, part: Sequence[Entry]) -> list[str]:
    call = {"path": "desk:add", "args": {"entries": list(part)}, "format": "json"}
    answer = (await http.post("/api/mutation", json=call, timeout=60)).raise_for_status().json()
    if answer["status"] != "success":
        raise RuntimeError(answer["errorMessage"])
    ids: list[str] = answer["value"]
    return ids
