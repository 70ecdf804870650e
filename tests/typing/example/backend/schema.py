from typing import NotRequired

from engine import Document, Id, Schema, Table, define_schema, define_table, v


class Channel(Document):
    name: str


class Message(Document):
    channel: Id[Channel]
    author: str
    body: str
    likes: int
    edited: NotRequired[float]
    embedding: NotRequired[list[float]]


schema = Schema(
    channels=Table(Channel).index("by_name", ["name"], unique=True),
    messages=Table(Message)
    .index("by_channel", ["channel"])
    .reference("channel", on_delete="cascade")
    .check("written", lambda doc: doc["body"] != "")
    .search_index("search_body", search_field="body", filter_fields=["channel"])
    .vector_index("by_embedding", vector_field="embedding", dimensions=384),
)

untyped = define_schema(
    {"users": define_table({"name": v.string(), "age": v.optional(v.number())})}
)
