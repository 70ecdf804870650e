"""
Subscriptions actor: follows what readers can see, and finds who has to look again.

A step of it goes through these stages:

    follow    wait until something was published past what is processed
    read      the commits in between, a bounded number of them
    prepare   those that wrote many rows: what their keys are takes the time
    compare   their old and new keys with every read set, and mark what they touch
    finish    advance `processed`, and wake whoever watches what was touched
    tidy      free what belonged to what was touched, until the next commit comes

What is asked as of a commit waits for `processed`, so nobody is shown what was
compared with some read sets and not with others.  What is staged is never looked at.
If commits were published faster than they are kept, those that are gone may
have touched anything, and everything is invalidated: too often, never too late.
"""

from __future__ import annotations

from itertools import islice

import trio

from engine.kernel.trace import tracer
from engine.kernel.watermark import Watermark
from engine.subscriptions.handle import Recent, Subscriptions

trace = tracer(__name__)

STEP_COMMITS_MAX = 256
"""Compared before others get their turn: some five milliseconds."""

STEP_ROWS_MAX = 1_000
"""A commit of more takes turns with others."""


class SubscriptionsActor:
    """
    Keeps `state.processed` behind `published`.

    Args:
        published: the newest commit that readers may see.
        recent: where the commits up to there are.
        state: what is subscribed to.
    """

    name = "subscriptions"

    def __init__(self, published: Watermark, recent: Recent, state: Subscriptions) -> None:
        self._published = published
        self._tail = published.follow()
        self._recent = recent
        self._state = state

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while upto := await self._tail.past(self._state.processed.value):
            await self._step(upto)
            while self._state.tidy() and not self._is_behind:
                await trio.lowlevel.checkpoint()

    @property
    def _is_behind(self) -> bool:
        return self._published.value > self._state.processed.value

    def close(self) -> None:
        self._tail.close()

    async def _step(self, upto: int) -> None:
        seen = self._state.processed.value
        if not self._recent.covers(seen):
            trace.warning("subscriptions.outrun", after=seen, upto=upto)
            self._state.invalidate_all(upto)
            return
        commits = list(islice(self._recent.between(seen, upto), STEP_COMMITS_MAX))
        if len(commits) == STEP_COMMITS_MAX:
            upto = commits[-1].ts
        for commit in commits:
            if len(commit.rows) > STEP_ROWS_MAX:
                for _ in self._state.slices(commit):
                    await trio.lowlevel.checkpoint()
            # Somebody may have compared it and those before it meanwhile.
            if commit.ts > self._state.processed.value:
                for _ in self._state.compare(commit):
                    await trio.lowlevel.checkpoint()
        if upto > self._state.processed.value:
            self._state.finish(upto)
