"""
The application and the components it is made of.

    app = App(auth=[CustomJwt(issuer=..., jwks=..., algorithm="RS256")])
    limits = app.use(rate_limiter, name="limits")

A mount is good for use at once, before anything is loaded: it only stands for
a path.  `limits.check` refers to the component's function `check`, and clients
of components take the mount itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import isfunction
from types import MappingProxyType, ModuleType
from typing import Any, Final, Literal, TypeAlias, get_args

from engine.app.configuration import configuration, plain_configuration, told_to
from engine.app.places import place_of_caller
from engine.app.references import Reference
from engine.app.validators import check_identifier
from engine.errors import DeclarationError
from engine.model.values import Value

Algorithm: TypeAlias = Literal["RS256", "ES256"]
Env: TypeAlias = Mapping[str, str] | tuple[str, ...]
NOTHING: Final[Env] = MappingProxyType({})
NOTHING_TOLD: Final[Mapping[str, Value]] = MappingProxyType({})
_URL_SCHEMES: Final = ("https://", "http://", "data:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Oidc:
    """
    An OpenID Connect provider, whose keys are discovered at its domain.

    Args:
        domain: the issuer of its tokens; `https://` may be left out.
        application_id: the audience that tokens must have.
    """

    domain: str
    application_id: str

    def __post_init__(self) -> None:
        if not self.domain or not self.application_id:
            raise DeclarationError("Oidc: domain and application_id must not be empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomJwt:
    """
    An issuer of tokens that is no OpenID Connect provider.

    Args:
        issuer: what tokens have as `iss`.
        jwks: where its public keys are: a URL, or a `data:` URL that holds them.
        algorithm: how it signs; a token's own word on this is not trusted.
        application_id: the audience that tokens must have; None is not looked at.
    """

    issuer: str
    jwks: str
    algorithm: Algorithm
    application_id: str | None = None

    def __post_init__(self) -> None:
        if not self.issuer:
            raise DeclarationError("CustomJwt: issuer must not be empty")
        if not self.jwks.startswith(_URL_SCHEMES):
            raise DeclarationError(
                f"CustomJwt: jwks={self.jwks!r} is no URL; write https://… or data:…"
            )
        if self.algorithm not in get_args(Algorithm):
            raise DeclarationError(
                f"CustomJwt: algorithm={self.algorithm!r}; RS256 and ES256 are known"
            )


AuthProvider: TypeAlias = Oidc | CustomJwt


class Mount:
    """
    A component at its place; its attributes are references to the component's functions.

    `path` is where it is below the application or component that mounted it.
    """

    __slots__ = ("component", "config", "env", "path", "where")

    def __init__(
        self,
        component: Component,
        path: str,
        config: Mapping[str, Value],
        env: Env = NOTHING,
    ) -> None:
        self.where = place_of_caller()
        """File and line of the declaration."""
        self.component = component
        self.path = path
        self.config = config
        """What the component is told about this mount, plain."""
        self.env = env
        """
        All the variables that it sees; of names alone the values are those of who mounts it.
        """

    def __getattr__(self, name: str) -> Reference:
        """`limits.check` is the function `check`; `limits.jobs.run` the one of module `jobs`."""
        if name.startswith("_"):
            raise AttributeError(name)
        return Reference(self, (name,))

    def __getitem__(self, name: str) -> Reference:
        """The same for a function or module whose name a mount has itself, as `path`."""
        return Reference(self, (name,))

    def __repr__(self) -> str:
        return f"<{self.component.name} mounted as {self.path!r}>"


class _Mounts:
    """What has components inside."""

    def __init__(self) -> None:
        self._mounts: dict[str, Mount] = {}
        self.where = place_of_caller()
        """File and line of the declaration."""

    @property
    def mounts(self) -> Mapping[str, Mount]:
        """What is mounted here, by name."""
        return MappingProxyType(self._mounts)

    def use(
        self,
        component: Component,
        /,
        *,
        name: str | None = None,
        config: object = None,
        env: Mapping[str, str] | Iterable[str] | None = None,
    ) -> Mount:
        """
        Mount a component: tables, functions and crons of its own, under a name.

        Args:
            component: may be mounted several times, each with its own data.
            name: of this mount; the component's own unless said.
            config: what the component is told: an instance of the class that it declares for
                this, or a mapping. Where a component mounts another, also a function that makes
                one of what the component itself is told.
            env: variables that it sees as `env`, and no others: by name, or the names of those
                that it sees as whoever mounts it does.

        Raises:
            DeclarationError: the name is taken, or can be none; `config` is not what it takes.
        """
        if not isinstance(component, Component):
            raise DeclarationError(f"{place_of_caller()}: use({component!r}): {_hint(component)}")
        name = _checked_name(component.name if name is None else name)
        if name in self._mounts:
            raise DeclarationError(
                f"{place_of_caller()}: two components are mounted as {name!r}, the first at "
                f"{self._mounts[name].where}; give one of them another name="
            )
        try:
            told = self._told(component, config)
        except DeclarationError as error:
            raise DeclarationError(
                f"{place_of_caller()}: {component!r} mounted as {name!r}: {error}"
            ) from None
        mount = Mount(
            component, name, MappingProxyType(told), _variables({} if env is None else env, name)
        )
        self._mounts[name] = mount
        return mount

    def _told(self, component: Component, config: object) -> Mapping[str, Value]:
        return plain_configuration(component.config_class, config)


def _hint(given: object) -> str:
    """What to write in the place of what is no component."""
    inside = getattr(given, "component", None)
    if isinstance(given, ModuleType) and isinstance(inside, Component):
        return f"a module; write use({given.__name__.rpartition('.')[2]}.component)"
    return "not a component; write what Component(...) makes, mostly `component` of its package"


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise DeclarationError(f"{place_of_caller()}: name={name!r}; the name of a mount is text")
    try:
        return check_identifier(name, "a mount")
    except DeclarationError as error:
        raise DeclarationError(f"{place_of_caller()}: {error}") from None


def _variables(env: Mapping[str, str] | Iterable[str], name: str) -> Env:
    """A copy, in which nothing is hidden that would only be found when it is asked for."""
    where = f"{place_of_caller()}: env of the mount {name!r}"
    if not isinstance(env, Iterable):
        raise DeclarationError(
            f"{where} is {env!r}; write variables by name, or names of those that are seen"
        )
    if not isinstance(env, Mapping):
        names = (env,) if isinstance(env, str) else tuple(env)
        try:
            return tuple(check_identifier(variable, "a variable") for variable in names)
        except DeclarationError as error:
            raise DeclarationError(f"{where}: {error}") from None
    for variable, value in env.items():
        if not isinstance(variable, str) or not isinstance(value, str):
            raise DeclarationError(f"{where}: {variable!r} is {value!r}; variables are text")
    return MappingProxyType(dict(env))


class Component(_Mounts):
    """
    A part that applications mount: its modules hold the schema, functions and crons.

    Args:
        name: what it is mounted as unless `use` says otherwise.
        config: the class of what it is told where it is mounted: a dataclass, or whatever else
            arguments may be; none unless said.
        package: whose modules it consists of, by dotted name; the package of the module that
            creates it unless said.
    """

    def __init__(
        self, name: str, /, *, config: type | None = None, package: str | None = None
    ) -> None:
        super().__init__()
        self.name = check_identifier(name, "a component")
        if config is not None and not isinstance(config, type):
            raise DeclarationError(
                f"{self.where}: config of the component {name!r} is {config!r}; name the class of "
                "what it is told"
            )
        if not isinstance(package, str | None):
            raise DeclarationError(
                f"{self.where}: package of the component {name!r} is {package!r}; write its dotted "
                "name"
            )
        self.package: str | None = package or sys._getframe(1).f_globals.get("__package__")
        self.config_class = config
        told = told_to(self.package)
        self._config = None if config is None or told is None else configuration(config, told)

    @property
    def config(self) -> Any:
        """
        In modules and functions of the component: what this mount is told, an instance of its
        class.

        Raises:
            DeclarationError: there is no such class, or this is not inside of a mount.
        """
        if self._config is None:
            raise DeclarationError(
                f"{self!r} is told nothing here: it has a config in its own functions, where it is "
                f"mounted, and if it says which class: Component({self.name!r}, config=...)"
            )
        return self._config

    def _told(self, component: Component, config: object) -> Mapping[str, Value]:
        """Outside of a mount nobody is told anything, as only what is loaded in one is mounted."""
        if not isfunction(config):
            return super()._told(component, config)
        return (
            NOTHING_TOLD if self._config is None else super()._told(component, config(self.config))
        )

    def __repr__(self) -> str:
        return f"<component {self.name}>"


class App(_Mounts):
    """
    The application itself.

    Args:
        auth: the issuers whose tokens are trusted; the first that matches a token counts. With
            any, `headrace[auth]` has to be installed.

    Raises:
        DeclarationError: `auth` has something else, or the extra is missing.
    """

    def __init__(self, *, auth: Sequence[AuthProvider] = ()) -> None:
        super().__init__()
        for one in auth:
            if not isinstance(one, (Oidc, CustomJwt)):
                raise DeclarationError(f"auth has {one!r}; write Oidc(...) or CustomJwt(...)")
        if auth:
            _check_extra()
        self.auth: tuple[AuthProvider, ...] = tuple(auth)


def _check_extra() -> None:
    """
    Import what `engine.server.keys` needs: here it holds up whoever loads, and later all clients.

    Raises:
        DeclarationError: it is not installed.
    """
    try:
        import_module("joserfc.jwt")
    except ImportError:
        raise DeclarationError(
            "App(auth=[...]) verifies tokens, for which joserfc is missing: "
            "pip install 'headrace[auth]'"
        ) from None


def define_app(*, auth: Sequence[AuthProvider] = ()) -> App:
    """`App`, by the name that Convex has for it."""
    return App(auth=auth)


def define_component(name: str, /, *, config: type | None = None) -> Component:
    """`Component`, by the name that Convex has for it."""
    package = sys._getframe(1).f_globals.get("__package__")
    return Component(name, config=config, package=package)
