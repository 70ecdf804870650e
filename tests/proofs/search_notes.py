"""
What the workers of an engine that is killed write: all of it follows from their numbers.

A worker has notes of its own, by slot, and a line that says how many of its mutations were done.
So how many were is enough to know every note that there has to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from random import Random
from typing import Any, Final, NamedTuple

from engine.model.values import UNDEFINED

WORKERS: Final = 4
SLOTS: Final = 300
"""Of a worker; about three of four have a note."""
DIMENSIONS: Final = 20
ASKED_AT_FIRST: Final = 3
"""Questions, before anybody writes."""
CLUSTERS: Final = 12
TAGS: Final = ["red", "blue", 7.0, None, UNDEFINED]
WORDS: Final = [*(f"w{n}" for n in range(60)), *"abcdefgh", "wide", "wider", "Straße"]
BEGINNINGS: Final = ["w", "wi", "absent", "STRA"]

Step = tuple[str, int]
"""`put` or `drop`, and a slot."""
Notes = Mapping[int, int]
"""By slot, the number of the mutation that has put it."""


class Question(NamedTuple):
    """
    tag: a place in `TAGS`, or -1 for any.
    wanted: how many, at most.
    """

    text: str
    place: list[float]
    tag: int
    wanted: int


def steps(seed: int, worker: int, number: int) -> Iterator[Step]:
    """What a mutation does, one after the other."""
    dice = Random(f"{seed}/{worker}/{number}")
    if number == 0:
        yield from (("put", slot) for slot in range(0, SLOTS, 2))
    else:
        for _ in range(dice.randint(1, 16)):
            yield dice.choice(["put", "put", "put", "drop"]), dice.randrange(SLOTS)


def after(notes: Notes, seed: int, worker: int, number: int) -> Notes:
    """What a worker's notes are when it has done one mutation more."""
    changed = dict(notes)
    for verb, slot in steps(seed, worker, number):
        if verb == "put":
            changed[slot] = number
        else:
            changed.pop(slot, None)
    return changed


@lru_cache(maxsize=1 << 16)
def note(seed: int, worker: int, slot: int, number: int) -> Mapping[str, Any]:
    """The fields of a note, as the mutation of that number has put it; not to be changed."""
    dice = Random(f"{seed}/{worker}/{slot}/{number}")
    return {
        "worker": worker,
        "slot": slot,
        "number": number,
        "text": _text(dice),
        "tag": dice.choice(TAGS),
        "place": _place(dice),
    }


def question(dice: Random) -> Question:
    words = dice.choices([*WORDS, *BEGINNINGS], k=dice.randint(1, 4))
    tag = dice.randrange(len(TAGS)) if dice.random() < 0.4 else -1
    return Question(" ".join(words), _near(dice), tag, dice.choice([1, 3, 10, 30]))


def _text(dice: Random) -> Any:
    if dice.random() < 0.05:
        return UNDEFINED
    return dice.choice([" ", ", "]).join(dice.choices(WORDS, k=dice.choice([0, 1, 2, 3, 5, 8])))


def _place(dice: Random) -> Any:
    """Some lie at one place, and some are none that an index has."""
    if dice.random() < 0.05:
        return dice.choice([UNDEFINED, [1.0, 2.0], [0.0] * DIMENSIONS])
    return _middle(dice.randrange(CLUSTERS)) if dice.random() < 0.1 else _near(dice)


def _near(dice: Random) -> list[float]:
    middle = _middle(dice.randrange(CLUSTERS))
    return [number + dice.gauss(0.0, 0.3) for number in middle]


def _middle(cluster: int) -> list[float]:
    dice = Random(cluster)
    return [dice.gauss(0.0, 1.0) for _ in range(DIMENSIONS)]
