"""Bugs that histories of batch workers and of pools have to catch: in each a line is another."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from tests.components.batch_worker import letters
from tests.components.workpool import works
from tests.proofs.planted_lines import Bug, names_of

_of_worker = partial(Bug, names_of(letters.APPLICATION, "loop"))
_of_pool = partial(Bug, names_of(works.APPLICATION, "pool"))

OF_WORKERS: Final[Mapping[str, Bug]] = {
    "a wake that keeps the old generation": _of_worker(
        "_wake", 'state["generation"] + 1', 'state["generation"]'
    ),
    "a stop that keeps the generation": _of_worker(
        "stop", 'state["generation"] + 1', 'state["generation"]'
    ),
    "a pass of any generation": _of_worker("_current", 'state["generation"] == generation', "True"),
    "a sleep without a time to wake up": _of_worker("_sleep", "wake_at is None", "True"),
    "a time to wake up that loses its fraction": _of_worker(
        "_sleep", "max(math.ceil(wake_at), ctx.now_ms + 1)", "math.floor(wake_at)"
    ),
    "a sleep that leaves its monitor": _of_worker(
        "_sleep", 'await _cancel(ctx, state, "monitor")', "pass"
    ),
    "a monitor that does not look": _of_worker(
        "watch", 'await _is_to_come(ctx, state.get("next_pass"))', "True"
    ),
    "a repair that does not look": _of_worker(
        "repair", "any([await _is_to_come(ctx, job) for job in jobs])", "True"
    ),
    "a batch that is never set aside": _of_worker(
        "_do", 'state["failures"] >= FAILURES_MAX', "False"
    ),
    "whoever comes next is set aside": _of_worker(
        "_do", 'state.get("failed", this) == this', "True"
    ),
    "a batch that does not shrink": _of_worker(
        "_shrunk", 'max(1, state["limit"] // SHRINKING)', 'state["limit"]'
    ),
    "a start that is no wake": _of_worker(
        "start", "await _wake(ctx, worker, await _state(ctx, worker))", "pass"
    ),
    "a ping that wakes who was stopped": _of_worker(
        "ping", 'worker["status"] == "idle"', 'worker["status"] != "running"'
    ),
    "a ping that wakes who runs": _of_worker("ping", 'worker["status"] == "idle"', "True"),
}

OF_POOLS: Final[Mapping[str, Bug]] = {
    "one more than there is room for": _of_pool(
        "run_batch", '["begin"][: max(free, 0)]', '["begin"][: max(free, 0) + 1]'
    ),
    "one more is found than there is room for": _of_pool(
        "get_batch", "take(min(free, limit))", "take(min(free, limit) + 1)"
    ),
    "room for one less": _of_pool("get_batch", '["max_parallelism"])', '["max_parallelism"] - 1)'),
    "a report of another attempt counts": _of_pool(
        "_under_way", 'work["attempts"] == told["attempt"]', "True"
    ),
    "a report of what waits counts": _of_pool("_under_way", 'work["state"] == "running"', "True"),
    "a mutation that was lost between claim and run": _of_pool(
        "_check", 'kind == "canceled"', "False"
    ),
    "no backoff": _of_pool("_end", "ctx.now_ms + wait_ms", "ctx.now_ms"),
    "a backoff that does not grow": _of_pool(
        "rules.wait_ms", "backoff_ms(attempts)", "backoff_ms(1)"
    ),
    "a backoff that loses its fraction": _of_pool(
        "rules.retry_of", 'base=fields["base"]', 'base=int(fields["base"])'
    ),
    "a time that loses its fraction": _of_pool("_add", "math.ceil(", "math.floor("),
    "one attempt too many": _of_pool(
        "rules.verdict", "attempts >= max_attempts", "attempts > max_attempts"
    ),
    "one attempt too few": _of_pool(
        "rules.verdict", "attempts >= max_attempts", "attempts + 1 >= max_attempts"
    ),
    "a last word that is not": _of_pool("rules.verdict", "outcome.is_final or ", ""),
    "a success that was canceled": _of_pool(
        "rules.verdict",
        'outcome.kind == "success"',
        'outcome.kind == "success" and not is_canceled',
    ),
    "a canceled work that is tried again": _of_pool("rules.verdict", "is_canceled or ", ""),
    "an end that nobody is told of": _of_pool("_told", '"on_complete" not in work', "True"),
    "an end that is told of twice": _of_pool(
        "_told",
        'await ctx.scheduler.run_after(0, work["on_complete"], told)',
        'for _ in "12": await ctx.scheduler.run_after(0, work["on_complete"], told)',
    ),
    "a context of nobody": _of_pool("_told", '"context": context', '"context": None'),
    "an end that wakes nobody": _of_pool("_end", "await worker.ping(ctx)", "pass"),
    "an end that wakes nobody whose time is yet to come": _of_pool(
        "_is_room_for_who_waits",
        "await pending.first() is not None",
        "(first := await pending.first()) is not None and first['due'] <= ctx.now_ms",
    ),
    "a run that is kept": _of_pool("_end", 'await ctx.db.delete(work["run"])', "pass"),
}
