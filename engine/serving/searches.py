"""
Text and vector indexes, as operators see them.

    GET   indexes             all
    GET   index?index=        one, by table and name
    POST  rebuild {"name"}    forget its files and build it anew; answered when it answers
"""

from __future__ import annotations

from typing import Any

from engine.errors import RequestRefused
from engine.indexes.keeper import IndexStatus
from engine.node import Node
from engine.server.requests import Handler, Request, Response, bad_json, json_response


class Searches:
    """What operators ask of the indexes that a node keeps in memory."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "indexes"): self._list,
            ("GET", "index"): self._show,
            ("POST", "rebuild"): self._rebuild,
        }

    async def _list(self, _request: Request) -> Response:
        return json_response([_told(status) for status in self._node.keeper.statuses()])

    async def _show(self, request: Request) -> Response:
        return json_response(_told(self._find(request.query.get("index", ""))))

    async def _rebuild(self, request: Request) -> Response:
        asked = await request.json_object(self._node.limits.http_body_bytes_max)
        name = asked.get("name")
        if not isinstance(name, str):
            raise bad_json("name has to be that of a table and an index: notes.by_text")
        await self._node.keeper.rebuild(self._find(name).index_id)
        return json_response(_told(self._find(name)))

    def _find(self, name: str) -> IndexStatus:
        statuses = self._node.keeper.statuses()
        for status in statuses:
            if status.name == name:
                return status
        known = ", ".join(sorted(status.name for status in statuses)) or "none"
        raise RequestRefused(
            404, "IndexNotFound", f"There is no text or vector index {name!r}; there are {known}"
        )


def _told(status: IndexStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "kind": status.kind,
        "state": status.state,
        "answers": status.answers,
        "documents": status.documents,
        "parts": status.parts,
        "bytes": status.size_bytes,
        "unfoldedBytes": status.unfolded_bytes,
        "checkpointTs": status.checkpoint_ts,
        "lagSeconds": status.lag_s,
    }
