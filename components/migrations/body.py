"""
A migration on the application's side: what it does to documents when the component asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Final, NoReturn, TypeAlias, cast

from components.migrations.protocol import (
    Asked,
    Batch,
    BatchAsked,
    Bounds,
    Change,
    DryAsked,
    Plan,
    Skipped,
)
from engine import (
    ConvexError,
    Id,
    MutationCtx,
    OrderedQuery,
    PaginationOptions,
    TableQuery,
    Value,
    gather,
    paginator,
)

Range: TypeAlias = Callable[[TableQuery[Any]], OrderedQuery[Any]]
"""Given the query of a table, which documents of it, and in which order."""

PAGE: Final = 25
"""
Documents that are read at a time.

After so many a batch looks at what it has used, and ends early where it has used a half: whoever
has large documents, or reads others for each, does not have to find the right size of a batch.
"""
CHANGES_SHOWN: Final = 10
ERROR_LENGTH_MAX: Final = 500
DRY_RUN: Final = "DryRun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What `Migrations.define` was given."""

    table: Any
    migrate_one: Callable[[MutationCtx, Any], Any]
    batch_size: int
    custom_ranges: tuple[Range, ...]
    ranges: int
    parallelize: bool

    async def do(self, ctx: MutationCtx, migration: Any, asked: Asked) -> Any:
        """
        Args:
            migration: the function that this is the body of.
        """
        match asked["kind"]:
            case "plan":
                return await self._plan(ctx)
            case "batch":
                return await self._batch(ctx, migration, asked)
            case "document":
                return await self._one_by_id(ctx, cast("Id[Any]", asked["document"]))
            case "dry":
                return await self._dry(ctx, migration, asked)

    async def _plan(self, ctx: MutationCtx) -> Plan:
        if self.custom_ranges:
            return {"parts": [self._custom() for _ in self.custom_ranges], "total": None}
        return {"parts": await self._bounds(ctx), "total": await ctx.db.count(self.table)}

    def _custom(self) -> Bounds:
        return {"custom": len(self.custom_ranges)} if self.custom_ranges else {}

    async def _bounds(self, ctx: MutationCtx) -> list[Bounds]:
        """Equal times of creation; whatever is created from now on belongs to the last of them."""
        first = await ctx.db.query(self.table).first()
        last = await ctx.db.query(self.table).order("desc").first()
        if self.ranges == 1 or first is None or last is None:
            return [{}]
        since, until = first["_creationTime"], last["_creationTime"]
        step = (until - since) / self.ranges
        cuts = sorted({since + step * number for number in range(1, self.ranges)})
        parts: list[Bounds] = [{} for _ in range(len(cuts) + 1)]
        for number, cut in enumerate(cuts):
            parts[number]["upper"] = parts[number + 1]["lower"] = cut
        return parts

    async def _batch(self, ctx: MutationCtx, migration: Any, asked: BatchAsked) -> Batch:
        wanted = int(asked.get("size", self.batch_size))
        batch: Batch = {
            "continueCursor": asked["cursor"],
            "isDone": False,
            "processed": 0,
            "skipped": [],
        }
        while batch["processed"] < wanted and not batch["isDone"]:
            page = await self._documents(ctx, asked).paginate(
                {
                    "numItems": min(PAGE, wanted - batch["processed"]),
                    "cursor": batch["continueCursor"],
                }
            )
            if asked["one_by_one"]:
                batch["skipped"] += await _one_by_one(ctx, migration, page["page"])
            else:
                await self._all(ctx, page["page"])
            batch["processed"] += len(page["page"])
            batch["isDone"] = page["isDone"]
            batch["continueCursor"] = None if page["isDone"] else page["continueCursor"]
            if await _is_half_used(ctx):
                break
        return batch

    def _documents(self, ctx: MutationCtx, asked: BatchAsked) -> OrderedQuery[Any]:
        """
        Raises:
            ValueError: the part was made of other ranges, by code that was there before.
            TypeError: what was given as a range makes no query.
        """
        documents = paginator(ctx.db).query(self.table)
        begun = int(asked["bounds"].get("custom", 0))
        if begun != len(self.custom_ranges):
            raise ValueError(
                f"it was begun with {begun} ranges of its own, and has {len(self.custom_ranges)} "
                "now: begin anew, with reset=True"
            )
        if self.custom_ranges:
            return _query_of(self.custom_ranges[asked["part"]](documents))
        lower, upper = asked["bounds"].get("lower"), asked["bounds"].get("upper")

        def within(bounds: Any) -> Any:
            bounds = bounds if lower is None else bounds.gte("_creationTime", lower)
            return bounds if upper is None else bounds.lt("_creationTime", upper)

        return documents.with_index("by_creation_time", within)

    async def _all(self, ctx: MutationCtx, documents: Sequence[Any]) -> None:
        if self.parallelize:
            await gather(*(self._one(ctx, document) for document in documents))
            return
        for document in documents:
            await self._one(ctx, document)

    async def _one_by_id(self, ctx: MutationCtx, id: Id[Any]) -> None:  # noqa: A002
        document = await ctx.db.get(id)
        if document is not None:  # what went before it may have deleted it
            await self._one(ctx, document)

    async def _one(self, ctx: MutationCtx, document: Mapping[str, Any]) -> None:
        try:
            made = self.migrate_one(ctx, document)
            patch: Mapping[str, Value] | None = await made if isawaitable(made) else made
            if patch:
                await ctx.db.patch(document["_id"], patch)
        except Exception as error:
            error.add_note(f"at the document {document['_id']}")
            raise

    async def _dry(self, ctx: MutationCtx, migration: Any, asked: DryAsked) -> NoReturn:
        """
        Raises:
            ConvexError: what was done, which this undoes.
        """
        first: BatchAsked = {
            "kind": "batch",
            "part": 0,
            "bounds": self._custom(),
            "cursor": asked["cursor"],
            "size": asked.get("size", self.batch_size),
            "one_by_one": False,
        }
        opts: PaginationOptions = {"numItems": int(first["size"]), "cursor": asked["cursor"]}
        page = await self._documents(ctx, first).paginate(opts)
        batch = await self._batch(ctx, migration, first)
        changes = await self._changes(ctx, page["page"][: batch["processed"]])
        raise ConvexError({"kind": DRY_RUN, "found": {**batch, "changes": changes}})

    async def _changes(self, ctx: MutationCtx, documents: Sequence[Any]) -> list[Change]:
        """The first of the documents that are other ones now."""
        changes: list[Change] = []
        for before in documents:
            after = await ctx.db.get(self.table, before["_id"])
            if after != before:
                changes.append({"before": before, "after": after})
            if len(changes) == CHANGES_SHOWN:
                break
        return changes


def refuse_unless_size(size: float) -> None:
    """
    Raises:
        ValueError: a batch cannot have so many documents.
    """
    if isinstance(size, bool) or not (size >= 1 and size == size // 1):
        raise ValueError(f"a batch has to have documents, 1 or more of them: batch_size={size!r}")


def _query_of(found: Any) -> OrderedQuery[Any]:
    if not isinstance(found, OrderedQuery):
        raise TypeError(
            f"custom_range returned {type(found).__name__}, and has to return the query that it is "
            'given, narrowed: lambda q: q.with_index("by_plan", plan="free")'
        )
    return found


async def _one_by_one(
    ctx: MutationCtx, migration: Any, documents: Sequence[Mapping[str, Any]]
) -> list[Skipped]:
    """Each in a sub-transaction; what one that fails has written goes with it."""
    skipped: list[Skipped] = []
    for document in documents:
        asked = {"kind": "document", "document": document["_id"]}
        try:
            await ctx.run_mutation(migration, do=asked)
        except Exception as error:
            skipped.append({"document": document["_id"], "error": told(error)})
    return skipped


async def _is_half_used(ctx: MutationCtx) -> bool:
    metrics = await ctx.meta.get_transaction_metrics()
    counted = cast("Mapping[str, Mapping[str, int]]", metrics)
    return any(each["used"] > each["remaining"] for each in counted.values())


def told(error: Exception) -> str:
    """An error in a line or two, short enough to be kept."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("at the document")]
    text = ", ".join([f"{type(error).__name__}: {error}", *notes])
    return text if len(text) <= ERROR_LENGTH_MAX else f"{text[:ERROR_LENGTH_MAX]}..."
