"""
Classes with fields, told alike: TypedDict, dataclass, attrs, msgspec and pydantic.

What a class calls itself is all that is looked at, so none of these libraries
is imported here, and none has to be installed.
"""

from __future__ import annotations

import dataclasses
import inspect
import keyword
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Annotation: TypeAlias = Any
"""What stands behind a colon or an arrow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """
    One field of a class.

    `name` is its attribute, `init` what the constructor calls it, `wire` what
    the world does.  `owner` is the class whose module its annotation was
    written in.
    """

    name: str
    init: str
    wire: str
    annotation: Annotation
    required: bool
    owner: type


def wire_name(name: str) -> str:
    """`class_` and `from_` lose their underscore: what Python reserves, the wire does not."""
    bare = name.removesuffix("_")
    return bare if bare != name and keyword.iskeyword(bare) else name


def is_typed_dict(cls: object) -> bool:
    """Whether `cls` is a TypedDict, of typing or of typing_extensions."""
    return isinstance(cls, type) and issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def fields_of(cls: type) -> tuple[Field, ...] | None:
    """The fields of a class of a known kind that is no TypedDict; None for other classes."""
    read = _reader(cls)
    return None if read is None else tuple(read(cls))


def typed_dict_fields(cls: type) -> tuple[Field, ...]:
    """
    The fields of a TypedDict.

    `required` is what the class was told; an annotation may still say
    `NotRequired` or `Required`, which only shows once it is evaluated.
    """
    required = cls.__required_keys__  # type: ignore[attr-defined]
    return tuple(
        Field(name=n, init=n, wire=n, annotation=a, required=n in required, owner=cls)
        for n, a in cls.__annotations__.items()
    )


def _reader(cls: type) -> Callable[[Any], Iterator[Field]] | None:
    if hasattr(cls, "__struct_fields__"):
        return _msgspec_fields
    if hasattr(cls, "__attrs_attrs__"):
        return _attrs_fields
    if isinstance(getattr(cls, "model_fields", None), Mapping) and hasattr(cls, "model_validate"):
        return _pydantic_fields
    if dataclasses.is_dataclass(cls):
        return _dataclass_fields
    return None


def _dataclass_fields(cls: Annotation) -> Iterator[Field]:
    for one in dataclasses.fields(cls):
        if one.init:
            missing = one.default is dataclasses.MISSING
            yield _field(
                cls, one.name, required=missing and one.default_factory is dataclasses.MISSING
            )


def _attrs_fields(cls: Annotation) -> Iterator[Field]:
    nothing = sys.modules["attr"].NOTHING
    for one in cls.__attrs_attrs__:
        if one.init:
            yield _field(cls, one.name, init=one.alias, required=one.default is nothing)


def _msgspec_fields(cls: Annotation) -> Iterator[Field]:
    nothing = sys.modules["msgspec"].NODEFAULT
    names = cls.__struct_fields__
    defaults = cls.__struct_defaults__
    absent = (nothing,) * (len(names) - len(defaults))
    described = zip(names, cls.__struct_encode_fields__, (*absent, *defaults), strict=True)
    for name, encoded, default in described:
        wire = wire_name(name) if encoded == name else encoded
        yield _field(cls, name, wire=wire, required=default is nothing)


def _pydantic_fields(cls: Annotation) -> Iterator[Field]:
    for name, info in cls.model_fields.items():
        wire = info.alias or wire_name(name)
        yield Field(
            name=name,
            init=info.alias or name,
            wire=wire,
            annotation=_with_metadata(info.annotation, info.metadata),
            required=info.is_required(),
            owner=cls,
        )


def _with_metadata(annotation: Annotation, metadata: Iterable[object]) -> Annotation:
    """pydantic keeps an annotation and its bounds apart."""
    for one in metadata:
        annotation = typing.Annotated[annotation, one]
    return annotation


def _field(
    cls: type, name: str, *, required: bool, init: str | None = None, wire: str | None = None
) -> Field:
    owner = next(base for base in cls.__mro__ if name in inspect.get_annotations(base))
    return Field(
        name=name,
        init=init or name,
        wire=wire or wire_name(init or name),
        annotation=inspect.get_annotations(owner)[name],
        required=required,
        owner=owner,
    )
