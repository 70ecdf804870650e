"""The one table: what is left of each bucket that anything was ever taken from."""

from __future__ import annotations

from typing import NotRequired

from engine import Document, Schema, Table


class RateLimit(Document):
    """`value` tokens were there at `ts` (milliseconds since 1970); without `key`, for everybody."""

    name: str
    key: NotRequired[str]
    shard: float
    value: float
    ts: float


schema = Schema(rateLimits=Table(RateLimit).index("by_name_key_shard", ["name", "key", "shard"]))
