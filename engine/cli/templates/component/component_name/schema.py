"""The tables of this component: each mount has its own, and nobody else reaches them."""

from headrace import Document, Schema, Table


class Thing(Document):
    name: str
    count: int


schema = Schema(things=Table(Thing).index("by_name", ["name"], unique=True))
