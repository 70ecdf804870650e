"""What messages and READMEs tell people to type is there to be typed."""

from __future__ import annotations

import re
import tomllib

from engine.cli.command import VERBS
from tests.architecture.source_tree import ROOT, files

COMMAND = re.compile(r"`headrace ([a-z-]+)")
"""In an error, a help text, a docstring or a README."""
TOLD = ("engine", "components", "README.md", "bench", "ops")


def test_every_verb_that_is_named_exists() -> None:
    named: dict[str, set[str]] = {}
    for path in files():
        place = path.relative_to(ROOT)
        if place.parts[0] in TOLD and path.suffix in (".py", ".md", ".html"):
            for verb in COMMAND.findall(path.read_text()):
                named.setdefault(verb, set()).add(str(place))

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = {*VERBS, *project["entry-points"]["headrace.commands"]}
    assert {} == {verb: places for verb, places in named.items() if verb not in known}
    assert len(named) > 5
