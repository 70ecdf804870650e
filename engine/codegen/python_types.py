"""What validators are in Python: the text of types, and the lines that define names in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from engine.app.bounds import Bounded
from engine.app.registry import Application
from engine.app.shapes import pagination_opts_validator
from engine.app.types import Page
from engine.app.validators import (
    AnyValue,
    Array,
    BigInt,
    Boolean,
    Bytes,
    IdOf,
    Integral,
    Literal,
    Null,
    Number,
    Object,
    Optional,
    Record,
    String,
    Union,
    Validator,
)
from engine.codegen.classes import Classes
from engine.codegen.documents import key_of
from engine.codegen.names import WORD, Names, camel, is_name
from engine.model.limits import VALUE_NESTING_MAX
from engine.model.values import Int64, Value

PAGE_FIELDS: Final = frozenset(Page.__annotations__)
PAGINATION: Final = key_of(pagination_opts_validator)


class Types:
    """
    The types of one file, for which `lines` define the names.

    Args:
        taken: names that the file has anyway.
    """

    def __init__(self, application: Application, taken: Iterable[str] = ()) -> None:
        self.lines: list[str] = []
        self.names = Names(taken)
        self.classes = Classes(application, self.names)
        self._dicts: dict[tuple[str, ...], str] = {}

    def alias(self, name: str, text: str) -> str:
        """Define a name for a type; returns it."""
        name = self.names.take(name)
        after_class = self.lines and self.lines[-1].startswith((" ", "}"))
        self.lines += [*([""] if after_class else []), f"{name}: TypeAlias = {text}"]
        return name

    def of(self, validator: Validator, name: str, depth: int = 0) -> str:
        """
        The type; of what no value nests as deep as, anything.

        Args:
            name: what it is called if it has to have a name.
        """
        if depth > VALUE_NESTING_MAX:
            return "Any"
        match validator:
            case Optional(inner=inner) | Bounded(inner=inner):
                return self.of(inner, name, depth)
            case Object():
                return self._object(validator, name, depth)
            case Union(members=members):
                return choice_of(self.of(member, name, depth) for member in members)
            case Array(element=element):
                return f"list[{self.of(element, f'{name}Item', depth + 1)}]"
            case Record(keys=keys, values=values):
                value = self.of(values, f"{name}Value", depth + 1)
                return f"dict[{self.of(keys, name, depth + 1)}, {value}]"
        return self._plain(validator)

    def _object(self, validator: Object, name: str, depth: int) -> str:
        fields = validator.fields
        if key_of(validator) == PAGINATION:
            return "PaginationOptions"
        if fields.keys() == PAGE_FIELDS and isinstance(page := fields["page"], Array):
            return f"Page[{self.of(page.element, f'{name}Item', depth + 1)}]"
        return self.classes.of_document(validator) or self.typed_dict(name, fields, depth)

    def typed_dict(
        self, name: str, fields: Mapping[str, Validator], depth: int = 0, *, is_patch: bool = False
    ) -> str:
        """
        Define a TypedDict; returns its name. Within others the same one is defined once.

        Args:
            is_patch: whether all fields may be left out, and removed where they are optional.
        """
        texts = {n: self.of(one, f"{name}{camel(n)}", depth + 1) for n, one in fields.items()}
        for field, one in fields.items():
            if one.is_optional:
                texts[field] = f"{texts[field]} | Undefined" if is_patch else texts[field]
            if one.is_optional or is_patch:
                texts[field] = f"NotRequired[{texts[field]}]"
        key = tuple(f"{field}: {text}" for field, text in texts.items())
        if depth and (same := self._dicts.get(key)) is not None:
            return same
        name = self.names.take(name)
        self._dicts.setdefault(key, name)
        self.lines += ["", *_typed_dict(name, texts)]
        return name

    def _plain(self, validator: Validator) -> str:
        match validator:
            case Null():
                return "None"
            case Boolean():
                return "bool"
            case Integral():
                return "int"
            case Number():
                return "float"
            case BigInt():
                return "Int64"
            case Bytes():
                return "bytes"
            case Literal(value=value):
                return _literal(value)
            case IdOf() if validator.kind == "id":
                return f"Id[{self._table(validator.table_name)}]"
            case String() | IdOf():
                return "str"
        assert isinstance(validator, AnyValue), f"{validator} is a kind of validator of its own"
        return "Any"

    def _table(self, name: str) -> str:
        """What an id of the table is of; where documents are of several classes, anything."""
        if self.classes.has_several(name):
            return "Any"
        return self.classes.of_id(name) or f"Literal[{name!r}]"


def choice_of(types: Iterable[str]) -> str:
    """One of them; of none, nothing is one."""
    return " | ".join(_literals_together(dict.fromkeys(types))) or "Never"


def _literals_together(types: Iterable[str]) -> Iterator[str]:
    types = list(types)
    literals = [one for one in types if one.startswith(LITERAL) and one.endswith("]")]
    for one in types:
        if one not in literals:
            yield one
        elif one == literals[0]:
            yield f"{LITERAL}{', '.join(each[len(LITERAL) : -1] for each in literals)}]"


LITERAL: Final = "Literal["


def _literal(value: Value) -> str:
    match value:
        case Int64():
            return "Int64"
        case float():
            return "float"
    return f"{LITERAL}{value!r}]"


def _typed_dict(name: str, texts: Mapping[str, str]) -> Iterator[str]:
    """
    A class, unless a field cannot be written as an attribute.

    One that is called as a type beside it would be taken for that: `list` beside `list[int]`.
    """
    words = set(WORD.findall(" ".join(texts.values())))
    if all(is_name(field) and field not in words for field in texts):
        yield f"class {name}(TypedDict):"
        yield from (f"    {field}: {text}" for field, text in texts.items())
        if not texts:
            yield "    pass"
        return
    yield f"{name} = TypedDict({name!r}, {{"
    yield from (f"    {field!r}: {text!r}," for field, text in texts.items())
    yield "})"
