"""What messages and READMEs tell people to type is there to be typed."""

from __future__ import annotations

import re

from engine.cli.command import VERBS
from tests.architecture.source_tree import ROOT, files

COMMAND = re.compile(r"`headrace ([a-z-]+)")
"""In an error, a help text, a docstring or a README; what other distributions add is not here."""
TOLD = ("engine", "components", "README.md", "bench", "ops")


def test_every_verb_that_is_named_exists() -> None:
    named: dict[str, set[str]] = {}
    for path in files():
        place = path.relative_to(ROOT)
        if place.parts[0] in TOLD and path.suffix in (".py", ".md", ".html"):
            for verb in COMMAND.findall(path.read_text()):
                named.setdefault(verb, set()).add(str(place))

    assert {} == {verb: places for verb, places in named.items() if verb not in VERBS}
    assert len(named) > 5
