"""
Whether a request is granted, and what is left then, of one shard or of two.

Nothing here reads or writes: a decision says what is to be kept if it is granted.
"""

from __future__ import annotations

from typing import NamedTuple

from components.rate_limiter.config import Level, RateLimitConfig


class Decision(NamedTuple):
    """
    What becomes of a request at one shard.

    `after` is to be kept if it `is_ok`. `wait_ms` is how long it takes until there are as many
    tokens as were asked for, and 0 if there are.
    """

    is_ok: bool
    after: Level
    wait_ms: float


def decide(
    config: RateLimitConfig, level: Level | None, now_ms: float, count: float, *, reserve: bool
) -> Decision:
    """
    Ask one shard for tokens.

    Args:
        config: of one shard, for one key.
        level: what was kept last; `None` if nobody has taken any: it is full.
        reserve: take tokens that are yet to come; whoever has them waits for them.
    """
    held = level_at(config, level, now_ms)
    left = Level(held.value - count, held.ts_ms)
    kept = config.kept(left.value, reserve=reserve)
    if kept is None:
        return Decision(False, left, _until(config, level or held, now_ms, count))
    after = Level(kept, held.ts_ms)
    return Decision(True, after, 0 if kept >= 0 else config.wait_ms(after, 0, now_ms))


def share(
    config: RateLimitConfig,
    levels: tuple[Level | None, Level | None],
    now_ms: float,
    count: float,
    *,
    reserve: bool,
) -> tuple[Decision, Decision]:
    """
    Ask two shards for tokens that neither has by itself: both end with as much as the other.

    One may have more tokens afterwards than before. Both decisions say the same, and what is
    taken of the two is `count`.
    """
    held = [level_at(config, level, now_ms) for level in levels]
    half = (held[0].value + held[1].value - count) / 2
    kept = config.kept(half, reserve=reserve)
    after = [Level(half if kept is None else kept, each.ts_ms) for each in held]
    wait_ms = 0.0
    if after[0].value < 0:
        wait_ms = max(config.wait_ms(each, 0, now_ms) for each in after)
    first, second = (Decision(kept is not None, each, wait_ms) for each in after)
    return first, second


def level_at(config: RateLimitConfig, level: Level | None, now_ms: float) -> Level:
    """What there is now of what was kept last; all of it, if nothing was."""
    return config.full(now_ms) if level is None else config.at(level, now_ms)


def full_ms(config: RateLimitConfig, level: Level, now_ms: float) -> float:
    """From when on the shard is full if nothing more is taken: as if nobody ever had."""
    return now_ms + config.wait_ms(level, config.size, now_ms)


def _until(config: RateLimitConfig, kept: Level, now_ms: float, count: float) -> float:
    """After how long the same request is granted, by the same arithmetic with its rounding."""
    wait_ms = config.wait_ms(kept, count - config.slack, now_ms)
    left = config.at(kept, now_ms + wait_ms).value - count
    is_granted = config.kept(left, reserve=False) is not None
    return wait_ms if is_granted or count > config.size else wait_ms + config.tick_ms
