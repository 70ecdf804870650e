from typing import Any, Literal, NotRequired, TypedDict

from headrace import Document, Id, Int64, Schema, Table, v


class Channel(Document):
    name: str


class Author(TypedDict):
    name: str
    channel: NotRequired[Id[Channel]]


class Message(Document):
    channel: Id[Channel]
    author: Author
    body: str
    likes: int
    views: Int64
    tags: list[str]
    edited: NotRequired[float]
    attachment: bytes | None
    counts: dict[str, float]
    meta: Any


class Cat(Document):
    kind: Literal["cat"]
    lives: int


class Dog(Document):
    kind: Literal["dog"]
    tricks: list[str]


schema = Schema(
    channels=Table(Channel).index("by_name", ["name"], unique=True),
    messages=Table(Message)
    .index("by_channel", ["channel", "author.name"])
    .index("by_likes", ["likes"], staged=True)
    .search_index("search_body", search_field="body", filter_fields=["channel"]),
    pets=Table(Cat | Dog).index("by_kind", ["kind"]),
    vectors=Table({"embedding": v.array(v.number())}).vector_index(
        "by_embedding", vector_field="embedding", dimensions=3
    ),
    anything=Table(v.any()),
)
