"""People whose migrations a test starts, stops and cuts off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness
from engine.store.interface import Tree
from tests.components.lives import Lives

APPLICATION = load(Path(__file__).with_name("people.py"))
WHOLE: Final = ("set_theme", "in_batches_of_two", "in_three_parts", "side_by_side")
"""Migrations of everybody."""


class Town:
    """The application, by what a test does with it."""

    def __init__(self, life: Lives) -> None:
        self.life = life

    @property
    def t(self) -> BlockingHarness:
        return self.life.t

    def add(self, *numbers: float) -> None:
        self.t.mutation("people:add", {"numbers": list(numbers)})

    def switch(self, number: float, on: bool) -> None:
        self.t.mutation("people:switch", {"number": number, "on": on})

    def start(self, name: str, **options: Any) -> Any:
        return self.t.mutation("people:start", {"name": name, "options": options})

    def serially(self, *names: str) -> Any:
        return self.t.mutation("people:serially", {"names": list(names)})

    def cancel(self, name: str) -> Any:
        return self.t.mutation("people:cancel", {"name": name})

    def cut(self, *cuts: tuple[int, bool]) -> None:
        for batches, in_flight in cuts:
            self.life.cut(batches, in_flight=in_flight)

    def finish(self) -> None:
        self.t.finish_all_scheduled_functions()

    def status(self, *names: str) -> Any:
        found = self.t.query("people:status", {"names": list(names)})
        return found[0] if len(names) == 1 else found

    @property
    def people(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.t.query("people:people")
        return found

    @property
    def seen(self) -> dict[float, int]:
        """How often each was seen, in the order in which they came."""
        return {person["n"]: person.get("seen", 0) for person in self.people}

    def rows(self) -> list[tuple[bytes, bytes]]:
        """Everything that is stored, but for what the engine keeps for itself."""
        snapshot = self.life.store.snapshot()
        with snapshot:
            return [row for tree in Tree for row in snapshot.range(tree, b"", None)]


@contextmanager
def town(*numbers: float) -> Iterator[Town]:
    with Lives(APPLICATION) as life:
        here = Town(life)
        here.add(*numbers)
        yield here
