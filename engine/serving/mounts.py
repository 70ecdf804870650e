"""
Components, as operators see them.

    GET   components                       those that are mounted, and those whose data is kept
    POST  delete-component {"component"}   what is kept of one that is not mounted
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.functions.mounts import mounted
from engine.functions.turns import Turns
from engine.indexes.catalog import DEPLOYMENT_KEY
from engine.node import Node
from engine.server.requests import Handler, Request, Response, bad_json, json_response
from engine.transaction.transaction import Transaction


class Mounts:
    """What operators ask of the components of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def handlers(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "components"): self._list,
            ("POST", "delete-component"): self._delete,
        }

    async def _list(self, _request: Request) -> Response:
        turns: Turns = self._node.functions.turns
        return json_response(await turns.write(lambda turn: list(self._components(turn))))

    def _components(self, turn: Transaction) -> Iterator[dict[str, Any]]:
        here = mounted(turn.get(DEPLOYMENT_KEY))
        tables = turn.catalog.user_tables
        for path in sorted({*here, *(table.component for table in tables)} - {""}):
            own = [table for table in tables if table.component == path]
            yield {
                "path": path,
                "component": self._name(path),
                "mounted": path in here,
                "tables": len(own),
                "documents": sum(map(turn.count, own)),
            }

    def _name(self, path: str) -> str | None:
        """What the component at a path calls itself, if an application is served that says so."""
        place = self._node.functions.deployment.application.at(path)
        return None if place is None or place.app is None else getattr(place.app, "name", None)

    async def _delete(self, request: Request) -> Response:
        asked = await request.json_object(self._node.limits.http_body_bytes_max)
        component = asked.get("component")
        if not isinstance(component, str):
            raise bad_json("component has to be a path")
        return json_response({"documents": await self._node.delete_component(component)})
