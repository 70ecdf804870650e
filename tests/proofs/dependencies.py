"""
Which operation has to come before which, whatever the serial order: a graph, and its cycles.

    ww   both appended to a list, this one first
    wr   the other read what this one appended
    rw   this one read a list as it was before the other appended to it
    session   one session saw this one end before the other
    real time   this one had ended before the other began
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

from tests.proofs.histories import Fate, Operation


class Kind(Enum):
    """Why one comes before the other."""

    WW = "ww"
    WR = "wr"
    RW = "rw"
    SESSION = "session"
    REAL_TIME = "real time"


Cycle = list[int]
"""Operations, each of which comes before the next one, and the last before the first."""


class Scope(NamedTuple):
    """A part of a graph: some of its nodes, and edges of some kinds between them."""

    nodes: Collection[int]
    kinds: Collection[Kind]


class Dependencies:
    """
    The graph.  Its nodes are the operations by number, and further ones that are moments.

    That this ended before that began is a path over moments, or there would be as many edges as
    pairs of operations.
    """

    def __init__(self, count: int) -> None:
        self.operations_count: Final = count
        self.nodes_count = count
        self._edges: dict[Kind, dict[int, list[int]]] = {kind: {} for kind in Kind}

    def add(self, kind: Kind, before: int, after: int) -> None:
        """`before` comes before `after`; nothing if they are the same."""
        if before != after:
            self._edges[kind].setdefault(before, []).append(after)

    def add_sessions(self, operations: Iterable[Operation]) -> None:
        """The order of each session, as it saw its operations end."""
        last: dict[str, int] = {}
        for operation in operations:
            if (before := last.get(operation.session)) is not None:
                self.add(Kind.SESSION, before, operation.number)
            if operation.fate is Fate.DONE:
                last[operation.session] = operation.number

    def add_real_time(self, operations: Iterable[Operation]) -> None:
        """Everything that had ended comes before everything that began later."""
        events = [(one.begun, True, one.number) for one in operations if one.begun is not None]
        events += [
            (one.ended, False, one.number)
            for one in operations
            if one.fate is Fate.DONE and one.ended is not None
        ]
        moment: int | None = None
        is_past = True
        for _, is_beginning, number in sorted(events):
            if is_beginning and moment is not None:
                self.add(Kind.REAL_TIME, moment, number)
                is_past = True
            elif not is_beginning:
                if is_past:
                    moment, is_past = self._next_moment(moment), False
                assert moment is not None
                self.add(Kind.REAL_TIME, number, moment)

    def _next_moment(self, moment: int | None) -> int:
        following = self.nodes_count
        self.nodes_count += 1
        if moment is not None:
            self.add(Kind.REAL_TIME, moment, following)
        return following

    def is_edge(self, kind: Kind, before: int, after: int) -> bool:
        return after in self._edges[kind].get(before, ())

    def successors(self, node: int, scope: Scope) -> list[int]:
        nodes = scope.nodes
        return [
            after
            for kind in scope.kinds
            for after in self._edges[kind].get(node, ())
            if after in nodes
        ]

    def edges(self, kind: Kind, nodes: Collection[int]) -> list[tuple[int, int]]:
        """Those of a kind between `nodes`."""
        found = self._edges[kind]
        return [(one, after) for one in nodes for after in found.get(one, ()) if after in nodes]

    def knots(self, scope: Scope) -> list[set[int]]:
        """The largest sets of several nodes that all reach each other."""
        search = _Knots(self, scope)
        for node in scope.nodes:
            search.start(node)
        return search.found

    def path(self, start: int, end: int, scope: Scope) -> list[int] | None:
        """A shortest way from `start` to `end`, both included."""
        came_from: dict[int, int] = {start: start}
        waiting = deque([start])
        while waiting:
            node = waiting.popleft()
            if node == end:
                return _way_back(came_from, start, end)
            for after in self.successors(node, scope):
                if after not in came_from:
                    came_from[after] = node
                    waiting.append(after)
        return None

    def cycle(self, start: int, scope: Scope) -> Cycle | None:
        """A shortest cycle through `start`."""
        ways = [self.path(after, start, scope) for after in self.successors(start, scope)]
        return min((way for way in ways if way), key=len, default=None)

    def why(self, cycle: Sequence[int]) -> str:
        """The cycle in words, moments left out."""
        shown = [node for node in cycle if node < self.operations_count]
        parts = []
        for one, after in zip(shown, [*shown[1:], shown[0]], strict=True):
            kind = next((k for k in Kind if self.is_edge(k, one, after)), Kind.REAL_TIME)
            parts.append(f"T{one} -{kind.value}-> ")
        return "".join(parts) + f"T{shown[0]}"


class _Knots:
    """
    Strongly connected components by Tarjan's algorithm, with a stack in place of recursion.

    A node's `low` is the first node, by the order of discovery, that it is known to reach.
    """

    def __init__(self, graph: Dependencies, scope: Scope) -> None:
        self._graph = graph
        self._scope = scope
        self._order: dict[int, int] = {}
        self._low: dict[int, int] = {}
        self._open: list[int] = []
        self._is_open: set[int] = set()
        self._work: list[tuple[int, Iterator[int]]] = []
        self.found: list[set[int]] = []

    def start(self, root: int) -> None:
        """Follow everything that is reached from `root`."""
        if root in self._order:
            return
        self._discover(root)
        while self._work:
            node, rest = self._work[-1]
            if not self._go_on(node, rest):
                self._work.pop()
                self._finish(node)

    def _discover(self, node: int) -> None:
        self._order[node] = self._low[node] = len(self._order)
        self._open.append(node)
        self._is_open.add(node)
        self._work.append((node, iter(self._graph.successors(node, self._scope))))

    def _go_on(self, node: int, rest: Iterator[int]) -> bool:
        """Look at what follows `node`; whether that led to one that was not known."""
        for after in rest:
            if after not in self._order:
                self._discover(after)
                return True
            if after in self._is_open:
                self._low[node] = min(self._low[node], self._order[after])
        return False

    def _finish(self, node: int) -> None:
        if self._work:
            parent = self._work[-1][0]
            self._low[parent] = min(self._low[parent], self._low[node])
        if self._low[node] != self._order[node]:
            return
        knot: set[int] = set()
        while node not in knot:
            knot.add(self._open.pop())
        self._is_open -= knot
        if len(knot) > 1:
            self.found.append(knot)


def _way_back(came_from: dict[int, int], start: int, end: int) -> list[int]:
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]
