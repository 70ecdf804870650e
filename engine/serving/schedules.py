"""
Scheduled functions and crons, as operators see them.

    GET   jobs?state=&function=&limit=    those of a state, and whether these are all
    GET   job?id=                         one
    POST  cancel {"id"}                   one that has not ended
    GET   crons                           all, with their last runs
    POST  forget {"cron", "component"}    one that a function registered
    GET   stats                           every number that is counted
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.errors import RequestRefused
from engine.functions.job_rows import (
    CANCELED,
    FAILED,
    IN_PROGRESS,
    PENDING,
    SUCCESS,
    is_pending,
)
from engine.model.json_values import Json, to_wire
from engine.model.limits import DOCUMENTS_SHOWN_MAX
from engine.node import Node
from engine.server.requests import Handler, Request, Response, bad_json, json_response

STATES: Final = (PENDING, IN_PROGRESS, SUCCESS, FAILED, CANCELED)
SHOWN: Final = 100
TOLD: Final = (
    *("_id", "name", "args", "scheduledTime", "completedTime", "state"),
    *("attempts", "lastError", "returned"),
)


class Schedules:
    """What operators ask of the jobs and crons of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._jobs = node.scheduler.jobs

    def handlers(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "jobs"): self._list,
            ("GET", "job"): self._show,
            ("POST", "cancel"): self._cancel,
            ("GET", "crons"): self._crons,
            ("POST", "forget"): self._forget,
            ("GET", "stats"): self._stats,
        }

    async def _list(self, request: Request) -> Response:
        state, path = request.query.get("state", PENDING), request.query.get("function", "")
        if state not in STATES:
            raise RequestRefused(400, "BadState", f"state is one of {', '.join(STATES)}")
        text = request.query.get("limit", str(SHOWN))
        if not text.isdecimal():
            raise RequestRefused(400, "BadLimit", "limit is a whole number")
        count = max(1, min(int(text), DOCUMENTS_SHOWN_MAX))
        found = await self._jobs.listed(state, count, lambda job: path in ("", job["name"]))
        shown: list[Json] = [_job(row) for row in found.rows]
        told: dict[str, Json] = {"lookedAt": found.looked_at, "isWhole": found.is_whole}
        return json_response({"jobs": shown, **told})

    async def _show(self, request: Request) -> Response:
        job_id = request.query.get("id", "")
        row = self._jobs.row(job_id)
        if row is None:
            raise RequestRefused(404, "JobNotFound", f"There is no scheduled function {job_id}")
        return json_response(_job(row))

    async def _cancel(self, request: Request) -> Response:
        asked = await request.json_object(self._node.limits.http_body_bytes_max)
        job_id = asked.get("id")
        if not isinstance(job_id, str):
            raise bad_json("id has to be the id of a scheduled function")
        return json_response({"canceled": await self._jobs.cancel(job_id)})

    async def _crons(self, _request: Request) -> Response:
        return json_response([_cron(row) for row in await self._jobs.crons()])

    async def _forget(self, request: Request) -> Response:
        asked = await request.json_object(self._node.limits.http_body_bytes_max)
        name, component = asked.get("cron"), asked.get("component", "")
        if not isinstance(name, str) or not isinstance(component, str):
            raise bad_json("cron has to be the name of a cron, and component a path")
        return json_response({"removed": await self._jobs.forget_cron(component, name)})

    async def _stats(self, _request: Request) -> Response:
        found = self._node.counters.read()
        return json_response(
            [
                {"name": name, "labels": dict(labels), "value": value}
                for name, labels, value in found
            ]
        )


def _job(row: Mapping[str, Any]) -> dict[str, Json]:
    """A row without what only the scheduler needs."""
    shown = {name: to_wire(row[name]) for name in TOLD if name in row}
    if is_pending(row):
        shown["due"] = to_wire(row["due"])  # of its next attempt, if it is tried again
    return {**shown, "component": row["component"]}


def _cron(row: Mapping[str, Any]) -> dict[str, Json]:
    told = ("component", "cron", "schedule", "name", "args", "nextTime", "skipped", "runs")
    return {name: to_wire(row[name]) for name in told if name in row}
