"""
What is deployed: the functions that calls find, and the schemas that writes meet.

A deployment is a value; a push replaces it by another while no mutation runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from engine.app.environment import NO_VARIABLES, Variables
from engine.app.references import canonical_path, is_within_reach, reference_of
from engine.app.registered import Kind, RegisteredFunction, Visibility
from engine.app.registry import Application
from engine.app.schema import Schema
from engine.app.triggers import Trigger
from engine.app.types import FunctionMetadata
from engine.app.validators import Tables, did_you_mean
from engine.errors import (
    FunctionNotFound,
    InvalidValue,
    SchemaViolation,
    UnmountedComponent,
    WrongFunctionKind,
)
from engine.functions.handles import Handles, is_handle
from engine.model.limits import SHOWN_LENGTH_MAX
from engine.model.relations import Relation, named
from engine.model.text import brief
from engine.transaction.transaction import Marks

Check = Callable[[Any], None]
TableNumber = Callable[[str, str], "int | None"]
"""(component, table name) -> table number, in the newest catalog."""
Triggers = Mapping[str, Sequence[Trigger[Any]]]
"""By the table that they follow, in the order in which they were declared."""
NO_TRIGGERS: Final[Triggers] = {}


class Place(NamedTuple):
    """Where a function is."""

    component: str
    path: str


class Target(NamedTuple):
    """A function that somebody named."""

    component: str
    path: str
    may_call_internal: bool
    """It is one of their own, or they hold its handle."""


class Deployment:
    """
    Args:
        application: what was loaded, components included.
        table_number: resolves `v.id(table)`.
        handles: of the database that it is deployed to.
    """

    def __init__(
        self,
        application: Application,
        table_number: TableNumber,
        handles: Handles | None = None,
    ) -> None:
        self.application = application
        self.handles = handles or Handles(b"")
        self.schemas = SchemaChecks(application, table_number)
        self._table_number = table_number
        self._triggers = {
            component: _by_table(part.triggers)
            for component, part in [("", application), *application.mounts.items()]
            if part.triggers
        }
        self._found: dict[tuple[str, str], RegisteredFunction] = {}
        """Functions by the spellings in which they were called."""

    @property
    def digest(self) -> str:
        return self.application.digest

    def refuse_unless_mounted(self, component: str) -> None:
        """
        Raises:
            UnmountedComponent: nothing is mounted there; the application itself always is.
        """
        if self.application.at(component) is None:
            raise UnmountedComponent(brief(component))

    def tables_of(self, component: str) -> Callable[[str], int | None]:
        """The resolver of table names that validators of `component` ask."""
        return partial(self._table_number, component)

    def environment_of(self, component: str) -> Variables:
        """What `env` is in functions of `component`."""
        if not component:
            return self.application.environment
        place = self.application.at(component)
        return NO_VARIABLES if place is None else place.environment

    def triggers_of(self, component: str) -> Triggers:
        """What follows the writes of `component`."""
        return self._triggers.get(component, NO_TRIGGERS)

    def find(
        self, path: str, kind: Kind | None, *, component: str, may_call_internal: bool
    ) -> RegisteredFunction:
        """
        The function at `path`.

        Raises:
            FunctionNotFound: there is none, or the caller may not know of it.
            WrongFunctionKind: it is there, but is no `kind`.
        """
        function = self._found.get((component, path))
        if function is None:
            self.refuse_unless_mounted(component)
        if function is None and (function := self.application.find(path, component)):
            self._found[component, path] = function
        if function is None or not (may_call_internal or function.visibility is Visibility.PUBLIC):
            raise FunctionNotFound(self._not_found(path, component, may_call_internal))
        if kind is not None and function.kind is not kind:
            raise WrongFunctionKind(
                f"Trying to execute {dotted(path)} as {kind.value.capitalize()}, "
                f"but it is defined as {function.kind.value.capitalize()}."
            )
        return function

    # What functions of a component may name.

    def target(self, fn: object, component: str) -> Target:
        """
        What functions of `component` mean by `fn`: something of their own, a public function of a
        component that is mounted in theirs, or whatever they hold the handle of.

        Raises:
            UsageError: it names no function.
            FunctionNotFound: it names one that is out of their reach.
        """
        if is_handle(fn):
            return Target(*self.handles.read(str(fn)), True)
        named, path = reference_of(fn)
        # A function object is where it was loaded; a path that says no component is of one's own.
        other = named if named or isinstance(fn, RegisteredFunction) else component
        if not is_within_reach(component, other):
            raise FunctionNotFound(
                f"{path} of {_called(other)} is out of reach from {_called(component)}, which "
                "calls functions of its own, public ones of components that are mounted in it, and "
                "those of which it was given a handle"
            )
        return Target(other, path, other == component)

    def find_named(self, fn: object, component: str) -> tuple[Place, RegisteredFunction]:
        """
        Where what functions of `component` mean by `fn` is, and the function.

        Raises:
            FunctionNotFound: it is not there, or out of their reach.
        """
        place, path, may_call_internal = self.target(fn, component)
        found = self.find(path, None, component=place, may_call_internal=may_call_internal)
        return Place(place, path), found

    def find_for_later(self, fn: object, component: str) -> tuple[Place, RegisteredFunction]:
        """
        The mutation or action that a function schedules or registers as a cron.

        Raises:
            FunctionNotFound: it is not there, or out of reach.
            WrongFunctionKind: it is a query.
        """
        place, found = self.find_named(fn, component)
        if found.kind is Kind.QUERY:
            raise WrongFunctionKind(
                f"{dotted(place.path)} is a query, which nobody would see; schedule a mutation or "
                "an action"
            )
        return place, found

    def handle(self, fn: object, component: str) -> str:
        """
        The handle of a function that functions of `component` may call.

        Raises:
            FunctionNotFound: it is not there, or out of their reach.
        """
        place, _ = self.find_named(fn, component)
        return self.handles.of(place.component, canonical_path(place.path))

    def metadata_of(self, fn: object, component: str) -> FunctionMetadata:
        """
        What functions of `component` may know of one that they may call.

        Raises:
            FunctionNotFound: it is not there, or out of their reach.
        """
        place, found = self.find_named(fn, component)
        return _metadata(found, place)

    def metadata(self, path: str, component: str) -> FunctionMetadata:
        """What a function may know of itself; a trigger is as an internal mutation."""
        return _metadata(self.application.find(path, component), Place(component, path))

    def recorded(self, path: str, component: str, args: Mapping[str, Any]) -> Any:
        """The arguments as the log may keep them: `None`, or without those that are secret."""
        function = self._found.get((component, path))
        if function is None or not function.record:
            return None
        return function.signature.recorded(args)

    def _not_found(self, path: str, component: str, may_call_internal: bool) -> str:
        """What was looked for, and among what: others call what is public of a component."""
        shown = brief(path.removesuffix(":default"))
        where = f" in '{brief(component)}'" if component else ""
        which = "function" if component and may_call_internal else "public function"
        text = f"Could not find {which} for '{shown}'{where}."
        is_client = not component and not may_call_internal
        if is_client or len(path) > SHOWN_LENGTH_MAX:
            return text
        place = self.application.at(component)
        reachable = [
            known
            for known, function in (place.functions if place else {}).items()
            if may_call_internal or function.visibility is Visibility.PUBLIC
        ]
        if not may_call_internal:
            text += " Internal ones are the component's own."
        close = difflib.get_close_matches(path, reachable, n=1)
        return f"{text} Did you mean '{close[0]}'?" if close else text


def _called(component: str) -> str:
    return f"component {component!r}" if component else "the application"


def _metadata(function: RegisteredFunction | None, place: Place) -> FunctionMetadata:
    kind = Kind.MUTATION if function is None else function.kind
    visibility = Visibility.INTERNAL if function is None else function.visibility
    return {
        "name": place.path,
        "component_path": place.component,
        "kind": kind.value,
        "visibility": visibility.value,
    }


def _by_table(triggers: Sequence[Trigger[Any]]) -> Triggers:
    found: dict[str, list[Trigger[Any]]] = {}
    for one in triggers:
        found.setdefault(one.table_name, []).append(one)
    return found


def dotted(path: str) -> str:
    """`messages:list` as error texts spell it: `messages.js:list`."""
    module, _, name = path.rpartition(":")
    return f"{module.removesuffix('.js')}.js:{name}" if module else path


class SchemaChecks:
    """What the schemas of a deployment say of documents, compiled."""

    def __init__(self, application: Application, table_number: TableNumber) -> None:
        self.relations: dict[tuple[str, str], list[Relation]] = {}
        self.referring: dict[tuple[str, str], list[Relation]] = {}
        self._checks: dict[tuple[str, str], Check] = {}
        self._running_code: set[tuple[str, str]] = set()
        self._strict: dict[str, Collection[str]] = {}
        """By component: the only tables that may be written to."""
        self._mounted = {"", *application.mounts}
        for component, part in [("", application), *application.mounts.items()]:
            if part.schema is not None and part.schema.validates:
                self._add(component, part.schema, partial(table_number, component))

    def _add(self, component: str, schema: Schema, resolve: Tables) -> None:
        if schema.is_strict:
            self._strict[component] = schema.tables.keys()
        for name, table in schema.tables.items():
            self._checks[component, name] = table.compile(resolve)
            if table.runs_code:
                self._running_code.add((component, name))
            for relation in table.relations(name, schema.tables):
                self.relations.setdefault((component, name), []).append(relation)
                self.referring.setdefault((component, relation.target), []).append(relation)

    def check(
        self, component: str, table: str, fields: dict[str, Any], marks: Marks | None = None
    ) -> None:
        """
        Args:
            marks: entered where checking runs code of the application.

        Raises:
            SchemaViolation: the table's schema forbids the document.
        """
        try:
            self.validate(component, table, fields, marks)
        except InvalidValue as error:
            message = f"{named(table, fields)} does not fit its schema: {error}"
            raise SchemaViolation(message) from error.__cause__

    def validate(
        self, component: str, table: str, fields: dict[str, Any], marks: Marks | None
    ) -> None:
        """As `check`, but raises `InvalidValue`, which says why alone."""
        check = self._checks.get((component, table))
        if check is None:
            self._refuse_stray(component, table)
            return
        if marks is None or (component, table) not in self._running_code:
            check(fields)
            return
        marks.enter()
        try:
            check(fields)
        finally:
            marks.leave()

    def _refuse_stray(self, component: str, table: str) -> None:
        if component not in self._mounted:
            raise UnmountedComponent(brief(component))
        tables = self._strict.get(component)
        if tables is not None:
            raise SchemaViolation(
                f"the schema has no table {table!r}, and says strict_tables=True."
                f"{did_you_mean(table, tables)}"
            )
