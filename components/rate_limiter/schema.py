"""The one table: what is left of each limit that anything was ever taken from."""

from __future__ import annotations

from typing import NotRequired

from engine import Document, Schema, Table


class RateLimit(Document):
    """
    `value` tokens were there at `ts`, in one shard; without `key`, for everybody.

    From `full_by` on the shard is full if nothing more is taken, and the row says nothing.  Times
    are in milliseconds since 1970.
    """

    name: str
    key: NotRequired[str]
    shard: float
    value: float
    ts: float
    full_by: float


schema = Schema(
    rateLimits=Table(RateLimit)
    .index("by_name_key_shard", ["name", "key", "shard"])
    .index("by_full", ["full_by"])
)
