"""
What an annotation means: a validator, and the way between plain values and Python objects.

`shape_of` reads one annotation.  A shape's validator says which values there
may be; `load` turns such a value into what the handler is promised (a float, an
enum member, an instance), and `dump` turns that back into what a document can
hold.  Annotations that no value can honour are refused with what to write
instead.
"""

from __future__ import annotations

import collections.abc as abc
import datetime
import decimal
import enum
import pathlib
import sys
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NoReturn, TypeAlias

from engine.app.bounds import bounded
from engine.app.documents import table_name_of
from engine.app.generated import Generated
from engine.app.structures import Annotation, Field, fields_of, is_typed_dict, typed_dict_fields
from engine.app.types import PaginationOptions, SecretMark, UserIdentity
from engine.app.validators import (
    Array,
    BigInt,
    IdOf,
    Integral,
    Number,
    Object,
    Optional,
    OwnId,
    Record,
    Tables,
    Union,
    Validator,
    shown,
    too_deep,
    v,
)
from engine.errors import DeclarationError, InvalidValue, UsageError
from engine.model.ids import Id
from engine.model.limits import VALIDATOR_NESTING_MAX
from engine.model.values import INT64_MAX, INT64_MIN, Int64, Undefined, Value, normalize

Loaded: TypeAlias = Any
"""What a handler holds: a value, or an instance of one of the application's classes."""
Load: TypeAlias = Callable[[Value, Tables], Loaded]
Dump: TypeAlias = Callable[[Loaded], Loaded]


class Unsupported(Exception):
    """An annotation that no value can honour; says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One annotation, understood.  Without `load` or `dump`, values are handed over as they are."""

    validator: Validator
    load: Load | None = None
    dump: Dump | None = None
    may_be_absent: bool = False
    """`T | Undefined`, or `NotRequired[T]` in a TypedDict."""
    must_be_there: bool = False
    """`Required[T]` in a TypedDict."""
    is_secret: bool = False
    """`Secret[T]`, or something with one in it: it is recorded as a whole or not at all."""
    wire: str | None = None
    """What an argument of this type is called on the wire, whatever its Python name."""
    annotation: Annotation = None
    """Of what a type variable stands for: `Id` of it is one of that class's table."""


def _nothing_is(_one: object) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where names in an annotation are looked up."""

    names: Mapping[str, Any]
    local: Mapping[str, Any] = field(default_factory=dict)
    """Names around something that is defined in a function."""
    is_hidden: Callable[[object], bool] = _nothing_is
    """Of globals, those that are not meant: a query called `list` is not the builtin."""
    parameters: Mapping[object, Shape] = field(default_factory=dict)
    """What the type variables of a generic class stand for."""
    within: tuple[type, ...] = ()
    """Classes being read, to notice one that contains itself."""
    nesting: int = 0
    """How many annotations are around the one that is being read."""

    @staticmethod
    def of_frame(frame: types.FrameType) -> Scope:
        """What is visible to code that is running right now."""
        if frame.f_locals is frame.f_globals:
            return Scope(names=frame.f_globals)
        return Scope(names=frame.f_globals, local=dict(frame.f_locals))

    def evaluate(self, text: str) -> Annotation:
        """
        The annotation that `text` spells.

        Raises:
            Unsupported: a name is not known, or is not what it seems.
        """
        visible = {name: one for name, one in self.names.items() if not self.is_hidden(one)}
        try:
            return eval(text, visible, {**self.local})
        except Exception as error:
            raise Unsupported(
                f"`{text}` cannot be evaluated ({type(error).__name__}: {error}); "
                "import what it names at the top of the module, not under TYPE_CHECKING"
            ) from error

    def deeper(self) -> Scope:
        """
        The same within one more annotation.

        Raises:
            Unsupported: there are too many around it.
        """
        if self.nesting == VALIDATOR_NESTING_MAX:
            raise Unsupported(too_deep())
        return replace(self, nesting=self.nesting + 1)

    def of_class(self, cls: type, parameters: Mapping[object, Shape]) -> Scope:
        """The scope in which the annotations of `cls` were written."""
        if cls in self.within:
            raise Unsupported(
                f"`{cls.__name__}` contains itself, which no validator can say; write Any there"
            )
        return replace(
            self.of_module(cls.__module__).deeper(),
            local={**self.local, cls.__name__: cls},
            parameters={**_inherited_parameters(cls, self), **parameters},
            within=(*self.within, cls),
        )

    def of_module(self, name: str) -> Scope:
        """The same with the globals of another module."""
        if name == self.names.get("__name__"):
            return self
        module = sys.modules.get(name)
        return replace(self, names=vars(module)) if module else self


def _inherited_parameters(cls: type, scope: Scope) -> dict[object, Shape]:
    """What the bases of `cls` had their type variables replaced with."""
    known: dict[object, Shape] = {}
    for base in getattr(cls, "__orig_bases__", ()):
        names = getattr(typing.get_origin(base), "__parameters__", ())
        for name, argument in zip(names, typing.get_args(base), strict=False):
            if not isinstance(argument, typing.TypeVar):
                known[name] = replace(shape_of(argument, scope), annotation=argument)
    return known


def shape_of(annotation: Annotation, scope: Scope) -> Shape:
    """
    What `annotation` means.

    Raises:
        Unsupported: no value can honour it; the text says what to write instead.
    """
    if isinstance(annotation, str):
        return shape_of(scope.evaluate(annotation), scope)
    if isinstance(annotation, typing.ForwardRef):
        return _of_forward(annotation, scope)
    if isinstance(annotation, Validator):
        return shape_of_validator(annotation)
    if (origin := typing.get_origin(annotation)) is not None:
        return _of_generic(annotation, origin, scope)
    if isinstance(annotation, typing.TypeVar):
        return _of_type_variable(annotation, scope)
    if (supertype := getattr(annotation, "__supertype__", None)) is not None:
        return shape_of(supertype, scope)  # NewType
    if _is_alias(annotation):
        return shape_of(annotation.__value__, scope)
    return _of_plain(annotation, scope)


def _of_forward(reference: typing.ForwardRef, scope: Scope) -> Shape:
    module = reference.__forward_module__
    if module is not None:
        scope = scope.of_module(module if isinstance(module, str) else module.__name__)
    return shape_of(scope.evaluate(reference.__forward_arg__), scope)


def _of_type_variable(variable: typing.TypeVar, scope: Scope) -> Shape:
    if variable in scope.parameters:
        return scope.parameters[variable]
    raise Unsupported(f"a TypeVar ({variable}) says nothing of values; write the type, or Any")


# Names.


def _of_plain(annotation: Annotation, scope: Scope) -> Shape:
    try:
        if (known := _PLAIN.get(annotation)) is not None:
            return known
    except TypeError:
        pass  # unhashable, so it is none of them
    if not isinstance(annotation, type):
        _refuse(annotation)
    if issubclass(annotation, enum.Enum) and annotation is not Undefined:
        return _of_enum(annotation)
    if issubclass(annotation, Generated):
        return _of_generated(annotation)
    return _of_structure(annotation, scope, {})


def _of_generated(name: type[Generated]) -> Shape:
    validator = name.validator()
    if validator is None:
        raise Unsupported(
            f"`{name.__name__}` of _generated.data_model is of no table that the schema has; "
            "`headrace codegen` writes which names there are"
        )
    return shape_of_validator(validator)


def _as_float(value: Value, _tables: Tables) -> float:
    return float(value)


def _as_int(value: Value, _tables: Tables) -> int:
    return int(value)  # -0.0 is the one that is not already


def _to_int64(value: Loaded) -> Loaded:
    """An `int` as `Int64`; one that is too large is refused later, with its path."""
    return Int64(value) if type(value) is int and INT64_MIN <= value <= INT64_MAX else value


_ANY: Final = Shape(validator=v.any())
_PLAIN: Final[dict[Any, Shape]] = {
    Any: _ANY,
    object: _ANY,
    None: Shape(validator=v.null()),
    type(None): Shape(validator=v.null()),
    bool: Shape(validator=v.boolean()),
    int: Shape(validator=Integral(), load=_as_int),
    float: Shape(validator=v.number(), load=_as_float),
    Int64: Shape(validator=v.int64(), dump=_to_int64),
    str: Shape(validator=v.string()),
    bytes: Shape(validator=v.bytes()),
    Id: Shape(validator=v.string()),
    list: Shape(validator=v.array(v.any())),
    dict: Shape(validator=v.record(v.string(), v.any())),
    abc.Sequence: Shape(validator=v.array(v.any())),
    abc.Mapping: Shape(validator=v.record(v.string(), v.any())),
    UserIdentity: Shape(validator=v.record(v.string(), v.any())),
    # Tokens bring claims of their own, so the TypedDict names only some of its fields.
}

_INSTEAD: Final[dict[Any, str]] = {
    datetime.datetime: "float, milliseconds since 1970: `when.timestamp() * 1000`",
    datetime.date: "str, as `day.isoformat()` gives it",
    datetime.time: "str, as `time.isoformat()` gives it",
    datetime.timedelta: "float, in milliseconds",
    decimal.Decimal: "str, or Int64 of the smallest unit",
    uuid.UUID: "str",
    pathlib.Path: "str",
    complex: "list[float]",
    bytearray: "bytes",
    memoryview: "bytes",
    set: "list[...]",
    frozenset: "list[...]",
    tuple: "list[...], or a TypedDict where the places differ",
    type: "str",
    Undefined: "`T | Undefined` with `= UNDEFINED`",
    typing.Callable: "str, the path of a function",
    abc.Callable: "str, the path of a function",
    abc.Iterator: "list[...]; for one page after another, PaginationOptions and paginate()",
    abc.AsyncIterator: "list[...]; for one page after another, PaginationOptions and paginate()",
    str: "str, or a NewType of it",
    int: "int, or a NewType of it",
    float: "float, or a NewType of it",
    bytes: "bytes",
    dict: "dict[str, ...] or a TypedDict",
    list: "list[...]",
}


def _refuse(annotation: Annotation) -> NoReturn:
    name = _spelled(annotation)
    for base in getattr(annotation, "__mro__", (annotation,)):
        if instead := _INSTEAD.get(base):
            raise Unsupported(f"`{name}` is no type of value; write {instead}")
    if isinstance(annotation, type):
        raise Unsupported(f"`{name}` is no type of value; write a TypedDict or make it a dataclass")
    raise Unsupported(
        f"`{name}` is no annotation; if something in this module hides a builtin, rename it "
        'and publish it with @query(name="...")'
    )


def _spelled(annotation: Annotation) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


# Brackets.


def _of_generic(annotation: Annotation, origin: Annotation, scope: Scope) -> Shape:
    scope = scope.deeper()
    args = typing.get_args(annotation)
    if origin is _ANNOTATED:
        return _of_annotated(args[0], args[1:], scope)
    if origin in _UNIONS:
        members = [shape_of(arg, scope) for arg in args if not _is_absence(arg)]
        return _of_union(members, may_be_absent=len(members) < len(args))
    if origin is Literal:
        return _of_literals(args)
    if origin is Id:
        return Shape(validator=_id_of(args[0], scope))
    if origin in _SEQUENCES:
        return _of_array(shape_of(args[0], scope), list)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return _of_array(shape_of(args[0], scope), tuple)
    if origin in _MAPPINGS:
        return _of_record(shape_of(args[0], scope), shape_of(args[1], scope))
    if (qualifier := getattr(origin, "_name", None)) in _QUALIFIERS:
        return _of_qualified(str(qualifier), shape_of(args[0], scope))
    return _of_parametrised(origin, args, scope)


def _of_parametrised(origin: Annotation, args: Sequence[Annotation], scope: Scope) -> Shape:
    """A generic class or alias with its parameters."""
    parameters = getattr(origin, "__parameters__", ())
    known = {
        parameter: replace(shape_of(argument, scope), annotation=argument)
        for parameter, argument in zip(parameters, args, strict=False)
    }
    if _is_alias(origin):
        return shape_of(origin.__value__, replace(scope, parameters=known))
    return _of_structure(origin, scope, known) if known else _refuse(origin)


def _is_alias(annotation: Annotation) -> bool:
    """Whether it was made by a `type` statement, or by what typing_extensions has for it."""
    return type(annotation).__name__ == "TypeAliasType"


_ANNOTATED: Final[object] = typing.Annotated
_UNIONS: Final[tuple[object, ...]] = (typing.Union, types.UnionType)
_SEQUENCES: Final = (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable)
_MAPPINGS: Final = (dict, abc.Mapping, abc.MutableMapping)
_QUALIFIERS: Final = ("NotRequired", "Required", "ReadOnly", "Final")


def _of_annotated(inner: Annotation, metadata: Sequence[object], scope: Scope) -> Shape:
    shape = shape_of(inner, scope)
    secret = any(isinstance(one, SecretMark) for one in metadata)
    try:
        validator = bounded(shape.validator, metadata)
    except InvalidValue as refused:
        raise Unsupported(str(refused)) from None
    return replace(shape, validator=validator, is_secret=shape.is_secret or secret)


def _of_qualified(qualifier: str, shape: Shape) -> Shape:
    return replace(
        shape,
        may_be_absent=shape.may_be_absent or qualifier == "NotRequired",
        must_be_there=shape.must_be_there or qualifier == "Required",
    )


def _is_absence(annotation: Annotation) -> bool:
    """`Undefined`, and what msgspec calls the same."""
    return annotation is Undefined or getattr(annotation, "__name__", "") == "UnsetType"


def _id_of(table: Annotation, scope: Scope) -> Validator:
    if isinstance(table, typing.ForwardRef):
        return _id_of(Literal[table.__forward_arg__], scope)
    if table is Any:
        return v.string()
    origin: Annotation = typing.get_origin(table)
    if origin is Literal:
        (name,) = typing.get_args(table)
        named = scope.local.get(name, scope.names.get(name))
        return IdOf(_Table(named)) if is_document(named) else v.id(name)
    if isinstance(table, typing.TypeVar) and table in scope.parameters:
        return _id_of(scope.parameters[table].annotation, scope)
    if not isinstance(table, type):
        raise Unsupported(f"Id[{_spelled(table)}]: write the class of a table's documents")
    return IdOf(_Table(table))


def is_document(cls: object) -> bool:
    """Whether `cls` is a class that a table can be declared with."""
    return isinstance(cls, type) and (is_typed_dict(cls) or fields_of(cls) is not None)


@dataclass(frozen=True, slots=True)
class _Table:
    """The name of a class's table, asked for when there is a schema."""

    document: type

    def __call__(self) -> str:
        return table_name_of(self.document)


def _of_array(element: Shape, kind: type[list[Any]] | type[tuple[Any, ...]]) -> Shape:
    dump = None if element.dump is None else _each(element.dump)
    shape = Shape(validator=v.array(element.validator), dump=dump, is_secret=element.is_secret)
    item_load = element.load
    if item_load is None:
        return shape if kind is list else replace(shape, load=lambda value, _tables: kind(value))

    def load(value: Value, tables: Tables) -> Loaded:
        return kind([item_load(item, tables) for item in value])

    return replace(shape, load=load)


def _each(dump: Dump) -> Dump:
    def dump_items(value: Loaded) -> Loaded:
        if isinstance(value, abc.Sequence) and not isinstance(value, (str, bytes)):
            return [dump(item) for item in value]
        return value

    return dump_items


def _of_record(keys: Shape, values: Shape) -> Shape:
    try:
        validator = v.record(keys.validator, values.validator)
    except DeclarationError as refused:
        raise Unsupported(str(refused)) from None
    shape = Shape(
        validator=validator,
        dump=_each_value(values.dump),
        is_secret=keys.is_secret or values.is_secret,
    )
    item_load = values.load
    if item_load is None:
        return shape

    def load(value: Value, tables: Tables) -> Loaded:
        return {name: item_load(item, tables) for name, item in value.items()}

    return replace(shape, load=load)


def _each_value(item_dump: Dump | None) -> Dump | None:
    if item_dump is None:
        return None

    def dump(value: Loaded) -> Loaded:
        if not isinstance(value, Mapping):
            return value
        return {name: item_dump(item) for name, item in value.items()}

    return dump


# Choices.


def _of_literals(args: Sequence[object]) -> Shape:
    members = [one for one in args if isinstance(one, enum.Enum)]
    return _of_choices([*args], {_key(m.value): m for m in members})


def _of_enum(cls: type[enum.Enum]) -> Shape:
    return _of_choices(list(cls), {_key(member.value): member for member in cls})


def _of_choices(choices: Sequence[object], members: Mapping[object, enum.Enum]) -> Shape:
    try:
        literals = [v.null() if one is None else v.literal(one) for one in choices]
    except UsageError as refused:
        raise Unsupported(str(refused)) from None
    validator = literals[0] if len(literals) == 1 else v.union(*literals)

    def load(value: Value, _tables: Tables) -> Loaded:
        return members.get((type(value), value), value)

    return Shape(validator=validator, load=load if members else None)


def _key(value: object) -> object:
    try:
        plain = normalize(value)
    except InvalidValue as refused:
        raise Unsupported(str(refused)) from None
    return type(plain), plain if plain.__hash__ else repr(plain)


def _of_union(members: Sequence[Shape], *, may_be_absent: bool) -> Shape:
    """Any of `members`; a value is loaded by the first of them that accepts it."""
    is_secret = any(m.is_secret for m in members)
    members = _one_number(members)
    if not members:
        raise Unsupported("`Undefined` alone is no type of value; write `T | Undefined`")
    may_be_absent = may_be_absent or any(m.may_be_absent for m in members)
    if len(members) == 1:
        return replace(members[0], may_be_absent=may_be_absent, is_secret=is_secret)
    return Shape(
        validator=v.union(*(m.validator for m in members)),
        load=_first_that_accepts(members),
        dump=_all_in_turn(members),
        may_be_absent=may_be_absent,
        is_secret=is_secret,
        wire=next((m.wire for m in members if m.wire), None),
    )


def _one_number(members: Sequence[Shape]) -> Sequence[Shape]:
    """`int | float` is one type on the wire, and neither of them to be preferred."""
    kinds = [type(m.validator) for m in members]
    if Number not in kinds or Integral not in kinds:
        return members
    return [
        replace(m, load=None) if type(m.validator) is Number else m
        for m in members
        if type(m.validator) is not Integral
    ]


def _first_that_accepts(members: Sequence[Shape]) -> Load | None:
    if all(m.load is None for m in members):
        return None
    choices = tuple((m.validator.mismatch, m.load) for m in members)

    def load(value: Value, tables: Tables) -> Loaded:
        for mismatch, member_load in choices:
            if mismatch(value, tables) is None:
                return value if member_load is None else member_load(value, tables)
        raise AssertionError("a value is loaded only after its validator accepted it")

    return load


def _all_in_turn(members: Sequence[Shape]) -> Dump | None:
    """Dumps leave alone what is not theirs, so they can be tried one after another."""
    takes_numbers = any(isinstance(m.validator, Number) for m in members)
    dumps = [
        m.dump
        for m in members
        if m.dump is not None and not (takes_numbers and isinstance(m.validator, BigInt))
    ]
    if not dumps:
        return None

    def dump(value: Loaded) -> Loaded:
        for one in dumps:
            value = one(value)
        return value

    return dump


# Classes with fields.


def _of_structure(cls: type, scope: Scope, parameters: Mapping[object, Shape]) -> Shape:
    if is_typed_dict(cls):
        return _of_typed_dict(cls, scope, parameters)
    fields = fields_of(cls)
    return _refuse(cls) if fields is None else _of_class(cls, fields, scope, parameters)


_Member: TypeAlias = tuple[Field, Shape, bool]
"""A field, what its annotation means, and whether it may be absent."""


def _members_of(
    cls: type, fields: Sequence[Field], scope: Scope, parameters: Mapping[object, Shape]
) -> list[_Member]:
    inner = scope.of_class(cls, parameters)
    members = []
    for one in fields:
        try:
            shape = shape_of(one.annotation, inner.of_module(one.owner.__module__))
        except Unsupported as refused:
            raise Unsupported(f"{cls.__qualname__}.{one.name}: {refused}") from None
        absent = shape.may_be_absent or not (one.required or shape.must_be_there)
        members.append((one, shape, absent))
    return members


def _object_of(members: Sequence[_Member]) -> Validator:
    return v.object(
        {
            one.wire: v.optional(shape.validator) if absent else shape.validator
            for one, shape, absent in members
        }
    )


def _of_typed_dict(cls: type, scope: Scope, parameters: Mapping[object, Shape]) -> Shape:
    members = _members_of(cls, typed_dict_fields(cls), scope, parameters)
    loads = tuple((one.wire, shape.load) for one, shape, _ in members if shape.load)
    dumps = tuple((one.wire, shape.dump) for one, shape, _ in members if shape.dump)
    validator = _object_of([_with_own_id(cls, member) for member in members])

    def load(value: Value, tables: Tables) -> Loaded:
        loaded = dict(value)
        for name, field_load in loads:
            if name in loaded:
                loaded[name] = field_load(loaded[name], tables)
        return loaded

    def dump(value: Loaded) -> Loaded:
        if not isinstance(value, Mapping):
            return value
        plain = dict(value)
        for name, field_dump in dumps:
            if name in plain:
                plain[name] = field_dump(plain[name])
        return plain

    return Shape(
        validator=validator,
        load=load if loads else None,
        dump=dump if dumps else None,
        is_secret=_any_is_secret(members),
        wire="paginationOpts" if cls is PaginationOptions else None,
    )


def _with_own_id(cls: type, member: _Member) -> _Member:
    """`Document` says `Id[Any]`; in a class of its own it is an id of that class's table."""
    one, shape, absent = member
    if one.wire != "_id" or type(shape.validator) is not type(v.string()):
        return member
    return one, replace(shape, validator=OwnId(_Table(cls))), absent


def _of_class(
    cls: type, fields: Sequence[Field], scope: Scope, parameters: Mapping[object, Shape]
) -> Shape:
    members = _members_of(cls, fields, scope, parameters)
    plan = tuple((one, shape.load, shape.dump) for one, shape, _ in members)

    def load(value: Value, tables: Tables) -> Loaded:
        given = {
            one.init: value[one.wire] if field_load is None else field_load(value[one.wire], tables)
            for one, field_load, _ in plan
            if one.wire in value
        }
        try:
            return cls(**given)
        except (ValueError, TypeError) as error:
            raise InvalidValue(f"{error}\nValue: {shown(value)}") from error

    def dump(value: Loaded) -> Loaded:
        if not isinstance(value, cls):
            return value
        plain = {}
        for one, _, field_dump in plan:
            item = getattr(value, one.name)
            if not _is_absence(type(item)):
                plain[one.wire] = item if field_dump is None else field_dump(item)
        return plain

    return Shape(
        validator=_object_of(members), load=load, dump=dump, is_secret=_any_is_secret(members)
    )


def _any_is_secret(members: Sequence[_Member]) -> bool:
    return any(shape.is_secret for _, shape, _ in members)


# Validators.


def shape_of_validator(validator: Validator) -> Shape:
    """A validator written out; where it says int64, an `int` becomes `Int64` on its way."""
    return Shape(
        validator=validator.inner if isinstance(validator, Optional) else validator,
        dump=_dump_of(validator),
        may_be_absent=validator.is_optional,
        wire=_PAGINATION.wire if validator is pagination_opts_validator else None,
    )


_PAGINATION: Final = shape_of(PaginationOptions, Scope(names={}))
pagination_opts_validator: Final = _PAGINATION.validator
"""The options of a paginated query, for `args={"paginationOpts": pagination_opts_validator}`."""


def _dump_of(validator: Validator) -> Dump | None:
    match validator:
        case BigInt():
            return _to_int64
        case Optional(inner=inner):
            return _dump_of(inner)
        case Array(element=element):
            item_dump = _dump_of(element)
            return None if item_dump is None else _each(item_dump)
        case Record(values=values):
            return _each_value(_dump_of(values))
        case Object(fields=fields):
            return _dump_fields(fields)
        case Union(members=members):
            return _all_in_turn([shape_of_validator(member) for member in members])
    return None


def _dump_fields(fields: Mapping[str, Validator]) -> Dump | None:
    dumps = {name: dump for name, one in fields.items() if (dump := _dump_of(one))}
    if not dumps:
        return None

    def dump_known(value: Loaded) -> Loaded:
        if not isinstance(value, Mapping):
            return value
        return {n: dumps[n](item) if n in dumps else item for n, item in value.items()}

    return dump_known
