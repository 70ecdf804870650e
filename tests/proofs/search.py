"""
Ask an index and look at every document: what is found, and in which order, has to be the same.

A round is a history of an engine in memory, with index files on a disk: mutations that write, ask
amid what they have written and fail halfway, several at a time so that they are staged on each
other; batches that are refused; queries; views that are held while others write, fold and forget;
pushes that drop the indexes and add them again; restarts and crashes. Parts of an index are tiny,
so that all of that meets folds and compactions. Texts and vectors are asked alike.

One round in `KILLED_EACH` is lived by a process too, on a disk and with threads, until it is killed
(`search_killed.py`); its parts are so large that what actions find is found by graphs.

What is asked is asked of an oracle too, `tests/naive_search.py`, over the documents that the same
function sees. Scores are computed there in plain Python: they and the order have to be the same,
ties too.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch
from zlib import crc32

import trio
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import ConvexError, Stopped, StoreFull
from engine.functions.loader import load
from engine.functions.watchdog import Watchdog
from engine.indexes import keeper
from engine.indexes.text import index as text_index
from engine.indexes.text import lexicon, ranking, runs
from engine.indexes.text import parts as text_parts
from engine.indexes.text import words as text_words
from engine.indexes.text.index import TextIndex
from engine.indexes.text.parts import Segment
from engine.indexes.vectors import index as vector_index
from engine.indexes.vectors import nearest
from engine.indexes.vectors.asked import asked
from engine.indexes.vectors.index import VectorIndex
from engine.kernel.runtime import VirtualRuntime
from engine.kernel.trace import trace_to_stderr
from engine.model.ids import Id
from engine.model.limits import Limits
from engine.model.values import UNDEFINED
from engine.node import Node, running_node
from engine.store.memory_store import MemoryStore
from engine.transaction.search import SearchBuilder, search
from engine.transaction.transaction import Transaction
from engine.transaction.usage import Usage
from engine.transaction.vector_search import search_newest, search_vectors
from engine.transaction.view import view_of
from tests import naive_search
from tests.node.nodes import ask, mutate
from tests.proofs.proof import Plan, Verdict, too_few
from tests.proofs.search_killed import Witness, live_and_kill
from tests.proofs.search_planted import PLANTED, PLANTED_IN_PROCESSES

PROMISE = "A search finds what is there, best first, exactly as of the state it is asked of."
ROUNDS = 1_000

STEPS: Final = 30
WORDS: Final = [*"abcdefgh", *(f"w{n}" for n in range(12)), "wide", "wider", "Straße", "x" * 40]
BEGINNINGS: Final = ["w", "wi", "absent", "STRA"]
WRITES: Final = ["insert", "change", "touch", "delete", "undo"]
TAGS: Final = ["red", "blue", 7.0, None]
PROBLEMS_SHOWN: Final = 5
PLANTED_ROUNDS_MAX: Final = 100
"""Until a bug is given up on."""
LEAST: Final = {"searches": 30, "found": 150, "folds": 2, "folds of vectors": 2}
"""In each round, on average."""
POINTS: Final = ("index.folded", "index.kept", "index.walked")
"""Where the upkeep of an index may be cut off, see `Runtime.pause`."""
ROUNDS_FOR_ALL: Final = 20
"""In so many there is a crash at each."""
KILLED_EACH: Final = 10
"""Of so many rounds one is lived by a process too."""
PLANTED_KILLS_MAX: Final = 15

Question = tuple[str, str, Any, int]
"""Whether for words or for what is near, a text, a tag or `ANY`, and how many are wanted."""
WORDS_OF: Final = "words"
NEAR: Final = "near"
ANY: Final = "any"
ABSENT: Final = "absent"


@mutation
async def change(ctx: MutationCtx, steps: list[Any]) -> list[Any]:
    """Take all steps; of each question its answer and the documents that there are."""
    return [await _take(ctx, step) for step in steps]


@query
async def look(ctx: QueryCtx, question: list[Any]) -> list[Any]:
    return await _answer(ctx, question)


async def _take(ctx: MutationCtx, step: list[Any]) -> Any:
    match step:
        case ["insert", text, tag]:
            await ctx.db.insert("notes", _fields(text, tag))
        case ["undo", steps]:
            try:
                await ctx.run_mutation(failing, steps=steps)
            except ConvexError:
                return None
        case ["ask", question]:
            return await _answer(ctx, question)
        case [verb, number, *fields]:
            if (doc_id := await _some(ctx, number)) is not None:
                await _rewrite(ctx, verb, doc_id, fields)
    return None


async def _rewrite(ctx: MutationCtx, verb: str, doc_id: Id[Any], fields: list[Any]) -> None:
    if verb == "change":
        await ctx.db.replace(doc_id, _fields(*fields))
    elif verb == "touch":
        await ctx.db.patch(doc_id, {"touched": await ctx.db.count("notes")})
    else:
        await ctx.db.delete(doc_id)


@mutation
async def failing(ctx: MutationCtx, steps: list[Any]) -> None:
    for step in steps:
        await _take(ctx, step)
    raise ConvexError("as planned")


def _fields(text: Any, tag: Any) -> dict[str, Any]:
    return {"text": text, "place": _place(text), "tag": UNDEFINED if tag == ABSENT else tag}


def _place(text: Any) -> Any:
    """A vector that follows from a text; now and then one that no index has."""
    if not isinstance(text, str):
        return UNDEFINED
    dice = crc32(text.encode())
    return [(dice >> shift) % 5 - 2 for shift in ((0, 8, 16) if dice % 11 else (0, 8))]


def _vector(text: str) -> list[float]:
    return [(crc32(text.encode()) >> shift) % 5 - 2 for shift in (0, 8, 16)]


async def _some(ctx: MutationCtx, number: float) -> Id[Any] | None:
    docs = await ctx.db.query("notes").collect()
    return docs[int(number) % len(docs)]["_id"] if docs else None


async def _answer(ctx: QueryCtx, question: list[Any]) -> list[Any]:
    kind, text, tag, count = question
    if kind == NEAR:
        hits = await ctx.db.vector_search(
            "notes", "by_place", vector=_vector(text), limit=int(count), filter=_condition(tag)
        )
        found = [[hit["_id"], hit["_score"]] for hit in hits]
        return [question, found, await ctx.db.query("notes").collect()]
    notes = ctx.db.query("notes").with_search_index("by_text", lambda s: _asked(s, text, tag))
    if len(text) % 2:
        found = [[doc["_id"], None] for doc in await notes.take(int(count))]
    else:
        found = [[doc["_id"], None] async for doc in notes][: int(count)]
    return [question, found, await ctx.db.query("notes").collect()]


def _condition(tag: Any) -> Callable[[Any], Any] | None:
    return None if tag == ANY else lambda q: q.eq("tag", UNDEFINED if tag == ABSENT else tag)


def _asked(s: Any, text: str, tag: Any) -> Any:
    s = s.search("text", text)
    return s if tag == ANY else s.eq("tag", UNDEFINED if tag == ABSENT else tag)


PLAIN: Final = Schema(notes=Table(v.any()))
INDEXED: Final = Schema(
    notes=Table(v.any())
    .search_index("by_text", search_field="text", filter_fields=["tag"])
    .vector_index("by_place", vector_field="place", dimensions=3, filter_fields=["tag"])
)
WITHOUT: Final = load([change, look, failing, PLAIN])
WITH: Final = load([change, look, failing, INDEXED])


@dataclass
class Story:
    """What was done and found, over all rounds."""

    done: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def compare(self, answer: list[Any], where: str) -> None:
        """
        Args:
            answer: the question, ids with their scores, or with `None` where nobody is told of
                them, and all documents.
        """
        (kind, text, tag, count), found, docs = answer
        filters = {} if tag == ANY else {"tag": naive_search.MISSING if tag == ABSENT else tag}
        if kind == NEAR:
            expected = naive_search.nearest(docs, "place", _vector(text), filters)[: int(count)]
        else:
            expected = naive_search.search(docs, "text", text, filters)[: int(count)]
        self.done["searches"] += 1
        self.done["found"] += len(expected)
        right = [[doc_id, score] for score, doc_id in expected]
        is_scored = all(score is not None for _, score in found)
        if found != (right if is_scored else [[doc_id, None] for doc_id, _ in right]):
            self.problems.append(
                f"{where}: {kind} {text!r} with {tag} of {len(docs)} found {_short(found)}, "
                f"and it is {_short(right)}"
            )

    @property
    def figure(self) -> str:
        counted = ", ".join(f"{count:,} {name}" for name, count in sorted(self.done.items()))
        return f"{counted}, {len(self.problems)} problems"


def _short(found: list[Any]) -> str:
    return " ".join(f"{doc_id[-6:]} ({score})" for doc_id, score in found) or "nothing"


def prove(plan: Plan) -> Verdict:
    """Live every history, or, planted, look whether each bug is caught."""
    trace_to_stderr(level="critical")
    if plan.planted:
        return _prove_planted(plan)
    story, witness, dice = Story(), Witness(), Random(plan.seed)
    for _ in range(plan.rounds):
        play(plan.directory, dice.getrandbits(32), story)
        if story.problems:
            break
    kills = max(1, plan.rounds // KILLED_EACH)
    if not story.problems:
        live_and_kill(plan.directory, kills, dice, witness)
    problems = story.problems + witness.problems
    for problem in problems[:PROBLEMS_SHOWN]:
        print(f"  {problem}")
    few = [] if problems else _missing(story, plan.rounds) + witness.missing(kills)
    for line in few:
        print(f"  {line}")
    figure = f"{story.figure}; in processes {witness.figure}"
    return Verdict(held=not problems and not few, figure=figure)


def _missing(story: Story, rounds: int) -> list[str]:
    """What was done too little to prove anything."""
    least = {name: count * rounds for name, count in LEAST.items()}
    least |= dict.fromkeys(map(_crashes_at, POINTS), rounds // ROUNDS_FOR_ALL)
    return too_few(story.done, least)


def _crashes_at(point: str) -> str:
    return f"crashes at {point}"


def _prove_planted(plan: Plan) -> Verdict:
    caught = sum(_is_caught(plan, bug) for bug in PLANTED)
    caught += sum(_is_caught_in_processes(plan, bug) for bug in PLANTED_IN_PROCESSES)
    bugs = len(PLANTED) + len(PLANTED_IN_PROCESSES)
    return Verdict(held=caught == bugs, figure=f"{caught} of {bugs} bugs caught")


def _is_caught(plan: Plan, bug: str) -> bool:
    story, dice = Story(), Random(plan.seed)
    with PLANTED[bug]():
        for count in range(1, PLANTED_ROUNDS_MAX + 1):
            play(plan.directory, dice.getrandbits(32), story)
            if story.problems:
                print(f"  {bug} is caught in round {count}: {story.problems[0]}")
                return True
    print(f"  {bug} is NOT CAUGHT")
    return False


def _is_caught_in_processes(plan: Plan, bug: str) -> bool:
    witness = Witness()
    live_and_kill(plan.directory, PLANTED_KILLS_MAX, Random(plan.seed), witness, bug)
    seen = [*witness.problems, *witness.missing(0)]
    told = f"caught after {witness.done['kills']} kills: {seen[0]}" if seen else "NOT CAUGHT"
    print(f"  {bug}, in processes, is {told}", flush=True)
    return bool(seen)


def play(directory: Path, seed: int, story: Story) -> None:
    """Live one history; what is wrong is added to `story`, with the seed."""
    folder = directory / f"{seed}"
    history = History(folder, seed, story)
    options = {"tail_rows_max": 4, "part_rows_max": 40}
    tiny = (
        patch.multiple(text_index, TAIL_SLOTS_MAX=6, SEGMENT_SLOTS_MAX=40),
        patch.object(VectorIndex.__init__, "__kwdefaults__", options),
        patch.object(vector_index, "ROWS_MIN", 8),
        patch.object(nearest, "CANDIDATE_ROWS", 0),
        patch.object(ranking, "FEW", 3),
        patch.object(runs, "HEAD_SLOTS", 2),
        patch.multiple(text_parts, FEW_WORDS=1, WORDS_AT_ONCE=2),
        patch.object(lexicon, "NEW_MAX", 3),
        patch.object(text_words, "PIECE_CHARS", 8),
        patch.multiple(keeper, SLICE_DOCS=4, SLICE_BYTES=300),
    )
    with ExitStack() as patches:
        for one in tiny:
            patches.enter_context(one)
        try:
            trio.run(history.live, clock=trio.testing.MockClock(autojump_threshold=0))
        except Exception as error:
            while isinstance(error, ExceptionGroup):
                error = error.exceptions[0]
            story.problems.append(f"seed {seed}: {type(error).__name__}: {error}")
    shutil.rmtree(folder, ignore_errors=True)


class History:
    """
    The lives of one engine.

    Args:
        folder: for the files of its index, in each life.
    """

    def __init__(self, folder: Path, seed: int, story: Story) -> None:
        self._folder = folder / "0"
        self._dice = Random(seed)
        self._seed = seed
        self._story = story
        self._store = MemoryStore()
        self._life = 0
        self._left = STEPS

    async def live(self) -> None:
        while self._left > 0 and not self._story.problems:
            self._life += 1
            await self._one_life()

    async def _one_life(self) -> None:
        """Live until a restart or a crash, or to the end."""
        limits = Limits(client_past_s_max=0.001)
        watchdog = Watchdog(limits)
        watchdog.start()
        runtime = VirtualRuntime(self._dice.getrandbits(32))
        try:
            with trio.CancelScope() as life:
                if self._dice.random() < 0.3:
                    self._crash_at(self._dice.choice(POINTS), runtime, life)
                try:
                    async with running_node(
                        self._store,
                        runtime=runtime,
                        limits=limits,
                        watchdog=watchdog,
                        data=self._folder,
                    ) as node:
                        await self._go_on(node, life)
                except* Stopped:
                    if not life.cancel_called:
                        raise  # else it is what the others are told of a crash
        finally:
            watchdog.close()

    async def _go_on(self, node: Node, life: trio.CancelScope) -> None:
        await node.push(WITH)
        if self._life == 1:
            inserted = [["insert", self._text(), self._tag()] for _ in range(20)]
            await self._mutate(node, inserted)
        while self._left > 0:
            self._left -= 1
            what = self._dice.choices(
                ["mutations", "refused", "query", "held", "push", "wait", "end"],
                [30, 6, 15, 8, 2, 10, 6],
            )[0]
            if what == "end":
                if self._dice.random() < 0.5:
                    await self._crash(life)
                self._story.done["restarts"] += 1
                return
            await getattr(self, f"_{what}")(node)

    def _crash_at(self, point: str, runtime: VirtualRuntime, life: trio.CancelScope) -> None:
        """Crash when somebody has come there a few times, unless the life ends before."""
        left = self._dice.randrange(6)

        async def pause() -> None:
            nonlocal left
            left -= 1
            if left == -1:
                self._story.done[_crashes_at(point)] += 1
                await self._crash(life)

        runtime.points[point] = pause

    async def _crash(self, life: trio.CancelScope) -> None:
        """End a life, and go on from what is durable now, in the store and in the files."""
        if life.cancel_called:
            return  # of two points that are come to at once the first is enough
        self._story.done["crashes"] += 1
        is_lucky = self._dice.random() < 0.5
        self._store = self._store.durable_copy(in_flight=is_lucky)
        left = self._folder.with_name(f"{self._life}")
        if (self._folder / "indexes").exists():
            shutil.copytree(self._folder, left)
        self._folder = left
        life.cancel()
        await trio.lowlevel.checkpoint()

    # Steps

    async def _mutations(self, node: Node) -> None:
        """Several at a time, so that they are staged on each other."""
        async with trio.open_nursery() as nursery:
            for _ in range(self._dice.randint(1, 4)):
                nursery.start_soon(self._mutate, node, self._program())

    async def _refused(self, node: Node) -> None:
        """The disk has no room for one batch; all that it had runs again."""
        self._store.fail_next(StoreFull("as planned"))
        self._story.done["refused"] += 1
        await self._mutations(node)

    async def _mutate(self, node: Node, steps: list[Any]) -> None:
        for answer in await mutate(node, change, steps):
            if answer is not None:
                self._compare(answer, "a mutation")

    async def _query(self, node: Node) -> None:
        self._compare(await ask(node, look, self._question()), "a query")

    async def _held(self, node: Node) -> None:
        """A view that others leave behind: it sees what it saw."""
        snapshots = node.functions._snapshots
        snapshot = snapshots.acquire()
        try:
            for _ in range(self._dice.randint(1, 3)):
                await self._mutations(node)
                with count_folds(self._story):
                    await node.runtime.sleep(0.01)
            # Amid a search others write too.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._mutations, node)
                for _ in range(3):
                    self._compare(await self._asked_of(view_of(snapshot)), "a view that was held")
        finally:
            snapshots.release(snapshot)

    async def _push(self, node: Node) -> None:
        """The index goes, and comes again while others write."""
        await node.push(WITHOUT)
        await self._mutate(node, self._writes())
        pushed = trio.Event()

        async def push() -> None:
            await node.push(WITH)
            pushed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            while not pushed.is_set():
                await self._mutate(node, self._writes())
        self._story.done["pushes"] += 1

    async def _wait(self, node: Node) -> None:
        """Let the engine do what it has time for; sometimes so long that files are written."""
        with count_folds(self._story):
            await node.runtime.sleep(self._dice.choice([0.01, 0.01, 1_000]))

    # Dice

    async def _asked_of(self, view: Any) -> list[Any]:
        """Ask a view as a function that has it would."""
        transaction = Transaction(
            view, usage=Usage(Limits()), now_ns=1, dice=self._dice, schema=None
        )
        table = transaction.table("", "notes")
        kind, text, tag, count = question = self._question()
        if kind == NEAR:
            hits = await self._near(transaction, text, tag, count)
            return [list(question), hits, await _all(transaction)]
        found = search(transaction, table, "by_text", _asked(SearchBuilder(), text, tag))
        matches: list[Any] = []
        for some in found:
            await trio.lowlevel.checkpoint()
            matches += [[match.doc["_id"], match.rank[0]] for match in some]
        return [list(question), matches[:count], await _all(transaction)]

    async def _near(self, transaction: Transaction, text: str, tag: Any, count: int) -> list[Any]:
        """What a transaction finds; what an action does has to be there, in order."""
        wanted = asked("by_place", _vector(text), count, _condition(tag))
        table = transaction.table("", "notes")
        exact = await _taken(search_vectors(transaction, table, wanted))
        newest = transaction.view, "", "notes", wanted, lambda: transaction
        nearly = await _taken(search_newest(*newest))
        assert nearly == sorted(nearly, key=lambda hit: (hit["_score"], hit["_id"]), reverse=True)
        there = await _taken(search_vectors(transaction, table, wanted._replace(limit=1_000)))
        if gone := [hit["_id"] for hit in nearly if hit not in there]:
            where = f"seed {self._seed}, life {self._life}"
            self._story.problems.append(f"{where}: an action found {gone}: not there")
        return [[hit["_id"], hit["_score"]] for hit in exact]

    def _compare(self, answer: list[Any], where: str) -> None:
        self._story.compare(answer, f"seed {self._seed}, life {self._life}, {where}")

    def _program(self) -> list[Any]:
        steps = self._writes()
        for _ in range(self._dice.randint(0, 2)):
            steps.insert(self._dice.randint(0, len(steps)), ["ask", self._question()])
        return steps

    def _writes(self) -> list[Any]:
        steps: list[Any] = []
        for _ in range(self._dice.randint(0, 4)):
            match self._dice.choices(WRITES, [10, 6, 2, 3, 1])[0]:
                case "insert":
                    steps.append(["insert", self._text(), self._tag()])
                case "change":
                    steps.append(["change", self._number(), self._text(), self._tag()])
                case "undo":
                    steps.append(["undo", self._writes()])
                case verb:
                    steps.append([verb, self._number()])
        return steps

    def _number(self) -> int:
        return self._dice.getrandbits(16)

    def _text(self) -> Any:
        if self._dice.random() < 0.05:
            return None
        count = self._dice.choice([0, 1, 2, 3, 3, 5, 8])
        return self._dice.choice([" ", ", "]).join(self._dice.choices(WORDS, k=count))

    def _tag(self) -> Any:
        return self._dice.choice([*TAGS, ABSENT])

    def _question(self) -> list[Any]:
        words = self._dice.choices([*WORDS, *BEGINNINGS], k=self._dice.randint(1, 4))
        tag = self._tag() if self._dice.random() < 0.4 else ANY
        kind = self._dice.choice([WORDS_OF, NEAR])
        return [kind, " ".join(words), tag, self._dice.choice([1, 3, 10, 100])]


async def _all(transaction: Transaction) -> list[Any]:
    table = transaction.table("", "notes")
    assert table is not None, "it was pushed"
    by_id = table.indexes["by_id"]
    return transaction.read_slice(by_id, b"", None, reverse=False, rows_max=10_000).docs


async def _taken(search: Generator[None, None, list[Any]]) -> list[Any]:
    """What a search comes to, amid which others have their turn."""
    while True:
        try:
            next(search)
        except StopIteration as end:
            return list(end.value)
        await trio.lowlevel.checkpoint()


@contextmanager
def count_folds(story: Story) -> Iterator[None]:
    original = TextIndex.replace

    def counted(self: TextIndex, parts: Any, segment: Segment) -> None:
        story.done["folds"] += 1
        original(self, parts, segment)

    installed = VectorIndex._install

    def counted_too(self: VectorIndex, *given: Any) -> None:
        story.done["folds of vectors"] += 1
        installed(self, *given)

    with (
        patch.object(TextIndex, "replace", counted),
        patch.object(VectorIndex, "_install", counted_too),
    ):
        yield
