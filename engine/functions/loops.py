"""
Where an action runs: on trio, in a thread, or on an asyncio loop of its own.

`async def` runs in the calling task, `def` in a worker thread with a context
whose methods block.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from engine.app.registered import RegisteredFunction
from engine.functions.actions import ActionContext


async def run_action(
    function: RegisteredFunction, ctx: ActionContext, arguments: Mapping[str, Any]
) -> Any:
    """Run an action where its declaration says, and return what it returns."""
    result = function.handler(ctx, **arguments)
    return await result if isinstance(result, Coroutine) else result
