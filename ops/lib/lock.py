"""
Writes ops/requirements.lock: the versions in this environment of what the project needs, and
of what that needs in turn.

    .venv/bin/pip install --upgrade trio    # or whatever is to move
    .venv/bin/python ops/lib/lock.py        # then ops/test, then commit
"""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "ops" / "requirements.lock"
HEADER = "# The versions that ops/test runs with. Made by ops/lib/lock.py.\n"


def main() -> None:
    pins = sorted(pinned(declared()).items())
    LOCK.write_text(HEADER + "".join(f"{name}=={version}\n" for name, version in pins))
    print(f"{len(pins)} versions in {LOCK.relative_to(ROOT)}")


def declared() -> list[Requirement]:
    """What pyproject.toml asks for, its extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(one for extra in extras.values() for one in extra)]
    return [need for need in map(Requirement, wanted) if need.name != project["name"]]


def pinned(wanted: list[Requirement]) -> dict[str, str]:
    """The installed version of all of `wanted`, and of whatever they need here."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    while wanted:
        need = wanted.pop()
        installed = distribution(need.name)
        pins[canonicalize_name(need.name)] = installed.version
        for extra in {"", *need.extras} - {extra for name, extra in seen if name == need.name}:
            seen.add((need.name, extra))
            wanted += applying(installed.requires or [], extra)
    return pins


def applying(requirements: list[str], extra: str) -> list[Requirement]:
    """Those of `requirements` whose marker holds on this machine."""
    parsed = map(Requirement, requirements)
    return [need for need in parsed if not need.marker or need.marker.evaluate({"extra": extra})]


if __name__ == "__main__":
    main()
