"""An application is put together before anything of it is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from engine.app.component import App, Component, CustomJwt, Oidc, define_app, define_component
from engine.app.references import reference_of
from engine.errors import DeclarationError

HERE = rf"{re.escape(__file__)}:\d+"


def test_a_mount_is_known_by_its_name_before_it_is_loaded() -> None:
    app = App()
    limits = app.use(Component("rate_limiter"), name="limits")
    again = app.use(Component("rate_limiter"))

    assert (limits.path, again.path) == ("limits", "rate_limiter")
    assert dict(app.mounts) == {"limits": limits, "rate_limiter": again}
    assert reference_of(limits.check) == ("limits", "functions:check")


@pytest.mark.parametrize("make", [Component, define_component])
def test_a_component_consists_of_the_package_that_creates_it(make: object) -> None:
    module: dict[str, Any] = {"__package__": "components.limiter", "make": make}
    exec("component = make('limiter')", module)

    assert module["component"].package == "components.limiter"
    assert Component("limiter", package="other").package == "other"


def test_one_component_may_be_mounted_several_times() -> None:
    app, component = App(), Component("limiter")

    mounts = [app.use(component, name=name) for name in ("one", "two")]

    assert [mount.component for mount in mounts] == [component, component]


def test_a_component_mounts_others_below_itself() -> None:
    pool = Component("pool")
    batches = pool.use(Component("batch_worker"), name="batches")

    assert batches.path == "batches"
    assert dict(pool.mounts) == {"batches": batches}


@dataclass
class Settings:
    rate: float
    names: list[str] = field(default_factory=lambda: ["a"])


def test_a_mount_is_told_plain_values_of_the_class_that_its_component_declares() -> None:
    limiter, names = Component("limiter", config=Settings), ["b"]

    mounts = [
        App().use(limiter, config=config)
        for config in (Settings(2.5), {"rate": 2.5, "names": names}, {"rate": 1})
    ]
    names.append("c")

    told = [{"rate": 2.5, "names": ["a"]}, {"rate": 2.5, "names": ["b"]}, {"rate": 1}]
    assert told == [dict(mount.config) for mount in mounts]


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        (Settings, None, "as 'limiter': its config is no Settings: .*rate"),
        (Settings, {}, "rate"),
        (Settings, {"rate": "fast"}, r"config\.rate"),
        (Settings, {"rate": 1, "rates": 1}, "rates"),
        (Settings, {"rate": {1}}, "config"),
        (Settings, 5, "config"),
        (None, {"rate": 1}, "takes no config"),
        (set, {"rate": 1}, "cannot be a config"),
    ],
)
def test_a_config_that_is_none_is_refused_where_it_is_given(
    kind: type | None, config: object, why: str
) -> None:
    with pytest.raises(DeclarationError, match=f"(?s){HERE}: <component limiter> mounted.*{why}"):
        App().use(Component("limiter", config=kind), config=config)


def test_outside_of_a_mount_a_component_has_no_config() -> None:
    for component in (Component("limiter"), Component("limiter", config=Settings)):
        with pytest.raises(DeclarationError, match="told nothing here"):
            assert component.config


def test_a_mount_sees_the_variables_that_it_is_given() -> None:
    variables = {"TOKEN": "x"}
    mount = App().use(Component("mailer"), env=variables)
    variables["OTHER"] = "y"

    assert {"TOKEN": "x"} == mount.env
    assert ("A", "B") == App().use(Component("mailer"), env=["A", "B"]).env
    with pytest.raises(DeclarationError, match=f"{HERE}: env of the mount 'mailer': 'A B' cannot"):
        App().use(Component("mailer"), env=["A B"])
    with pytest.raises(
        DeclarationError, match=f"{HERE}: env of the .*'TOKEN' is None; variables are text"
    ):
        App().use(Component("mailer"), env={"TOKEN": None})


def test_the_providers_of_an_application_are_kept_in_order() -> None:
    first = Oidc(domain="https://auth.example.com", application_id="chat")
    second = CustomJwt(issuer="me", jwks="data:application/json,{}", algorithm="ES256")

    for make in (App, define_app):
        assert make(auth=[first, second]).auth == (first, second)


def jwt(**changed: Any) -> CustomJwt:
    good: dict[str, Any] = {"issuer": "me", "jwks": "https://x.org/jwks", "algorithm": "RS256"}
    return CustomJwt(**{**good, **changed})


NOTHING: Any = "nothing of the kind"
NO_TEXT: Any = 5


def limiter_module() -> Any:
    module = ModuleType("components.limiter")
    module.__dict__["component"] = Component("limiter")
    return module


@pytest.mark.parametrize(
    ("declare", "why"),
    [
        (lambda: jwt(issuer=""), "issuer must not be empty"),
        (lambda: jwt(jwks="/etc/keys"), "jwks='/etc/keys' is no URL"),
        (lambda: jwt(algorithm="HS256"), "algorithm='HS256'; RS256 and ES256 are known"),
        (lambda: jwt(algorithm="none"), "algorithm='none'"),
        (lambda: Oidc(domain="x.org", application_id=""), "must not be empty"),
        (lambda: App(auth=[NOTHING]), r"write Oidc(...) or CustomJwt(...)"),
        (lambda: App().use(NOTHING), "not a component"),
        (lambda: App().use(Component("a"), name="a/b"), "cannot be the name of a mount"),
        (lambda: Component("a b"), "cannot be the name of a component"),
        (lambda: Component("a", config=NO_TEXT), "config of the component 'a' is 5"),
        (lambda: Component("a", package=NO_TEXT), "package of the component 'a' is 5"),
        (lambda: App().use(Component("a"), name=""), "'' cannot be the name of a mount"),
        (lambda: App().use(Component("a"), name=NO_TEXT), "name=5; the name of a mount is text"),
        (lambda: App().use(Component("a"), env=NO_TEXT), "env of the mount 'a' is 5"),
        (lambda: App().use(limiter_module()), "a module; write use(limiter.component)"),
    ],
)
def test_what_cannot_be_is_refused(declare: Callable[[], object], why: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare()

    assert why in str(caught.value)


def test_two_mounts_of_one_name_are_refused() -> None:
    app = App()
    first = app.use(Component("limiter"))
    line = first.where.rpartition(":")[2]

    with pytest.raises(
        DeclarationError, match=rf"^{__file__}:\d+: two .* at {__file__}:{line}; give"
    ):
        app.use(Component("limiter"))


@pytest.mark.parametrize("given", [{"name": "a/b"}, {"name": NO_TEXT}, {"env": NO_TEXT}])
def test_a_mount_that_is_refused_is_named_with_its_place(given: Any) -> None:
    with pytest.raises(DeclarationError, match=rf"^{__file__}:\d+: "):
        App().use(Component("a"), **given)
