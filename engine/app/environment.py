"""
`env`: the variables of the process and of `.env.local`, to be read.

    app = App(auth=[Oidc(domain=env["AUTH_DOMAIN"], application_id="chat")])

An application sees the process's variables, and those of the file `.env.local`
in its root where the process has none.  A component sees nothing but what it is
given where it is mounted:

    mail = app.use(mailer, env={"MAIL_TOKEN": env["MAIL_TOKEN"]})

`env.get("HEADRACE_DEV")` is "1" in the verbs of the command line, unless it was set
before, but empty under `headrace serve` and missing in other programs: what must not
happen in production asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from engine.errors import DeclarationError, VariableMissing

FILE_NAME: Final = ".env.local"
DEV_VARIABLE: Final = "HEADRACE_DEV"


StandIn: TypeAlias = Callable[[str], str]


class Variables(Mapping[str, str]):
    """
    Some variables, and where they come from.

    Args:
        values: by name.
        source: how an error names the place to add one.
        stand_in: makes a value for a variable that is missing, instead of an error.
    """

    def __init__(
        self, values: Mapping[str, str], source: str, stand_in: StandIn | None = None
    ) -> None:
        self._values = MappingProxyType(dict(values))
        self.source = source
        self.stand_in = stand_in

    def __getitem__(self, name: str) -> str:
        try:
            return self._values[name]
        except KeyError:
            if self.stand_in is not None:
                return self.stand_in(name)
            raise VariableMissing(name, self.source) from None

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def given_to(env: Mapping[str, str]) -> Variables:
    """All that a component sees: what it was given where it is mounted."""
    return Variables(env, "a component sees what it is given: app.use(..., env={'{name}': ...})")


NO_VARIABLES: Final = given_to({})


def read_environment(root: Path | None) -> Variables:
    """
    The variables that an application in `root` sees.

    Raises:
        DeclarationError: a line of `.env.local` that is no assignment.
    """
    stand_in = _stand_in.get()
    if root is None:
        return Variables(os.environ, "set it in the environment of the process", stand_in)
    file = root / FILE_NAME
    source = f"add a line {{name}}=... to {file}, or set it in the environment of the process"
    text = file.read_text("utf-8") if file.is_file() else ""
    return Variables({**_parse(text, file), **os.environ}, source, stand_in)


def _parse(text: str, file: Path) -> dict[str, str]:
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.strip().isidentifier():
            raise DeclarationError(f"{file}:{number}: {line!r} is no line NAME=value")
        values[name.strip()] = _unquoted(value.strip())
    return values


def _unquoted(value: str) -> str:
    for quote in ('"', "'"):
        if len(value) >= 2 and value[0] == value[-1] == quote:
            return value[1:-1].replace("\\n", "\n") if quote == '"' else value[1:-1]
    return value.partition(" #")[0].rstrip()


_stand_in: Final[ContextVar[StandIn | None]] = ContextVar("values of missing ones", default=None)


@contextmanager
def standing_in(make: StandIn) -> Iterator[None]:
    """Inside, what an application reads and is not set is what `make` makes of its name."""
    token = _stand_in.set(make)
    try:
        yield
    finally:
        _stand_in.reset(token)


current_variables: Final[ContextVar[Variables | None]] = ContextVar("environment", default=None)
"""What `env` is here; see `using`."""


class using:  # noqa: N801 - as a `contextmanager`, which takes four times as long
    """Inside, `env` is these variables: around the loading and the running of application code."""

    __slots__ = ("_outside", "_variables")

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self._outside: Token[Variables | None]

    def __enter__(self) -> None:
        self._outside = current_variables.set(self._variables)

    def __exit__(self, *_: object) -> None:
        current_variables.reset(self._outside)


class Environment(Mapping[str, str]):
    """The variables of whoever asks: the application, or a component, which has none."""

    def __getitem__(self, name: str) -> str:
        """
        The value of a variable.

        Raises:
            VariableMissing: it is not set; says in which file to set it. It is a `KeyError`.
        """
        return self._variables[name]

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def get(self, name: str, default: Any = None, /) -> Any:
        """The value of a variable, or `default` if it is not set."""
        return self[name] if name in self else default  # noqa: SIM401 - this is the get

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __repr__(self) -> str:
        return f"<environment of {len(self)} variables>"

    @property
    def _variables(self) -> Variables:
        current = current_variables.get()
        return read_environment(None) if current is None else current


env: Final[Mapping[str, str]] = Environment()
