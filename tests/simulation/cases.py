"""
Seeds of the simulation of a whole engine that once failed, and what that was.

`cases.json` is a list, in which a person writes down what `ops/prove simulation` found; every run
of the tests plays all of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, NamedTuple

FILE: Final = Path(__file__).with_name("cases.json")


class Case(NamedTuple):
    """
    A seed, and in one sentence what went wrong with it.

    planted: the same bug, by its name in `planted_in_whole`: with it the seed fails again, as long
        as its history is still the one in which that matters.
    """

    seed: int
    was: str
    planted: str


def cases() -> list[Case]:
    """All that are kept."""
    return [Case(**each) for each in json.loads(FILE.read_text())]
