"""The clock of an application that lives several times."""

from __future__ import annotations

from engine import App, MutationCtx, mutation
from engine.functions.loader import load
from tests.components.lives import Lives

HOUR_MS = 3_600_000
SECOND_NS = 10**9

app = App()


@mutation
async def write(ctx: MutationCtx) -> None:
    await ctx.db.insert("ticks", {})


def test_commits_of_the_next_life_follow_its_clock_after_quiet_hours() -> None:
    with Lives(load([app, write])) as lives:
        lives.t.advance(3 * HOUR_MS)
        before_ns = lives.t.now_ns
        lives.crash()

        lives.t.mutation(write)

        after_ns = lives.place.stage.node.published.value
    assert before_ns <= after_ns < before_ns + SECOND_NS
