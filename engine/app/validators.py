"""
`v`: what an argument, a result or a document may be.

    v.object({"name": v.string(), "age": v.optional(v.number())})

A validator is a value: it compares equal to another that accepts the same
thing in the same words, prints as the code that makes it, and has the JSON
form that clients and stored schemas know.  Nothing is coerced: a boolean is
never a number, an `Int64` never a float64.

`compile` gives a function that checks canonical values quickly; what it finds
wrong it reports with the path, the value and the validator.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, lru_cache
from itertools import islice
from reprlib import Repr
from typing import Any, Final, TypeAlias

from engine.errors import DeclarationError, InvalidId, InvalidValue
from engine.model.identifiers import is_identifier, why_no_identifier
from engine.model.ids import row_key_of
from engine.model.json_values import to_wire
from engine.model.limits import (
    IDENTIFIER_LENGTH_MAX,
    SHOWN_LENGTH_MAX,
    VALIDATOR_NESTING_MAX,
    VALUE_NESTING_MAX,
)
from engine.model.values import Int64, Refusal, Value, check_field_name, normalize

Tables: TypeAlias = Callable[[str], int | None]
"""The number of a table in the caller's component, or None if there is no such table."""

Json: TypeAlias = Any


class Mismatch:
    """Why a value was refused; each container it passes on its way up adds a step."""

    __slots__ = ("steps", "validator", "value", "why")

    def __init__(self, validator: Validator, value: Value, why: str = "") -> None:
        self.validator = validator
        self.value = value
        self.why = why
        self.steps: list[str] = []

    def within(self, step: str) -> Mismatch:
        self.steps.append(step)
        return self

    def path(self, prefix: str = "") -> str:
        """Where the value is, as in `.author.names[3]`; empty for the whole."""
        return prefix + "".join(reversed(self.steps))

    def text(self, prefix: str = "") -> str:
        """The whole message."""
        lines = [self.why or "Value does not match validator."]
        if path := self.path(prefix):
            lines.append(f"Path: {path}")
        lines.append(f"Value: {shown(self.value)}")
        lines.append(f"Validator: {_cut(str(self.validator))}")
        return "\n".join(lines)


Check: TypeAlias = Callable[[Value, Tables], Mismatch | None]


def shown(value: object) -> str:
    """A value as an error shows it: its `repr`, cut short before it is made long."""
    return _cut(_short.repr(value))


_short: Final = Repr()
_short.maxlevel = 4
_short.maxdict = _short.maxlist = 20
_short.maxstring = _short.maxlong = _short.maxother = SHOWN_LENGTH_MAX


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}…"


class Validator(ABC):
    """Accepts some values and refuses all others."""

    nesting: int = 0
    """How many validators are one within the other, besides this."""

    @property
    def kind(self) -> str:
        """The name that clients know it by: "string", "object", …"""
        return str(self.to_json()["type"])

    @property
    def is_optional(self) -> bool:
        """Whether, as a field of an object, it may be absent."""
        return False

    @cached_property
    def mismatch(self) -> Check:
        """
        A function of value and tables that returns what is wrong, or None.

        It takes canonical values, keeps nothing, and raises nothing.
        """
        return self._make_check()

    @property
    def exact(self) -> frozenset[type]:
        """Types of which it accepts every canonical value, so that nobody need call `mismatch`."""
        return frozenset()

    def check(self, value: Value, tables: Tables, path: str = "") -> None:
        """
        Raise unless `value`, which is canonical, is accepted.

        Args:
            tables: the table numbers that `v.id` compares with.
            path: what the error calls the value, as in `.args`.

        Raises:
            InvalidValue: with the path, the offending value and the validator.
        """
        if found := self.mismatch(value, tables):
            raise InvalidValue(found.text(path))

    def compile(self, tables: Tables) -> Callable[[Value], None]:
        """`check` with the tables bound, for whoever checks many values."""
        mismatch = self.mismatch

        def check(value: Value) -> None:
            if found := mismatch(value, tables):
                raise InvalidValue(found.text())

        return check

    @abstractmethod
    def to_json(self) -> Json:
        """The form that clients and stored schemas know."""

    @abstractmethod
    def __str__(self) -> str:
        """The code that makes it."""

    @abstractmethod
    def _make_check(self) -> Check: ...

    def __post_init__(self) -> None:
        parts = [part.nesting for part in self.parts()]
        if parts:
            nesting = 1 + max(parts)
            if nesting > VALIDATOR_NESTING_MAX:
                raise DeclarationError(too_deep())
            object.__setattr__(self, "nesting", nesting)

    def parts(self) -> Iterable[Validator]:
        """The validators directly within this one."""
        return ()

    def walk(self) -> Iterator[Validator]:
        """This validator and all within it."""
        yield self
        for part in self.parts():
            yield from part.walk()


def too_deep() -> str:
    return (
        f"a validator nests more than {VALIDATOR_NESTING_MAX} deep (VALIDATOR_NESTING_MAX), and "
        f"values at most {VALUE_NESTING_MAX}; write v.any() or Any for what is inside"
    )


class _OfTypes(Validator):
    """Accepts every value of some types, and nothing else."""

    def _make_check(self) -> Check:
        exact = self.exact

        def check(value: Value, _tables: Tables) -> Mismatch | None:
            return None if type(value) in exact else Mismatch(self, value)

        return check


@dataclass(frozen=True)
class AnyValue(Validator):
    """Every value."""

    def to_json(self) -> Json:
        return {"type": "any"}

    def __str__(self) -> str:
        return "v.any()"

    def _make_check(self) -> Check:
        return _accept


def _accept(_value: Value, _tables: Tables) -> Mismatch | None:
    return None


@dataclass(frozen=True)
class Null(_OfTypes):
    """`None`."""

    exact = frozenset((type(None),))

    def to_json(self) -> Json:
        return {"type": "null"}

    def __str__(self) -> str:
        return "v.null()"


@dataclass(frozen=True)
class Boolean(_OfTypes):
    """`True` and `False`."""

    exact = frozenset((bool,))

    def to_json(self) -> Json:
        return {"type": "boolean"}

    def __str__(self) -> str:
        return "v.boolean()"


@dataclass(frozen=True)
class Number(_OfTypes):
    """Every float64, NaN and the infinities included."""

    exact = frozenset((int, float))

    def to_json(self) -> Json:
        return {"type": "number"}

    def __str__(self) -> str:
        return "v.number()"


@dataclass(frozen=True)
class Integral(Number):
    """A float64 that is integral and within 2**53: what an argument annotated `int` takes."""

    exact = frozenset((int,))

    def _make_check(self) -> Check:
        # Canonical form has done the work: such a number is an `int`, unless it is -0.0.
        def check(value: Value, _tables: Tables) -> Mismatch | None:
            if type(value) is int:
                return None
            if type(value) is not float:
                return Mismatch(self, value)
            if value == 0:
                return None
            return Mismatch(self, value, "Value is not an integer within 2**53.")

        return check


@dataclass(frozen=True)
class BigInt(_OfTypes):
    """A 64-bit integer, which is another type than the numbers."""

    exact = frozenset((Int64,))

    def to_json(self) -> Json:
        return {"type": "bigint"}

    def __str__(self) -> str:
        return "v.int64()"


@dataclass(frozen=True)
class String(_OfTypes):
    """Text."""

    exact = frozenset((str,))

    def to_json(self) -> Json:
        return {"type": "string"}

    def __str__(self) -> str:
        return "v.string()"


@dataclass(frozen=True)
class Bytes(_OfTypes):
    """Bytes."""

    exact = frozenset((bytes,))

    def to_json(self) -> Json:
        return {"type": "bytes"}

    def __str__(self) -> str:
        return "v.bytes()"


@dataclass(frozen=True)
class IdOf(Validator):
    """
    An id of one table; whether the document exists is not looked at.

    Args:
        name: gives the table's name when it is first needed, because a class
            of documents learns the name of its table from the schema.
    """

    name: Callable[[], str]

    @cached_property
    def table_name(self) -> str:
        """
        The table.

        Raises:
            DeclarationError: the class of the annotation is in no schema.
        """
        return self.name()

    def to_json(self) -> Json:
        return {"type": "id", "tableName": self.table_name}

    def __str__(self) -> str:
        return f'v.id("{self.table_name}")'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdOf) and self.table_name == other.table_name

    def __hash__(self) -> int:
        return hash(self.table_name)

    def _make_check(self) -> Check:
        # The table is asked for with the first value, not here: the schema may come later.
        def check(value: Value, tables: Tables) -> Mismatch | None:
            if type(value) is not str:
                return Mismatch(self, value)
            try:
                prefix = row_key_of(value)[:4]
            except InvalidId as invalid:
                return Mismatch(self, value, f"Value does not match validator: {invalid}.")
            number = tables(self.table_name)
            if number is not None and prefix == number.to_bytes(4, "big"):
                return None
            why = f"Value is the id of a document that is not in table `{self.table_name}`."
            return Mismatch(self, value, why)

        return check


@dataclass(frozen=True, eq=False)
class OwnId(IdOf):
    """The `_id` of documents whose class may be in no schema; then it is any string."""

    def to_json(self) -> Json:
        return super().to_json() if self._is_known else {"type": "string"}

    def __str__(self) -> str:
        return super().__str__() if self._is_known else "v.string()"

    @property
    def _is_known(self) -> bool:
        try:
            return bool(self.table_name)
        except DeclarationError:
            return False

    def _make_check(self) -> Check:
        as_id, as_string = super()._make_check(), String().mismatch

        def check(value: Value, tables: Tables) -> Mismatch | None:
            return (as_id if self._is_known else as_string)(value, tables)

        return check


@dataclass(frozen=True)
class Literal(Validator):
    """One value, of exactly that type."""

    value: Value

    def to_json(self) -> Json:
        return {"type": "literal", "value": to_wire(self.value)}

    def __str__(self) -> str:
        return f"v.literal({self.value!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[type, Value]:
        return type(self.value), self.value

    def _make_check(self) -> Check:
        kind, expected = self._key

        def check(value: Value, _tables: Tables) -> Mismatch | None:
            if type(value) is kind and value == expected:
                return None
            return Mismatch(self, value)

        return check


@dataclass(frozen=True)
class Array(Validator):
    """A list whose items one validator accepts."""

    element: Validator

    def to_json(self) -> Json:
        return {"type": "array", "value": self.element.to_json()}

    def __str__(self) -> str:
        return f"v.array({self.element})"

    def parts(self) -> Iterable[Validator]:
        return (self.element,)

    def _make_check(self) -> Check:
        element, exact = self.element.mismatch, self.element.exact

        def check(value: Value, tables: Tables) -> Mismatch | None:
            if type(value) is not list:
                return Mismatch(self, value)
            for item in value:
                if type(item) not in exact and (found := element(item, tables)):
                    place = next(i for i, one in enumerate(value) if one is item)
                    return found.within(f"[{place}]")
            return None

        return check


@dataclass(frozen=True)
class Record(Validator):
    """An object with any fields: one validator for their names, one for their values."""

    keys: Validator
    values: Validator

    def to_json(self) -> Json:
        return {
            "type": "record",
            "keys": self.keys.to_json(),
            "values": {"fieldType": self.values.to_json(), "optional": False},
        }

    def __str__(self) -> str:
        return f"v.record({self.keys}, {self.values})"

    def parts(self) -> Iterable[Validator]:
        return (self.keys, self.values)

    def _make_check(self) -> Check:
        key_mismatch, value_mismatch = self.keys.mismatch, self.values.mismatch
        exact_keys, exact_values = self.keys.exact, self.values.exact

        def check(value: Value, tables: Tables) -> Mismatch | None:
            if type(value) is not dict:
                return Mismatch(self, value)
            for name, item in value.items():
                if type(name) not in exact_keys and (found := key_mismatch(name, tables)):
                    return found.within(".keys()")
                if type(item) not in exact_values and (found := value_mismatch(item, tables)):
                    return found.within(step_of(name))
            return None

        return check


@dataclass(frozen=True)
class Optional(Validator):
    """A field that may be absent; only objects have such fields."""

    inner: Validator

    @property
    def is_optional(self) -> bool:
        return True

    @property
    def exact(self) -> frozenset[type]:
        return self.inner.exact

    def to_json(self) -> Json:
        return self.inner.to_json()

    def __str__(self) -> str:
        return f"v.optional({self.inner})"

    def parts(self) -> Iterable[Validator]:
        return (self.inner,)

    def _make_check(self) -> Check:
        return self.inner.mismatch


@dataclass(frozen=True)
class Object(Validator):
    """
    An object with these fields and no others.

    `system` names fields that are let through unchecked: documents have two.
    """

    fields: Mapping[str, Validator]
    system: frozenset[str] = field(default=frozenset(), kw_only=True)

    def __hash__(self) -> int:
        return hash((frozenset(self.fields.items()), self.system))

    def pick(self, *names: str) -> Object:
        """Only these fields."""
        return Object({name: self._field(name) for name in names})

    def omit(self, *names: str) -> Object:
        """All fields but these."""
        dropped = {name: self._field(name) for name in names}
        return Object({n: f for n, f in self.fields.items() if n not in dropped})

    def extend(self, fields: Mapping[str, Validator]) -> Object:
        """These fields too; where both have one, the new one."""
        return v.object({**self.fields, **fields})

    def partial(self) -> Object:
        """The same fields, all optional."""
        return Object({name: v.optional(one) for name, one in self.fields.items()})

    def _field(self, name: str) -> Validator:
        if name not in self.fields:
            raise DeclarationError(
                f"{self} has no field `{name}`.{did_you_mean(name, self.fields)}"
            )
        return self.fields[name]

    def to_json(self) -> Json:
        return {
            "type": "object",
            "value": {
                name: {"fieldType": one.to_json(), "optional": one.is_optional}
                for name, one in self.fields.items()
            },
        }

    def __str__(self) -> str:
        fields = ", ".join(f"{json.dumps(name)}: {one}" for name, one in self.fields.items())
        return f"v.object({{{fields}}})"

    def parts(self) -> Iterable[Validator]:
        return self.fields.values()

    def _make_check(self) -> Check:
        fields = tuple((n, f.exact, f.mismatch, f.is_optional) for n, f in self.fields.items())
        system = self.system

        def check(value: Value, tables: Tables) -> Mismatch | None:
            if type(value) is not dict:
                return Mismatch(self, value)
            known = len(value)
            for name, exact, mismatch, is_optional in fields:
                item = value.get(name, _ABSENT)
                if item is not _ABSENT:
                    known -= 1
                    if type(item) not in exact and (found := mismatch(item, tables)):
                        return found.within(step_of(name))
                elif not is_optional:
                    return self._missing(name, value)
            if known:
                for name in system:
                    known -= name in value
                if known:
                    return self._extra(value, system)
            return None

        return check

    def _missing(self, name: str, value: Mapping[str, Value]) -> Mismatch:
        why = f"Object is missing the required field `{name}`."
        wrong = [n for n in value if n not in self.fields and n not in self.system]
        if near := nearest(name, wrong):
            why += f" It has `{near}`, which the validator does not know."
        return Mismatch(self, value, why)

    def _extra(self, value: Mapping[str, Value], system: frozenset[str]) -> Mismatch | None:
        extra = next((n for n in value if n not in self.fields and n not in system), None)
        if extra is None:
            return None
        unused = [name for name in self.fields if name not in value]
        near = did_you_mean(extra, unused or self.fields)
        return Mismatch(
            self,
            value,
            f"Object contains extra field `{extra}` that is not in the validator.{near}",
        )


@dataclass(frozen=True)
class Union(Validator):
    """What any of its members accepts; a union of none accepts nothing."""

    members: tuple[Validator, ...]

    def to_json(self) -> Json:
        return {"type": "union", "value": [member.to_json() for member in self.members]}

    def __str__(self) -> str:
        return f"v.union({', '.join(map(str, self.members))})"

    def parts(self) -> Iterable[Validator]:
        return self.members

    @property
    def exact(self) -> frozenset[type]:
        return frozenset().union(*(member.exact for member in self.members))

    def _make_check(self) -> Check:
        if all(isinstance(member, Literal) for member in self.members):
            return self._make_lookup()
        checks = tuple(member.mismatch for member in self.members)

        def check(value: Value, tables: Tables) -> Mismatch | None:
            for mismatch in checks:
                if mismatch(value, tables) is None:
                    return None
            return self._refusal(value, tables)

        return check

    def _make_lookup(self) -> Check:
        """The check of a union of literals, however many they are."""
        known = {member._key for member in self.members if isinstance(member, Literal)}
        kinds = {kind for kind, _ in known}

        def check(value: Value, _tables: Tables) -> Mismatch | None:
            kind = type(value)
            return None if kind in kinds and (kind, value) in known else Mismatch(self, value)

        return check

    def _refusal(self, value: Value, tables: Tables) -> Mismatch:
        """The member's own complaint where only one could have been meant."""
        meant = [m for m in self.members if not isinstance(m, Null)]
        if len(meant) == 1 and (found := meant[0].mismatch(value, tables)):
            is_within = isinstance(meant[0], (Object, Array, Record))
            if found.why or (is_within and found.validator is not meant[0]):
                return found
        return Mismatch(self, value)


_ABSENT: Final = object()

NAMES_COMPARED_MAX: Final = 100
"""Comparing names takes its time, and a caller may send a thousand of them."""


@lru_cache(1024)
def step_of(name: str) -> str:
    """One step of a path into an object."""
    return f".{name}" if name.isidentifier() else f"[{name!r}]"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ " Did you mean `x`?" for the name that is nearest, or nothing if none is near."""
    near = nearest(name, known)
    return f" Did you mean `{near}`?" if near else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is most like `name`; of many or long ones, not all are looked at."""
    candidates = [one for one in islice(known, NAMES_COMPARED_MAX) if _is_short(one)]
    near = get_close_matches(name, candidates, n=1) if _is_short(name) else []
    return near[0] if near else None


def _is_short(name: str) -> bool:
    return len(name) <= IDENTIFIER_LENGTH_MAX


class Validators:
    """The constructors of all validators; `v` is the one instance."""

    def any(self) -> AnyValue:
        """Every value."""
        return AnyValue()

    def null(self) -> Null:
        """`None`."""
        return Null()

    def boolean(self) -> Boolean:
        """`True` or `False`."""
        return Boolean()

    def number(self) -> Number:
        """A float64: `int` or `float` in Python."""
        return Number()

    def float64(self) -> Number:
        """The same as `number`."""
        return Number()

    def int64(self) -> BigInt:
        """A 64-bit integer: `Int64` in Python, `bigint` in JavaScript."""
        return BigInt()

    def bigint(self) -> BigInt:
        """The same as `int64`."""
        return BigInt()

    def commit_ts(self) -> BigInt:
        """The same as `int64`, for a field that is `ctx.db.vars.commit_ts`."""
        return BigInt()

    def string(self) -> String:
        """Text."""
        return String()

    def bytes(self) -> Bytes:
        """Bytes; an `ArrayBuffer` in JavaScript."""
        return Bytes()

    def id(self, table_name: str, /) -> IdOf:
        """An id of a table."""
        check_identifier(table_name, "a table")
        return IdOf(_Constant(table_name))

    def literal(self, value: Value, /) -> Literal:
        """Exactly this string, number, `Int64` or boolean."""
        plain = normalize(value)
        if not isinstance(plain, (str, bool, int, float)):
            raise DeclarationError(f"v.literal({value!r}): literals are strings, numbers, booleans")
        return Literal(plain)

    def array(self, element: Validator, /) -> Array:
        """A list of what `element` accepts."""
        return Array(_inner(element, "v.array"))

    def record(self, keys: Validator, values: Validator, /) -> Record:
        """An object with any field names that `keys` accepts: strings, or ids."""
        _inner(keys, "v.record")
        for key in keys.walk():
            if not isinstance(key, (String, IdOf, Union)):
                raise DeclarationError(
                    f"v.record({keys}, …): keys are v.string(), v.id(…) or a union of them; "
                    "for known names write v.object"
                )
        return Record(keys, _inner(values, "v.record"))

    def object(self, fields: Mapping[str, Validator], /) -> Object:
        """An object with exactly these fields; `v.optional` ones may be absent."""
        for name, one in fields.items():
            try:
                check_field_name(name)
            except Refusal as refusal:
                raise DeclarationError(f"v.object: {name!r}: {refusal.why}") from None
            if not isinstance(one, Validator):
                raise DeclarationError(f"v.object: field `{name}` is {one!r}; write a validator")
        return Object(dict(fields))

    def union(self, *members: Validator) -> Validator:
        """What any of the members accepts."""
        return Union(tuple(_inner(member, "v.union") for member in members))

    def optional(self, inner: Validator, /) -> Validator:
        """A field of an object that may be absent, which is not the same as null."""
        return inner if isinstance(inner, Optional) else Optional(_inner(inner, "v.optional"))

    def nullable(self, inner: Validator, /) -> Validator:
        """`inner` or null."""
        return self.union(_inner(inner, "v.nullable"), self.null())


v: Final = Validators()


@dataclass(frozen=True)
class _Constant:
    """A table's name that is known from the start."""

    name: str

    def __call__(self) -> str:
        return self.name


def _inner(validator: object, where: str) -> Validator:
    if not isinstance(validator, Validator):
        raise DeclarationError(
            f"{where}({validator!r}): not a validator; write v.string() and so on"
        )
    if validator.is_optional:
        raise DeclarationError(
            f"{where}: only a field of an object can be optional; use v.nullable"
        )
    return validator


def check_identifier(name: str, what: str) -> str:
    """
    `name`, which is to be the name of `what`: "a table", "an index" and so on.

    Raises:
        DeclarationError: it is not letters, digits and underscores, at most 64 of them, or
            begins with a digit.
    """
    if not is_identifier(name):
        raise DeclarationError(why_no_identifier(name, what))
    return name
