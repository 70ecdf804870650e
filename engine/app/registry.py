"""
An application, loaded: its functions by path, its schema, crons, mounts.

The loader executes modules and calls `functions_of` for each; what comes out of
all that is an `Application`, which is never changed.  A reload makes another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

from engine.app.component import App, Component
from engine.app.crons import Crons, CronSpec
from engine.app.environment import NO_VARIABLES, Variables
from engine.app.references import canonical_path, is_within_reach
from engine.app.registered import Kind, RegisteredFunction, loading
from engine.app.schema import Schema
from engine.app.triggers import Trigger
from engine.app.validators import IdOf
from engine.errors import ArgumentValidationError, DeclarationError


class Placed(Protocol):
    """Something that an application has one of."""

    @property
    def where(self) -> str:
        """File and line of the declaration."""
        ...


D = TypeVar("D", bound=Placed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """
    What was loaded at one place: the application itself, or a component at its mount.

    `functions` are by their path there, `mounts` by their whole path, those within others too.
    """

    functions: Mapping[str, RegisteredFunction]
    schema: Schema | None = None
    app: App | Component | None = None
    path: str = ""
    """Of the mount that it is; the application itself is ""."""
    crons: Crons | None = None
    triggers: tuple[Trigger[Any], ...] = ()
    mounts: Mapping[str, Application] = field(default_factory=dict)
    digest: str = ""
    """Of its own sources: another digest is other code, but the same may import other modules."""
    root: Path | None = None
    """The folder or file that it was loaded from."""
    environment: Variables = field(default_factory=lambda: NO_VARIABLES, repr=False)
    """What `env` is while its code runs; components have none."""
    warnings: tuple[str, ...] = ()
    modules: Mapping[str, ModuleType] = field(default_factory=dict, repr=False)
    """What was executed, by what Python imports it as."""

    def find(self, path: str, component: str = "") -> RegisteredFunction | None:
        """
        The function at a path, in any of its spellings, or None.

        Args:
            path: "messages:list", also "messages.js:list"; without a name, the default one.
            component: the path of a mount, as in "limits/store"; "" is here.
        """
        place = self.at(component)
        return None if place is None else place.functions.get(canonical_path(path))

    def at(self, component: str) -> Application | None:
        """What is mounted at a path, or None; "" is the application itself."""
        return self.mounts.get(component) if component else self


def functions_of(
    module: str,
    namespace: Mapping[str, object],
    made: Sequence[RegisteredFunction] = (),
    component: str = "",
) -> dict[str, RegisteredFunction]:
    """
    The functions that a module publishes, by path; each is told its name and path.

    Published are those made while the module was executed (see `loading`) that
    are bound to an attribute of it, and those with a `name=` in any case.

    Args:
        module: its path, as in `dir/messages`.
        namespace: its attributes.
        made: functions made during its execution.
        component: the mount that it is loaded in.

    Raises:
        DeclarationError: one name twice, or a name that is none; names both places.
    """
    published: dict[str, RegisteredFunction] = {}
    bound = [
        (attribute, one)
        for attribute, one in namespace.items()
        if isinstance(one, RegisteredFunction) and one.module == module
    ]
    named = [(one.options.name, one) for one in made if one.options.name]
    for attribute, function in [*bound, *named]:
        name = function.options.name or attribute
        other = published.setdefault(f"{module}:{name}", function)
        if other is not function:
            raise DeclarationError(
                f"{module}:{name} is two functions, {other.where} and {function.where}; "
                "give one of them another name="
            )
        function.bind(module, attribute, component)
    return published


def merged(parts: Iterable[Mapping[str, RegisteredFunction]]) -> dict[str, RegisteredFunction]:
    """
    The functions of all modules in one mapping.

    Raises:
        DeclarationError: two modules have the same path.
    """
    merged: dict[str, RegisteredFunction] = {}
    for part in parts:
        for path, function in part.items():
            other = merged.setdefault(path, function)
            if other is not function:
                raise DeclarationError(
                    f"{path} is two functions, {other.where} and {function.where}"
                )
    return merged


def verify(application: Application) -> None:
    """
    Read every signature, and check what needs the whole application to be checked.

    Raises:
        DeclarationError: an annotation that cannot be, a class of no table, a cron whose
            function does not exist, is a query or does not take its arguments, a trigger of
            a table that is not in the schema.
    """
    for function in application.functions.values():
        function.signature.verify()
    for job in application.crons.jobs if application.crons else ():
        _verify_cron(application, job)
    for one in application.triggers:
        if application.schema and one.table_name not in application.schema.tables:
            raise DeclarationError(f"{one.where}: the schema has no table {one.table_name!r}")


def _verify_cron(application: Application, job: CronSpec) -> None:
    component, path = job.function_path()
    where = f"{job.where}: cron {job.name!r}"
    target = application.find(path, component)
    is_of_another = component not in ("", application.path)
    if (
        target is not None
        and is_of_another
        and not (target.is_public and is_within_reach(application.path, component))
    ):
        raise DeclarationError(
            f"{where}: {path} of {component!r} is out of reach; a cron runs functions of its own "
            "component, and public ones of components that are mounted in it"
        )
    if target is None:
        raise DeclarationError(f"{where}: there is no function {path}")
    if target.kind is Kind.QUERY:
        raise DeclarationError(f"{where}: {path} is a query; use a mutation or an action")
    validator = target.signature.validator
    # Ids can only be looked at when the tables have their numbers.
    if not any(isinstance(part, IdOf) for part in validator.walk()):
        try:
            target.signature.load(job.args, lambda _table: None)
        except ArgumentValidationError as error:
            raise DeclarationError(f"{where}: {error}") from None


def only_one(kind: type[D], found: Iterable[D]) -> D | None:
    """
    The one object of a kind among those found in the root modules; or None.

    Raises:
        DeclarationError: there are several; names the places.
    """
    distinct = {id(one): one for one in found}
    if len(distinct) > 1:
        places = " and ".join(one.where for one in distinct.values())
        raise DeclarationError(
            f"{len(distinct)} objects of {kind.__name__}, at {places}; {_owner_of(kind)} has one"
        )
    return next(iter(distinct.values()), None)


def _owner_of(kind: type[D]) -> str:
    return "a component's package" if kind.__name__ == "Component" else "an application"


__all__ = ["Application", "functions_of", "loading", "merged", "only_one", "verify"]
