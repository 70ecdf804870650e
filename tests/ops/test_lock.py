"""The lock has a version for everything that the project asks for, and for what that needs."""

from __future__ import annotations

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ops.lib.lock import LOCK, declared, pinned


def locked() -> dict[str, str]:
    lines = (line for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    return dict(line.split("==") for line in lines)


def test_this_environment_is_the_locked_one() -> None:
    assert locked() == pinned(declared())


def test_the_lock_is_within_the_declared_bounds() -> None:
    versions = locked()

    outside = [
        str(need)
        for need in declared()
        if not need.specifier.contains(versions[canonicalize_name(need.name)])
    ]

    assert outside == []


def test_what_an_extra_brings_is_followed() -> None:
    pins = pinned([Requirement("httpx[http2]")])

    assert {"httpx", "httpcore", "h2", "hpack"} <= pins.keys()
