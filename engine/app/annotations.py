"""
The signature of a registered function: how its arguments and its result cross the boundary.

    signature.bind(("general",), {"body": "hi"})   a call in Python  -> arguments on the wire
    signature.load(raw, tables)                    those             -> keyword arguments
    signature.dump(result, tables)                 what was returned -> a value

The annotations of the handler say what is accepted; `args=` and `returns=`
override them.  What they cannot mean is refused when the module loads.
"""

from __future__ import annotations

import copy
import enum
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias, get_args, get_origin

from engine.app.shapes import (
    Dump,
    Load,
    Loaded,
    Scope,
    Shape,
    Unsupported,
    shape_of,
    shape_of_validator,
)
from engine.app.structures import Annotation, is_typed_dict, typed_dict_fields, wire_name
from engine.app.validators import (
    AnyValue,
    Check,
    IdOf,
    Mismatch,
    Object,
    Tables,
    Validator,
    did_you_mean,
    step_of,
    v,
)
from engine.errors import (
    ArgumentValidationError,
    DeclarationError,
    InvalidValue,
    ReturnsValidationError,
)
from engine.model.values import UNDEFINED, Value, copied, normalize

Handler: TypeAlias = Callable[..., Any]
Recipient: TypeAlias = Literal[
    "a query", "a mutation", "an action", "an action that is a plain `def`", "a trigger"
]
"""Who is given a context; each class of contexts says whom it is for, as `_recipient`."""

CONTEXTS: Final[Mapping[Recipient, str]] = {
    "a query": "QueryCtx",
    "a mutation": "MutationCtx",
    "an action": "ActionCtx",
    "an action that is a plain `def`": "BlockingActionCtx",
    "a trigger": "TriggerCtx",
}
Fields: TypeAlias = Mapping[str, Annotation]
"""`args=`: names on the wire, and validators or annotations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument: what the handler calls it, what the wire does, and what it may be."""

    name: str
    wire: str
    shape: Shape
    required: bool
    by_place: bool = False
    """Whether a call in Python may give it without its name."""
    default: Loaded = None


_Step: TypeAlias = tuple[str, str, frozenset[type], Check, Load | None, bool, Loaded]
"""
Name, wire name, types accepted unseen, check, load, whether it is required, and a default to
copy (or `_ABSENT`).
"""

_ABSENT: Final = object()
_CONTAINERS: Final = frozenset((dict, list))
_UNCHANGING: Final = (type(None), bool, int, float, str, bytes, enum.Enum)
"""Defaults that a handler cannot change, and so need no copy of its own."""


class _Hidden:
    """Stands for a secret in an error."""

    def __repr__(self) -> str:
        return "<secret>"


_HIDDEN: Final = _Hidden()


@dataclass(frozen=True)
class Signature:
    """What a function takes and gives."""

    parameters: tuple[Parameter, ...]
    extras: Shape | None
    """What `**args` takes besides the parameters; None where there is no such thing."""
    returns: Shape | None
    """None is unchecked."""
    where: str
    """File, line and name of the handler, as errors begin."""
    context: str | None = None
    """What the handler calls its context, if that could also be the name of an argument."""
    validator: Validator = field(init=False)
    """Of the argument object."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "validator", self._validator())
        except DeclarationError as refused:
            raise DeclarationError(f"{self.where}: {refused}") from None

    @staticmethod
    def of(
        handler: Handler,
        *,
        args: Fields | Validator | None = None,
        returns: Annotation = UNDEFINED,
        is_hidden: Callable[[object], bool] | None = None,
        local: Mapping[str, Any] | None = None,
        recipient: Recipient | None = None,
    ) -> Signature:
        """
        Read the signature of `handler`, whose first parameter is the context.

        Args:
            args: validators by wire name, instead of those that annotations say.
            returns: a validator or annotation, instead of the one after the arrow.
            is_hidden: globals of the handler's module that annotations do not mean.
            local: names around a handler that is defined in a function.
            recipient: what the handler is, so that its context is that of none other.

        Raises:
            DeclarationError: an annotation or parameter that cannot be; names file and line.
        """
        return _Reader(handler, args, returns, is_hidden, local or {}, recipient).read()

    @cached_property
    def secrets(self) -> frozenset[str]:
        """Wire names of the parameters that are never recorded, whatever is secret in them."""
        return frozenset(p.wire for p in self.parameters if p.shape.is_secret)

    @cached_property
    def has_secrets(self) -> bool:
        return bool(self.secrets) or self._has_secret_extras

    def recorded(self, args: Mapping[str, Value]) -> Mapping[str, Value]:
        """Arguments that were accepted, without those that are secret."""
        if not self.has_secrets:
            return args
        if self._has_secret_extras:
            return {wire: one for wire, one in args.items() if wire in self._shown}
        return {wire: one for wire, one in args.items() if wire not in self.secrets}

    @property
    def _has_secret_extras(self) -> bool:
        return self.extras is not None and self.extras.is_secret

    @cached_property
    def _shown(self) -> frozenset[str]:
        """Wire names of the parameters that are not secret."""
        return frozenset(p.wire for p in self.parameters) - self.secrets

    def _is_hidden(self, wire: str) -> bool:
        """Whether errors keep silent of a value; an unknown name may be a secret, misspelt."""
        return self.has_secrets and wire not in self._shown

    def args_json(self) -> Value:
        """The validator of the arguments, in the form that clients know."""
        return self.validator.to_json()

    def returns_json(self) -> Value:
        """The validator of the result, in the form that clients know."""
        return (self.returns.validator if self.returns else v.any()).to_json()

    def verify(self) -> None:
        """
        Ask for every table that the signature names, once there is a schema.

        Raises:
            DeclarationError: a class is the document of no table.
        """
        shapes = [self.returns.validator] if self.returns else []
        for validator in (self.validator, *shapes):
            for part in validator.walk():
                if type(part) is IdOf:
                    self._table_of(part)

    def _table_of(self, part: IdOf) -> str:
        try:
            return part.table_name
        except DeclarationError as error:
            raise DeclarationError(f"{self.where}: {error}") from None

    # On the way in.

    def load(self, raw: Mapping[str, Value], tables: Tables) -> dict[str, Loaded]:
        """
        Keyword arguments for the handler.

        Args:
            raw: canonical values by wire name.
            tables: table numbers of the component the function is in.

        Raises:
            ArgumentValidationError: with path, value and validator.
        """
        loaded = {}
        known = 0
        for name, wire, exact, mismatch, load, required, default in self._steps:
            value = raw.get(wire, _ABSENT)
            if value is not _ABSENT:
                known += 1
                kind = type(value)
                if kind not in exact and mismatch(value, tables) is not None:
                    raise self._refusal(raw, tables)
                if kind in _CONTAINERS:
                    value = copied(value)  # the handler's own: the arguments may have to run again
                loaded[name] = value if load is None else self._load(load, wire, value, tables)
            elif required:
                raise self._refusal(raw, tables)
            elif default is not _ABSENT:
                loaded[name] = copy.deepcopy(default)
        if known != len(raw):
            self._load_extras(raw, loaded, tables)
        return loaded

    @cached_property
    def _steps(self) -> tuple[_Step, ...]:
        return tuple(
            (
                one.name,
                one.wire,
                one.shape.validator.exact,
                one.shape.validator.mismatch,
                one.shape.load,
                one.required,
                _ABSENT if isinstance(one.default, _UNCHANGING) else one.default,
            )
            for one in self.parameters
        )

    def _load(self, load: Load, wire: str, value: Value, tables: Tables) -> Loaded:
        try:
            return load(value, tables)
        except InvalidValue as refused:
            is_hidden = self._is_hidden(wire)
            why = f"Value: {_HIDDEN}" if is_hidden else str(refused)
            raise ArgumentValidationError(
                f"Value does not match validator.\nPath: {step_of(wire)}\n{why}"
            ) from (None if is_hidden else refused.__cause__)

    def _load_extras(
        self, raw: Mapping[str, Value], loaded: dict[str, Loaded], tables: Tables
    ) -> None:
        if self.extras is None:
            raise self._refusal(raw, tables)
        taken = {one.wire for one in self.parameters}
        unusable = {self.context, *(one.name for one in self.parameters)}
        for wire, value in raw.items():
            if wire not in taken:
                if wire in unusable:
                    raise ArgumentValidationError(f"`{wire}` cannot be the name of an argument.")
                if found := self.extras.validator.mismatch(value, tables):
                    raise self._refused(found.within(step_of(wire)), raw)
                own, load = copied(value), self.extras.load
                loaded[wire] = own if load is None else self._load(load, wire, own, tables)

    def _refusal(self, raw: Mapping[str, Value], tables: Tables) -> ArgumentValidationError:
        found = self._object.mismatch(dict(raw), tables)
        assert found is not None, "load and the validator refuse the same arguments"
        return self._refused(found, raw)

    def _refused(self, found: Mismatch, raw: Mapping[str, Value]) -> ArgumentValidationError:
        """What is wrong with `raw`, without what is or may be secret in it."""
        if self.has_secrets and not found.steps:
            found.value = {n: _HIDDEN if self._is_hidden(n) else one for n, one in raw.items()}
        elif self.has_secrets and found.steps[-1] not in map(step_of, self._shown):
            # What is said of the inside may have keys, and they are secret, too.
            step = found.steps[-1]
            found = Mismatch(self._validator_at(step) or found.validator, _HIDDEN).within(step)
        return ArgumentValidationError(found.text())

    def _validator_at(self, step: str) -> Validator | None:
        named = {step_of(one.wire): one.shape for one in self.parameters}
        shape = named.get(step, self.extras)
        return shape.validator if shape else None

    @cached_property
    def _object(self) -> Object:
        """The parameters; where there are extras, only those of them that have a name."""
        fields = {
            one.wire: one.shape.validator if one.required else v.optional(one.shape.validator)
            for one in self.parameters
        }
        return v.object(fields)

    def _validator(self) -> Validator:
        if self.extras is None:
            return self._object
        if self.parameters or isinstance(self.extras.validator, AnyValue):
            return v.any()
        return v.record(v.string(), self.extras.validator)

    # From a call in Python.

    def bind(self, args: Sequence[Loaded], kwargs: Mapping[str, Loaded]) -> dict[str, Value]:
        """
        The arguments of a call in Python, as they go over the wire.

        Instances become plain values, `UNDEFINED` is left out; whether the
        arguments are accepted is for `load` to say.

        Raises:
            ArgumentValidationError: more positional arguments than parameters, one given
                twice, or something that no document can hold.
        """
        if len(args) > len(self._by_place):
            names = ", ".join(one.name for one in self._by_place) or "none"
            raise ArgumentValidationError(
                f"{len(args)} arguments are given without a name, but the function takes "
                f"{len(self._by_place)} in that way: {names}."
            )
        given: dict[str, Loaded] = dict(kwargs)
        for parameter, value in zip(self._by_place, args, strict=False):
            if parameter.name in kwargs:
                raise ArgumentValidationError(f"Argument `{parameter.name}` is given twice.")
            given[parameter.name] = value
        by_name, extras = self._by_name, (None, self.extras.dump if self.extras else None)
        raw: dict[str, Loaded] = {}
        try:
            for name, value in given.items():
                if value is not UNDEFINED:
                    wire, dump = by_name.get(name, extras)
                    raw[wire or name] = value if dump is None else dump(value)
            return normalize(raw)  # type: ignore[no-any-return]  # an object stays one
        except InvalidValue as refused:
            raise ArgumentValidationError(self._told(raw, refused)) from None

    def _told(self, raw: Mapping[str, Loaded], refused: InvalidValue) -> str:
        """What is wrong with the arguments, beginning with the path to it."""
        for wire, value in raw.items():
            step = step_of(wire)
            try:
                normalize(value, path=step)
            except InvalidValue as precise:
                return f"{step}: {_HIDDEN} is no value" if self._is_hidden(wire) else str(precise)
        return str(refused)

    @cached_property
    def _by_place(self) -> tuple[Parameter, ...]:
        return tuple(one for one in self.parameters if one.by_place)

    @cached_property
    def _by_name(self) -> dict[str, tuple[str, Dump | None]]:
        return {one.name: (one.wire, one.shape.dump) for one in self.parameters}

    # On the way out.

    def dump(self, result: Loaded, tables: Tables) -> Value:
        """
        The value that a handler's result is; nothing at all is null.

        Raises:
            ReturnsValidationError: with path, value and validator.
        """
        shape = self.returns
        if result is UNDEFINED:
            result = None
        try:
            if shape is None:
                return normalize(result, path="result")
            plain = result if shape.dump is None else shape.dump(result)
            value = normalize(plain, path="result")
        except InvalidValue as refused:
            raise ReturnsValidationError(str(refused)) from None
        if found := shape.validator.mismatch(value, tables):
            raise ReturnsValidationError(found.text())
        return value


class _Reader:
    """Reads one handler; what it finds wrong it reports with file and line."""

    def __init__(
        self,
        handler: Handler,
        args: Fields | Validator | None,
        returns: Annotation,
        is_hidden: Callable[[object], bool] | None,
        local: Mapping[str, Any],
        recipient: Recipient | None,
    ) -> None:
        self._recipient = recipient
        self._handler = _described(handler)
        self._args = args
        self._returns = returns
        self._where = where_of(handler)
        names = getattr(self._handler, "__globals__", {})
        self._scope = Scope(names=names, local=local)
        if is_hidden is not None:
            self._scope = replace(self._scope, is_hidden=is_hidden)

    def read(self) -> Signature:
        self._refuse_generators()
        given = list(inspect.signature(self._handler).parameters.values())
        if not given or given[0].kind in (given[0].KEYWORD_ONLY, given[0].VAR_KEYWORD):
            raise self._error("the first parameter is the context: write `ctx` before the others")
        ctx, *others = given
        self._check_context(ctx)
        parameters: list[Parameter] = []
        extras: Shape | None = None
        for one in others:
            if one.kind is one.VAR_KEYWORD:
                more, extras = self._read_keywords(one)
                parameters += more
            else:
                parameters.append(self._read_parameter(one))
        if self._args is not None:
            parameters, extras = self._overridden(parameters, extras), None
        self._refuse_twins(ctx, parameters)
        returns = self._read_returns()
        try:
            return Signature(
                tuple(parameters),
                extras,
                returns,
                self._where,
                None if ctx.kind is ctx.POSITIONAL_ONLY else ctx.name,
            )
        except (InvalidValue, DeclarationError) as refused:
            raise self._error(str(refused)) from None

    def _refuse_twins(self, ctx: inspect.Parameter, parameters: Sequence[Parameter]) -> None:
        by_wire: dict[str, Parameter] = {}
        for one in parameters:
            other = by_wire.setdefault(one.wire, one)
            if other is not one:
                raise self._error(f"`{other.name}` and `{one.name}` are both `{one.wire}` outside")
            if one.name == ctx.name and ctx.kind is not ctx.POSITIONAL_ONLY:
                raise self._error(f"`{ctx.name}` is the context and an argument; write `ctx, /`")

    def _check_context(self, ctx: inspect.Parameter) -> None:
        """Refuse the context of another kind of function; any other annotation is let pass."""
        annotation = ctx.annotation
        try:
            while isinstance(annotation, str):
                annotation = self._scope.evaluate(annotation)
        except Unsupported:
            return  # only type checkers see it
        meant = vars(annotation).get("_recipient") if isinstance(annotation, type) else None
        own = self._recipient
        if meant is None or own is None or meant == own:
            return
        raise self._error(
            f"`{ctx.name}: {annotation.__name__}` is for {meant}, and this is {own}: "
            f"write `{ctx.name}: {CONTEXTS[own]}`, or make it {meant}"
        )

    def _refuse_generators(self) -> None:
        if inspect.isgeneratorfunction(self._handler) or inspect.isasyncgenfunction(self._handler):
            raise self._error(
                "a generator cannot be a registered function, because a result is one value; "
                "return a list, or pages: `return await ctx.db.query(...).paginate(opts)`"
            )

    def _read_parameter(self, one: inspect.Parameter) -> Parameter:
        if one.kind is one.POSITIONAL_ONLY:
            raise self._error(f"`{one.name}` is positional-only, but arguments are named; drop `/`")
        if one.kind is one.VAR_POSITIONAL:
            raise self._error(f"`*{one.name}`: arguments have names; write `{one.name}: list[...]`")
        shape = self._shape(one.annotation, f"argument `{one.name}`")
        has_default = one.default is not one.empty
        if shape.may_be_absent and not has_default:
            raise self._error(f"argument `{one.name}` may be Undefined: give it `= UNDEFINED`")
        return Parameter(
            name=one.name,
            wire=shape.wire or wire_name(one.name),
            shape=shape,
            required=not has_default,
            by_place=one.kind is one.POSITIONAL_OR_KEYWORD,
            default=one.default if has_default else None,
        )

    def _read_keywords(self, one: inspect.Parameter) -> tuple[list[Parameter], Shape | None]:
        """`**args`: a TypedDict through Unpack names them, anything else describes them."""
        annotation = one.annotation
        what = f"`**{one.name}`"
        try:
            while isinstance(annotation, str):
                annotation = self._scope.evaluate(annotation)
        except Unsupported as refused:
            raise self._error(f"{what}: {refused}") from None
        if getattr(get_origin(annotation), "_name", "") != "Unpack":
            return [], self._shape(annotation, what)
        return self._members(get_args(annotation)[0], what), None

    def _members(self, unpacked: Annotation, what: str) -> list[Parameter]:
        if not is_typed_dict(unpacked):
            raise self._error(f"{what}: Unpack takes a TypedDict that is not generic")
        cls: type = unpacked
        members = []
        for one in typed_dict_fields(cls):
            scope = self._scope.of_class(cls, {}).of_module(one.owner.__module__)
            shape = self._shape(one.annotation, f"argument `{one.name}`", scope)
            required = (one.required or shape.must_be_there) and not shape.may_be_absent
            members.append(Parameter(name=one.wire, wire=one.wire, shape=shape, required=required))
        return members

    def _overridden(self, parameters: Sequence[Parameter], extras: Shape | None) -> list[Parameter]:
        """The parameters as `args=` describes them."""
        assert self._args is not None, "called where there is args="
        fields = self._args.fields if isinstance(self._args, Object) else self._args
        if not isinstance(fields, Mapping):
            raise self._error(f"args={self._args}: write a dict of names and validators")
        known = {one.wire: one for one in parameters}
        known.update({one.name: one for one in parameters if one.name in fields})
        for wire in fields:
            if wire not in known and extras is None:
                near = did_you_mean(wire, known)
                raise self._error(f"args= has `{wire}`, which is no parameter.{near}")
        wires = {one.name: wire for wire, one in known.items() if wire in fields}
        overridden = []
        for one in parameters:
            if one.name in wires:
                overridden.append(self._override(wires[one.name], fields, one))
            elif one.required:
                raise self._error(f"parameter `{one.name}` is not in args= and has no default")
        more = [wire for wire in fields if wire not in known]
        return [*overridden, *(self._override(wire, fields, None, extras) for wire in more)]

    def _override(
        self, wire: str, fields: Fields, one: Parameter | None, extras: Shape | None = None
    ) -> Parameter:
        shape = self._shape(fields[wire], f"args[{wire!r}]")
        if (annotated := one.shape if one else extras) and annotated.is_secret:
            shape = replace(shape, is_secret=True)
        if one is None:
            return Parameter(name=wire, wire=wire, shape=shape, required=not shape.may_be_absent)
        if shape.may_be_absent and one.required:
            raise self._error(
                f"args= says that `{wire}` may be absent: give the parameter a default, "
                "None or UNDEFINED"
            )
        if isinstance(fields[wire], Validator):
            shape = _loaded_as(one.shape, shape)
        return replace(one, wire=shape.wire or wire, shape=shape)

    def _read_returns(self) -> Shape | None:
        annotation = self._returns
        if annotation is UNDEFINED:
            annotation = inspect.signature(self._handler).return_annotation
        try:
            while isinstance(annotation, str):
                annotation = self._scope.evaluate(annotation)
        except Unsupported as refused:
            raise self._error(f"the result: {refused}") from None
        if getattr(get_origin(annotation), "__name__", "") in ("Awaitable", "Coroutine"):
            annotation = get_args(annotation)[-1]
        shape = self._shape(annotation, "the result")
        return None if type(shape.validator) is AnyValue else shape

    def _shape(self, annotation: Annotation, what: str, scope: Scope | None = None) -> Shape:
        if annotation is inspect.Parameter.empty:
            return shape_of_validator(v.any())
        try:
            return shape_of(annotation, scope or self._scope)
        except Unsupported as refused:
            raise self._error(f"{what}: {refused}") from None

    def _error(self, why: str) -> DeclarationError:
        return DeclarationError(f"{self._where}: {why}")


def _described(handler: Handler) -> Handler:
    """The function behind wrappers, unless one of them says that it takes something else."""
    described: Handler = inspect.unwrap(handler, stop=lambda one: hasattr(one, "__signature__"))
    return described


def _loaded_as(annotated: Shape, declared: Shape) -> Shape:
    """What `args=` declares, handed over as the annotation says wherever the two agree."""
    mismatch, load = annotated.validator.mismatch, annotated.load
    if load is None:
        return declared
    annotated_load = load

    def load_if_accepted(value: Value, tables: Tables) -> Loaded:
        return annotated_load(value, tables) if mismatch(value, tables) is None else value

    return replace(declared, load=load_if_accepted)


def where_of(handler: Handler) -> str:
    """File, line and name, in the form that editors turn into a link."""
    file, line = location_of(handler)
    return f"{file}:{line}: {getattr(handler, '__qualname__', repr(handler))}"


def location_of(handler: Handler) -> tuple[str, int]:
    """File and line of a function; of another callable, nothing is known."""
    code = getattr(inspect.unwrap(handler), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code else ("<unknown>", 0)
