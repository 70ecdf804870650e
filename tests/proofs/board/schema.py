"""Items that are asked for by all kinds of indexes."""

from __future__ import annotations

from engine import Document, Schema, Table


class Item(Document):
    group: float
    n: float
    owner: str
    text: str


schema = Schema(
    items=Table(Item)
    .index("by_group", ["group", "n"])
    .index("by_n", ["n"])
    .index("by_owner", ["owner"])
    .search_index("by_text", search_field="text", filter_fields=["group"])
)
