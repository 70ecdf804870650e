"""Bugs that histories of rate limiters, migrations and aggregates have to catch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import trio

from components.migrations import body, client
from tests.components.aggregate import counted
from tests.components.migrations import towns
from tests.components.rate_limiter import limited
from tests.proofs.planted_lines import Bug, Instead, Planted, names_of

_of_limiter = partial(Bug, names_of(limited.APPLICATION, "limits"))
_of_migrations = partial(Bug, names_of(towns.APPLICATION, "migrations"))
_of_aggregate = partial(Bug, names_of(counted.APPLICATION, "numbers"))
_of_body = partial(Bug, vars(body))

OF_BUCKETS: Final[Mapping[str, Planted]] = {
    "a refusal that is kept": _of_limiter("limit", "if each.decision.is_ok:", "if True:"),
    "a check of what could be reserved": _of_limiter(
        "check", "config, count, reserve, key)", "config, count, True, key)"
    ),
    "a reservation that has no end": _of_limiter(
        "config_of.RateLimitConfig.kept", "-self.in_advance", "-math.inf"
    ),
    "nothing can be reserved": _of_limiter(
        "config_of.RateLimitConfig.kept", "if reserve else", "if False else"
    ),
    "a value without what was reserved": _of_limiter(
        "get_value", '"value": value,', '"value": max(value, 0),'
    ),
    "a bucket that runs over": _of_limiter(
        "config_of.TokenBucket.at", "min(level.value + come, self.size)", "level.value + come"
    ),
    "time that counts twice": _of_limiter(
        "config_of.TokenBucket.at", "max(now_ms, level.ts_ms)", "level.ts_ms"
    ),
    "a wait that is a part of a millisecond short": _of_limiter(
        "config_of.TokenBucket.wait_ms", "math.ceil(", "math.floor("
    ),
    "a key without a letter that is none": _of_limiter("_stored", "key is None", "not key"),
    "a reset of all keys": _of_limiter("reset", '.eq("key", _stored(key))', ""),
}

OF_WINDOWS: Final[Mapping[str, Planted]] = {
    "a window that begins a millisecond early": _of_limiter(
        "config_of.FixedWindow.at", "(now_ms - level.ts_ms)", "(now_ms + 1 - level.ts_ms)"
    ),
    "a window that begins a millisecond late": _of_limiter(
        "config_of.FixedWindow.at", "(now_ms - level.ts_ms)", "(now_ms - 1 - level.ts_ms)"
    ),
    "windows that begin when they are first asked": _of_limiter(
        "config_of.FixedWindow.full", "self.start_ms + windows * self.period_ms", "now_ms"
    ),
    "a window that brings all that there is room for": _of_limiter(
        "config_of.FixedWindow.at", "self.rate * windows", "self.size * windows"
    ),
    "a wait from the beginning of the window": _of_limiter(
        "config_of.FixedWindow.wait_ms", "- now_ms", "- level.ts_ms"
    ),
    "forgotten before it is full": _of_limiter("_keep", "math.ceil(", "math.floor("),
    "forgotten whatever is left of it": _of_limiter("forget", "r.lt(", "r.gt("),
}

OF_SHARDS: Final[Mapping[str, Planted]] = {
    "shards that each hold all": _of_limiter(
        "config_of.RateLimitConfig.of_one_shard", "self.size / parts", "self.size"
    ),
    "shards that each fill as fast as all": _of_limiter(
        "config_of.RateLimitConfig.of_one_shard", "self.rate / parts", "self.rate"
    ),
    "shards that each lend as much as all": _of_limiter(
        "config_of.RateLimitConfig.of_one_shard", "self.max_reserved / parts", "self.max_reserved"
    ),
    "two shards that give half of what is asked for": _of_limiter(
        "share", "held[1].value - count)", "held[1].value - count / 2)"
    ),
    "a value of the emptiest shard": _of_limiter(
        "get_value", "max(levels, key=", "min(levels, key="
    ),
    "a value of a shard that was full once": _of_limiter(
        "get_value", "of_shard.at(levels[each], newest_ms).value", "levels[each].value"
    ),
    "a reset of one shard": _of_limiter(
        "reset", '.eq("key", _stored(key))', '.eq("key", _stored(key)).eq("shard", 0)'
    ),
}


# Migrations.


class _Forgetful:
    """Cursors are kept in memory, and on the disk only what was there before: a crash tells."""

    @contextmanager
    def planted(self) -> Iterator[None]:
        names, known = names_of(towns.APPLICATION, "migrations"), dict[Any, Any]()

        def key(part: Any) -> Any:
            return trio.lowlevel.current_trio_token(), part["_id"]

        def batch(whole: Any) -> Callable[..., Awaitable[None]]:
            async def run(ctx: Any, row: Any, part: Any, **how: Any) -> None:
                await whole(ctx, row, {**part, "cursor": known.get(key(part))}, **how)

            return run

        def keep(whole: Any) -> Callable[..., Awaitable[None]]:
            async def run(ctx: Any, row: Any, part: Any, found: Any, **how: Any) -> None:
                known[key(part)] = found["continueCursor"]
                await whole(ctx, row, part, {**found, "continueCursor": part["cursor"]}, **how)

            return run

        with Instead(names, "_batch", batch).planted(), Instead(names, "_keep", keep).planted():
            yield


def _written_dry(_: Any) -> Callable[..., Awaitable[Any]]:
    """A dry run that is none."""

    async def run(ctx: Any, name: str, options: Any) -> Any:
        asked = {"kind": "batch", "part": 0, "bounds": {}, "cursor": None, "one_by_one": False}
        found = await ctx.run_mutation(name, {"do": {**asked, "size": options["batchSize"]}})
        return {**found, "changes": [], "dryRun": True, "name": name}

    return run


OF_MIGRATIONS: Final[Mapping[str, Planted]] = {
    "a crash after which a batch runs twice": _Forgetful(),
    "a first cursor that is not kept": _of_migrations(
        "_keep",
        '"cursor": found["continueCursor"]',
        '"cursor": found["continueCursor"] if part["processed"] else None',
    ),
    "begun at the beginning each time": _of_migrations("start", "if is_fresh:", "if True:"),
    "a reset that goes on": _of_migrations("start", "row is None or reset", "row is None"),
    "a reset of what is in progress": _of_migrations("_busy", '== "inProgress"', '== "never"'),
    "what is done begins again": _of_migrations(
        "start", 'row["state"] == "success" and not is_fresh', "False"
    ),
    "a part that is done after its first batch": _of_migrations(
        "_keep", '"is_done": found["isDone"]', '"is_done": True'
    ),
    "done when one part is": _of_migrations("_end_if_done", "if all(", "if any("),
    "a batch for each that is to come": _of_migrations(
        "_schedule", "job = await", 'for _ in "12": job = await'
    ),
    "a cancel that is not heeded": _of_migrations(
        "cancel", 'row["state"] == "inProgress"', "False"
    ),
    "a cancel that leaves a batch to come": _of_migrations(
        "_call_off", "await ctx.scheduler.cancel(job)", "pass"
    ),
    "a batch that comes after it was canceled": _of_migrations(
        "step", 'row["state"] == "inProgress"', "True"
    ),
    "a failure that ends nothing": _of_migrations(
        "_stop", 'await ctx.db.patch(row["_id"], ended)', "pass"
    ),
    "a failure after which a series goes on": _of_migrations(
        "_stop", 'await ctx.db.delete(series["_id"])', "pass"
    ),
    "a series that is lost at its first": _of_migrations(
        "_end_if_done", 'await _advance_all(ctx, row["name"])', "pass"
    ),
    "a series that is lost where one is in progress": _of_migrations(
        "start", "left = next if", "left = [] if"
    ),
    "more than were visited": _of_migrations(
        "_keep", '+ found["processed"]', '+ found["processed"] + 1'
    ),
    "a document that fails and is done": _of_body("Body._one", "    raise", "    pass"),
    "a document that is skipped and not told": _of_body("_one_by_one", "skipped.append(", "str("),
    "parts that overlap": _of_body(
        "Body._documents", '.lt("_creationTime", upper)', '.lte("_creationTime", upper)'
    ),
    "parts with a gap": _of_body(
        "Body._documents", '.gte("_creationTime", lower)', '.gt("_creationTime", lower)'
    ),
    "an end before who comes meanwhile": _of_body(
        "Body._bounds", "return [{}]", 'return [{"upper": last["_creationTime"] + 0.001}]'
    ),
    "a dry run that writes": Instead(vars(client), "_dry_run", _written_dry),
}


OF_AGGREGATES: Final[Mapping[str, Planted]] = {
    "a split whose sibling counts for nothing": _of_aggregate(
        "GrowingTree._insert", "right.total()", "right.total()._replace(size=0)"
    ),
    "a total of before": _of_aggregate(
        "GrowingTree._below_changed", "node.totals[i] = child.total()", "pass"
    ),
    "a node that is one too large": _of_aggregate(
        "GrowingTree._insert", "> self._size_max", "> self._size_max + 1"
    ),
    "a sibling that gives what it needs": _of_aggregate(
        "GrowingTree._fill", "len(left.items) > self._size_min", "len(left.items) > 0"
    ),
    "a merge that loses what is between": _of_aggregate(
        "GrowingTree._merge", "[node.items.pop(i), *right.items]", "right.items; node.items.pop(i)"
    ),
    "a root that has grown and is not noted": _of_aggregate(
        "WrittenTrees.flush", 'tree.root != row["root"]', "False"
    ),
    "a lazy root that keeps totals": _of_aggregate(
        "GrowingTree.put_back", "None if self._is_lazy else", "None if False else"
    ),
    "a lower bound that is not itself within": _of_aggregate(
        "cuts._lower", 'before if bound["inclusive"] else after', "after"
    ),
    "an upper bound that is itself within": _of_aggregate(
        "cuts._upper", 'after if bound["inclusive"] else before', "after"
    ),
    "a prefix that ends nowhere": _of_aggregate("cuts", 'after_prefix(bounds["prefix"])', "None"),
    "an offset from the end that is one off": _of_aggregate(
        "GrowingTree.at", "-1 - offset", "-offset"
    ),
    "a page that begins with the last of the one before": _of_aggregate(
        "page", "lower = after(", "lower = before("
    ),
    "a rank from the end that counts itself": _of_aggregate(
        "index_of", "tree.total(after(", "tree.total(before("
    ),
    "a namespace of null that is none": _of_aggregate(
        "WrittenTrees.of._order_of_namespace", "namespace is UNDEFINED", "not namespace"
    ),
    "a cleared tree that is still there": _of_aggregate(
        "_clear", '{"root": root, **settings}', "settings"
    ),
}

OF_QUEUES: Final[Mapping[str, Planted]] = {
    "a write that overtakes": _of_aggregate("check_drained", "await _first(ctx)", "None"),
    "the last that was queued is the first": _of_aggregate(
        "check_drained._apply",
        "ctx.db.query(PendingOperation)",
        'ctx.db.query(PendingOperation).order("desc")',
    ),
    "a replacement that fails and has taken away": _of_aggregate(
        "carry_out", ".put_back(taken)", ".total(None, None)"
    ),
    "a refusal that nobody is told of": _of_aggregate(
        "check_drained._keep", "await ctx.db.insert(DeadLetter, letter)", "pass"
    ),
    "a queue that wakes nobody": _of_aggregate(
        "check_drained.add", "was_empty and operations", "False"
    ),
    "a dead letter that is queued again and stays": _of_aggregate(
        "check_drained.retry", 'await ctx.db.delete(letter["_id"])', "pass"
    ),
    "what is refused counts as applied": _of_aggregate(
        "check_drained._take_out", "len(rows) - len(refused)", "len(rows)"
    ),
}
