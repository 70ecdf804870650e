"""Tables of the application that clients are tried with."""

from __future__ import annotations

from engine import Document, Schema, Table


class Message(Document):
    channel: str
    body: str
    n: float


class Counter(Document):
    name: str
    value: float


schema = Schema(
    messages=Table(Message)
    .index("by_channel", ["channel"])
    .index("by_n", ["channel", "n"])
    .search_index("by_body", search_field="body", filter_fields=["channel"]),
    counters=Table(Counter).index("by_name", ["name"]),
)
