"""An application is put together before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.app.component import App, Component, CustomJwt, Oidc, define_app, define_component
from engine.app.references import reference_of
from engine.errors import DeclarationError, InvalidValue


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


def test_a_mount_is_told_plain_values() -> None:
    limit = {"rate": 10.0, "names": ("a",)}

    mount = App().use(Component("limiter"), config=limit)
    limit["rate"] = 11.0

    assert dict(mount.config) == {"rate": 10, "names": ["a"]}
    with pytest.raises(InvalidValue):
        App().use(Component("limiter"), config={"when": {1}})


def test_the_providers_of_an_application_are_kept_in_order() -> None:
    first = Oidc(domain="https://auth.example.com", application_id="chat")
    second = CustomJwt(issuer="me", jwks="data:application/json,{}", algorithm="ES256")

    for make in (App, define_app):
        assert make(auth=[first, second]).auth == (first, second)


def jwt(**changed: Any) -> CustomJwt:
    good: dict[str, Any] = {"issuer": "me", "jwks": "https://x.org/jwks", "algorithm": "RS256"}
    return CustomJwt(**{**good, **changed})


NOTHING: Any = "nothing of the kind"


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
    ],
)
def test_what_cannot_be_is_refused(declare: Callable[[], object], why: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare()

    assert why in str(caught.value)


def test_two_mounts_of_one_name_are_refused() -> None:
    app = App()
    app.use(Component("limiter"))

    with pytest.raises(DeclarationError, match="mounted as 'limiter'; give one of them another"):
        app.use(Component("limiter"))
