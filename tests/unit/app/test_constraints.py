"""References and checks are refused where they are declared, with file and line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NotRequired

import pytest
from annotated_types import Ge, Predicate

from engine.app.bounds import bounded
from engine.app.constraints import CheckSpec
from engine.app.rules import implies, rule_of
from engine.app.schema import Schema, Table
from engine.app.types import Document, Id
from engine.app.validators import v
from engine.errors import DeclarationError, InvalidValue
from engine.model.relations import Relation


class Channel(Document):
    name: str


class Person(Document):
    name: str


class Message(Document):
    channel: Id[Channel]
    author: Id[Person] | None
    reply_to: NotRequired[Id[Message]]
    readers: list[Id[Person]]
    about: Id[Channel] | Id[Person]
    mood: Id[Person] | str
    seen: dict[str, Id[Person]]
    body: str


def schema(messages: Table) -> Schema:
    return Schema(channels=Table(Channel), people=Table(Person), messages=messages)


def messages(*fields: str) -> Table:
    table = Table(Message)
    for field in fields:
        table = table.index(f"by_{field.replace('.', '_')}", [field])
    return table


def test_a_reference_learns_its_table_from_the_field_and_its_index_from_the_table() -> None:
    table = (
        messages("body")
        .index("by_channel", ["channel", "author"])
        .index("by_channel_only", ["channel"])
        .index("by_author", ["author"])
        .index("by_reply", ["reply_to"])
        .reference("channel", on_delete="cascade")
        .reference("author", on_delete="set_null")
        .reference("reply_to")
    )

    tables = schema(table).tables

    assert [
        ("channel", "channels", "cascade", "by_channel", False),
        ("author", "people", "set_null", "by_author", True),
        ("reply_to", "messages", "restrict", "by_reply", False),
    ] == [
        (one.field, one.target, one.on_delete, one.index, one.may_be_null)
        for one in table.relations("messages", tables)
    ]


def test_a_path_into_objects_refers() -> None:
    table = Table({"who": v.object({"person": v.optional(v.nullable(v.id("people")))})})
    table = table.index("by_person", ["who.person"]).reference("who.person", on_delete="set_null")

    (relation,) = schema(table).tables["messages"].relations("messages", {"people"})

    assert {"who": {"person": None}} == relation.cleared({"who": {"person": "an id"}})


def test_a_field_that_cannot_be_null_goes() -> None:
    relation = Relation(
        table="a", field="b.c", target="d", on_delete="set_null", index="e", may_be_null=False
    )

    assert {"b": {"x": 1}, "y": 2} == relation.cleared({"b": {"c": "id", "x": 1}, "y": 2})


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (lambda: messages().reference("channel"), r"needs an index .* \.index\(\"by_channel\", \["),
        (lambda: messages("body").reference("channel"), "needs an index that begins with"),
        (
            lambda: Table(Message).index("by_it", ["channel"], staged=True).reference("channel"),
            "needs an index that begins with",
        ),
        (lambda: messages().reference("chanel"), "no document has this field. Did you"),
        (lambda: messages("body").reference("body"), r"may be v.string\(\)"),
        (lambda: messages("readers").reference("readers"), r"may be v.array\(.*a table with"),
        (lambda: messages("mood").reference("mood"), r"may be v.string\(\)"),
        (lambda: messages("seen").reference("seen"), r"may be v.record\("),
        (lambda: messages("about").reference("about"), "one table, not of channels and people"),
        (lambda: messages("channel").reference("channel", on_delete="set_null"), "neither null"),
        (lambda: messages("channel").reference("channel", on_delete="drop"), "'restrict', 'cas"),  # type: ignore[arg-type]
        (lambda: messages("channel").reference("channel").reference("channel"), "twice"),
        (lambda: Table(v.any()).index("by_a", ["a"]).reference("a"), r"may be v.any\(\)"),
        (
            lambda: Table({"a": v.id("elsewhere")}).index("by_a", ["a"]).reference("a"),
            "no table 'elsewhere'; a reference stays within",
        ),
    ],
)
def test_what_cannot_refer_is_refused_with_file_and_line(
    declare: Callable[[], Table], why: str
) -> None:
    with pytest.raises(DeclarationError, match=rf"test_constraints\.py:\d+: reference .*{why}"):
        schema(declare())


def test_the_line_is_that_of_the_reference() -> None:
    table = messages("body").index("by_author", ["author"])
    table = table.reference("channel")
    line = table.references[0].where

    with pytest.raises(DeclarationError, match=f"table 'messages': {line}: reference `channel`"):
        schema(table)

    assert line.endswith(f":{test_the_line_is_that_of_the_reference.__code__.co_firstlineno + 2}")


async def later(_doc: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("name", "holds", "why"),
    [
        ("no name", bool, "no name"),
        ("one", 5, "check 'one' is 5; write a plain function"),
        ("one", later, "write a plain function of a document"),
        ("taken", bool, "two checks are called 'taken'"),
    ],
)
def test_a_check_that_cannot_be_is_refused(name: str, holds: Any, why: str) -> None:
    table = Table({"a": v.any()}).check("taken", bool)

    with pytest.raises(DeclarationError, match=why):
        table.check(name, holds)


def broken(doc: Any) -> bool:
    return bool(doc["missing"])


@pytest.mark.parametrize(
    ("holds", "why"),
    [
        (lambda doc: doc["a"] > 1, "the check 'one' does not hold for {'a': 1}"),
        (broken, "the check 'one' raised KeyError: 'missing' for {'a': 1}"),
        (lambda doc: later(doc), "awaits; it has to answer at once"),
        (lambda doc: "_id" in doc, "does not hold"),
    ],
)
def test_a_check_names_itself_and_the_fields(holds: Callable[[Any], Any], why: str) -> None:
    with pytest.raises(InvalidValue, match=why):
        CheckSpec(name="one", holds=holds).check({"_id": "x", "a": 1})


def test_a_check_that_changes_the_document_changes_a_copy() -> None:
    doc = {"a": [1]}

    CheckSpec(name="one", holds=lambda given: given["a"].append(2) is None).check(doc)

    assert {"a": [1]} == doc


def rule(table: Table) -> Any:
    """The rule of a table whose class is in a schema."""
    schema(table)
    return table.rule()


def test_a_table_without_constraints_has_the_rule_of_its_documents() -> None:
    table = messages("channel")

    assert rule(table) == rule_of(table.validator)


def test_what_becomes_of_documents_is_no_rule_for_them() -> None:
    free = rule(messages("channel"))
    restricted = rule(messages("channel").reference("channel"))
    cascading = rule(messages("channel").reference("channel", on_delete="cascade"))

    assert implies(restricted, cascading)
    assert implies(restricted, free)
    assert not implies(free, restricted)
    assert not implies(restricted, rule(messages("author").reference("author")))


def test_a_check_is_not_implied_by_one_of_its_name() -> None:
    free, checked = messages(), messages().check("one", bool)

    assert not implies(rule(checked), rule(checked))
    assert not implies(rule(free), rule(checked))
    assert implies(rule(checked), rule(free))


def test_a_predicate_beside_a_type_is_not_implied_either() -> None:
    def table(bound: Any) -> Table:
        return Table({"a": bounded(v.number(), [bound])})

    odd = table(Predicate(lambda n: n % 2 == 1))

    assert not implies(odd.rule(), odd.rule())
    assert implies(table(Ge(1)).rule(), table(Ge(1)).rule())
