"""What is stored."""

from headrace import Document, Schema, Table


class Message(Document):
    author: str
    body: str


schema = Schema(messages=Table(Message).index("by_author", ["author"]))
