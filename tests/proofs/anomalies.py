"""
What in a history no serial order explains, and what kind of anomaly that is.

    found = anomalies(history.operations)

The values of a list name, in their order, all transactions that wrote it; so every read tells
which writes come before its own transaction and which after (`dependencies`).  A history that is
strictly serializable has no cycle of these, and none that real time or a session closes.

    of one operation    internal, garbage, duplicate, incompatible order, lost append,
                        G1a aborted read, G1b intermediate read
    of a cycle          G0          writes alone
                        G1c         writes and reads of them
                        G-single    one read of what was overwritten
                        G2          several
                        ... session, ... real time: only together with the order of these

Given a read of every list after everything else, it finds something if and only if there is no
serial order; `tests/proofs` are held to that in `tests/unit/proofs`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from tests.proofs.dependencies import Cycle, Dependencies, Kind, Scope
from tests.proofs.histories import Append, Fate, Operation, Read

Values = tuple[int, ...]

BEGINNINGS_MAX: Final = 300
"""Of a knot of thousands, this many places are tried for the simplest cycle."""


class Anomaly(NamedTuple):
    """What was found, and in which operations."""

    kind: str
    text: str
    operations: tuple[int, ...]


def anomalies(operations: Sequence[Operation]) -> list[Anomaly]:
    """
    Everything that is wrong with a history; of each knot of cycles the simplest one.

    Args:
        operations: numbered in this order.

    Raises:
        ValueError: two operations append one value to one list, so reads do not tell them apart.
    """
    lists = _Lists(operations)
    graph = lists.dependencies()
    return lists.found + list(_cycles(graph, operations))


class _Lists:
    """The lists of a history: who appended what, the longest that was read of each, and by whom."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.found: list[Anomaly] = []
        self._operations = operations
        self._writers = _writers(operations)
        self._undone = _undone(operations)
        self._longest: dict[int, Values] = defaultdict(tuple)
        self._readers: dict[int, list[tuple[Operation, Values]]] = defaultdict(list)
        """By key, with what was there before the reader's own appends."""
        for operation in operations:
            if operation.fate is Fate.DONE:
                self._take_in(operation)
        for key, longest in self._longest.items():
            self._check_order(key, longest)
        self._seen = {(key, value) for key, longest in self._longest.items() for value in longest}

    def dependencies(self) -> Dependencies:
        """The graph of all that is known to have been done."""
        done = [one for one in self._operations if self._is_done(one)]
        graph = Dependencies(len(self._operations))
        unseen = self._unseen(done)
        for key in {*self._longest, *unseen}:
            self._add_writes(graph, key, unseen[key])
            self._add_reads(graph, key, unseen[key])
        graph.add_sessions(done)
        graph.add_real_time(done)
        return graph

    # Reading the history

    def _take_in(self, operation: Operation) -> None:
        """Note what an operation read, if it goes together with what else it did."""
        before: dict[int, Values] = {}
        own: dict[int, Values] = defaultdict(tuple)
        for step in operation.steps:
            match step:
                case Append(key=key, value=value):
                    own[key] += (value,)
                case Read(key=key, values=values):
                    appended = own[key]
                    found = values[: len(values) - len(appended)]
                    if before.get(key, found) + appended != values:
                        self._note("internal", operation, key, values)
                        continue
                    before[key] = found
                    self._longest[key] = max(self._longest[key], values, key=len)
        for key, found in before.items():
            self._readers[key].append((operation, found))

    def _check_order(self, key: int, longest: Values) -> None:
        for operation, values in self._readers[key]:
            if values != longest[: len(values)]:
                self._note("incompatible order", operation, key, values, f", also {longest}")
            if len(set(values)) < len(values):
                self._note("duplicate", operation, key, values)
            self._check_writers(operation, key, values)
        self._check_each_writer(key, longest)
        in_order = [one for one in self._readers[key] if one[1] == longest[: len(one[1])]]
        self._readers[key] = in_order

    def _check_writers(self, operation: Operation, key: int, values: Values) -> None:
        for value in values:
            if (key, value) in self._undone:
                self._note("G1a aborted read", operation, key, values, f": {value} was undone")
            elif (key, value) not in self._writers:
                self._note("garbage", operation, key, values, f": nobody appended {value}")
            elif self._writers[key, value] == operation.number:
                self._note("internal", operation, key, values, f", before it appended {value}")

    def _check_each_writer(self, key: int, longest: Values) -> None:
        """Whether each transaction's values are there in the order in which it appended them."""
        by_writer: dict[int, list[int]] = defaultdict(list)
        for value in longest:
            if (writer := self._writers.get((key, value))) is not None:
                by_writer[writer].append(value)
        for writer, values in by_writer.items():
            operation = self._operations[writer]
            appended = [one.value for one in _appends(operation) if one.key == key]
            if appended[: len(values)] != values:
                self._note("incompatible order", operation, key, longest)

    def _note(
        self, kind: str, operation: Operation, key: int, values: Values, why: str = ""
    ) -> None:
        text = f"{key} was read as {values}{why}, in {operation}"
        self.found.append(Anomaly(kind, text, (operation.number,)))

    # What follows from it

    def _is_done(self, operation: Operation) -> bool:
        """Whether it was answered, or somebody has seen something of it."""
        if operation.fate is not Fate.UNKNOWN:
            return operation.fate is Fate.DONE
        return any((one.key, one.value) in self._seen for one in _appends(operation))

    def _unseen(self, done: Iterable[Operation]) -> dict[int, list[Operation]]:
        """By key, who appended what nobody has read."""
        unseen: dict[int, list[Operation]] = defaultdict(list)
        for operation in done:
            for one in _appends(operation):
                if (one.key, one.value) not in self._seen:
                    unseen[one.key].append(operation)
        return unseen

    def _add_writes(self, graph: Dependencies, key: int, unseen: Iterable[Operation]) -> None:
        writers = self._writers_of(key)
        for one, after in pairwise(writers):
            if one is not None and after is not None:
                graph.add(Kind.WW, one, after)
        if writers and (last := writers[-1]) is not None:
            for operation in unseen:
                graph.add(Kind.WW, last, operation.number)

    def _add_reads(self, graph: Dependencies, key: int, unseen: Iterable[Operation]) -> None:
        writers = self._writers_of(key)
        for reader, values in self._readers[key]:
            at = len(values)
            if at and (writer := writers[at - 1]) is not None:
                graph.add(Kind.WR, writer, reader.number)
            if at < len(writers):
                after = writers[at]
                if after is not None:
                    graph.add(Kind.RW, reader.number, after)
                if at and after == writers[at - 1] != reader.number:
                    self._note("G1b intermediate read", reader, key, values)
            for operation in unseen:
                graph.add(Kind.RW, reader.number, operation.number)
                self._check_lost(reader, key, values, operation)

    def _writers_of(self, key: int) -> list[int | None]:
        """Who appended each value of the longest list; `None` where nobody did."""
        return [self._writers.get((key, value)) for value in self._longest[key]]

    def _check_lost(self, reader: Operation, key: int, values: Values, lost: Operation) -> None:
        if reader.begun is None or lost.ended is None or reader.begun < lost.ended:
            return
        self._note("lost append", reader, key, values, f", after {lost} was answered")


def _appends(operation: Operation) -> Iterator[Append]:
    return (step for step in operation.steps if isinstance(step, Append))


def _writers(operations: Iterable[Operation]) -> dict[tuple[int, int], int]:
    writers: dict[tuple[int, int], int] = {}
    for operation in operations:
        if operation.fate is Fate.ABORTED:
            continue
        for one in _appends(operation):
            other = writers.setdefault((one.key, one.value), operation.number)
            if other != operation.number:
                raise ValueError(f"T{other} and T{operation.number} both make {one}")
    return writers


def _undone(operations: Iterable[Operation]) -> set[tuple[int, int]]:
    undone = {(one.key, one.value) for operation in operations for one in operation.undone}
    for operation in operations:
        if operation.fate is Fate.ABORTED:
            undone |= {(one.key, one.value) for one in _appends(operation)}
    return undone


# Cycles

_LEVELS: Final = (
    ("G0", (Kind.WW,)),
    ("G1c", (Kind.WW, Kind.WR)),
    ("G2", (Kind.WW, Kind.WR, Kind.RW)),
)
_ORDERS: Final[tuple[tuple[str, tuple[Kind, ...]], ...]] = (
    ("", ()),
    (" session", (Kind.SESSION,)),
    (" real time", (Kind.SESSION, Kind.REAL_TIME)),
)


def _cycles(graph: Dependencies, operations: Sequence[Operation]) -> Iterator[Anomaly]:
    """Of each knot the simplest cycle: the fewest kinds of edges, real time last."""
    everything = Scope(range(graph.nodes_count), tuple(Kind))
    tangled = set().union(*graph.knots(everything))
    known: list[set[int]] = []
    for suffix, orders in _ORDERS:
        for name, kinds in _LEVELS:
            for knot in graph.knots(Scope(tangled, kinds + orders)):
                if any(cycle <= knot for cycle in known):
                    continue
                is_single, cycle = _simplest(graph, Scope(knot, kinds + orders))
                known.append(set(cycle))
                kind = "G-single" if name == "G2" and is_single else name
                yield _told(kind + suffix, graph, cycle, operations)


def _simplest(graph: Dependencies, scope: Scope) -> tuple[bool, Cycle]:
    """A cycle, and whether it has one anti-dependency only; few of them, if not."""
    rest = Scope(scope.nodes, [kind for kind in scope.kinds if kind is not Kind.RW])
    if Kind.RW in scope.kinds:
        for reader, writer in graph.edges(Kind.RW, scope.nodes)[:BEGINNINGS_MAX]:
            if way := graph.path(writer, reader, rest):
                return True, way
    beginnings = list(scope.nodes)[:BEGINNINGS_MAX]
    cycles = [cycle for node in beginnings if (cycle := graph.cycle(node, scope))]
    return False, min(cycles, key=len)


def _told(kind: str, graph: Dependencies, cycle: Cycle, operations: Sequence[Operation]) -> Anomaly:
    members = [node for node in cycle if node < graph.operations_count]
    lines = [graph.why(cycle), *(str(operations[number]) for number in sorted(members))]
    return Anomaly(kind, "; ".join(lines), tuple(members))
