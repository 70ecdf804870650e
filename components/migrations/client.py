"""What applications use: migrations of their tables, defined next to each other and started."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NotRequired, TypeAlias, TypedDict, TypeVar, Unpack

from components.migrations.body import DRY_RUN, Body, Range, refuse_unless_size
from components.migrations.protocol import Asked, DryRun, MigrationStatus
from engine import (
    UNDEFINED,
    ActionCtx,
    ConvexError,
    Mount,
    MutationCtx,
    MutationFunction,
    QueryCtx,
    Reference,
    Undefined,
    Value,
    get_function_name,
    make_function_reference,
)
from engine import internal_mutation as engine_internal_mutation

D = TypeVar("D")
N = TypeVar("N", int, float)

DEFAULT_BATCH_SIZE: Final = 100

MigrateOne: TypeAlias = Callable[
    [MutationCtx, D], Awaitable[Mapping[str, Value] | None] | Mapping[str, Value] | None
]
"""Given a document, what to patch into it, if anything."""
Runnable: TypeAlias = MutationFunction[..., Any] | Reference | str
"""A migration: what `define` returns, or how another module refers to it."""
AnyCtx: TypeAlias = QueryCtx | MutationCtx | ActionCtx


class Options(TypedDict, total=False):
    """What a migration or a runner may be called with, as `headrace run` does."""

    fn: str
    """Of a runner without migrations of its own: the one to run."""
    cursor: str | None
    """Where to begin; `None` is the beginning. Without it, where it was."""
    batchSize: float
    dryRun: bool
    next: list[str]
    reset: bool
    skipErrors: bool
    component: str
    """Where it is expected to be mounted, as `headrace migrations` looks for it there."""


class _Given(Options):
    do: NotRequired[Asked]
    """Of the component, for one of its steps."""


class Migrations:
    """
    Args:
        mount: the migrations that the application uses.
        default_batch_size: documents of a transaction, where nobody says another number.
        internal_mutation: what makes the functions, if the application has its own.

    Raises:
        ValueError: batches of no documents.
    """

    def __init__(
        self,
        mount: Mount,
        /,
        *,
        default_batch_size: int = DEFAULT_BATCH_SIZE,
        internal_mutation: Callable[..., Any] = engine_internal_mutation,
    ) -> None:
        self._mount = mount
        self._batch_size = _checked(default_batch_size)
        self._make = internal_mutation

    def define(
        self,
        table: type[D] | str,
        /,
        *,
        batch_size: int | None = None,
        custom_range: Range | Sequence[Range] | None = None,
        ranges: int = 1,
        parallelize: bool = False,
    ) -> Callable[[MigrateOne[D]], MutationFunction[..., Any]]:
        """
        Make a migration of a function that is given each document of a table.

            @migrations.define("users", batch_size=50)
            async def set_theme(ctx: MutationCtx, user: User) -> dict[str, Value] | None:
                return None if "theme" in user else {"theme": "light"}

        What it returns, if anything, is patched into the document.  It may do anything else, too.

        Args:
            batch_size: documents of a transaction.
            custom_range: which documents, given the query of the table: `lambda q:
                q.with_index("by_plan", plan="free")`; or several of that, which go on side by
                side. Not by a field that the function changes: a document could move away from
                before, or back behind, the place that has been reached.
            ranges: into how many parts, of equal times of creation, the table is divided; they go
                on side by side.
            parallelize: call the function for some documents at a time, by `gather`, which takes
                them one after another, and goes on after one that fails.

        Raises:
            ValueError: a number that makes no sense, or both kinds of ranges.
        """
        if ranges < 1 or (ranges > 1 and custom_range is not None):
            raise ValueError("ranges is 1 or more, and not said where custom_range is")
        size = self._batch_size if batch_size is None else _checked(batch_size)
        custom = (custom_range,) if callable(custom_range) else tuple(custom_range or ())

        def made(migrate_one: MigrateOne[D]) -> MutationFunction[..., Any]:
            body = Body(
                table=table,
                migrate_one=migrate_one,
                batch_size=size,
                custom_ranges=custom,
                ranges=ranges,
                parallelize=parallelize,
            )

            @self._make
            async def migration(ctx: MutationCtx, **given: Unpack[_Given]) -> Any:
                if (asked := given.get("do")) is not None:
                    return await body.do(ctx, migration, asked)
                return await self._called(ctx, [migration], given)

            function: MutationFunction[..., Any] = migration
            return function

        return made

    def runner(self, *migrations: Runnable) -> MutationFunction[..., Any]:
        """
        An internal mutation for the command line that runs these, one after another.

            run_all = migrations.runner(set_theme, drop_old_flag)

        Without any it runs the one that its argument `fn` names.
        """

        @self._make
        async def run(ctx: MutationCtx, **given: Unpack[Options]) -> Any:
            named = given.pop("fn", None)
            chosen = [make_function_reference(named)] if named is not None else list(migrations)
            if not chosen:
                raise ValueError('which? {"fn": "migrations:set_theme"}')
            return await self._called(ctx, chosen, given)

        function: MutationFunction[..., Any] = run
        return function

    async def run_one(
        self,
        ctx: MutationCtx | ActionCtx,
        fn: Runnable,
        /,
        *,
        cursor: str | Undefined | None = UNDEFINED,
        batch_size: int | None = None,
        dry_run: bool = False,
        reset: bool = False,
        skip_errors: bool = False,
        next: Sequence[Runnable] = (),  # noqa: A002 - as Convex has it
    ) -> MigrationStatus | DryRun:
        """
        Start a migration, or go on with one that was stopped; one that is done stays as it is.

        Its first batch runs at once, in this transaction; each other one in its own.

        Args:
            cursor: where to begin; `None` is the beginning. Unless said, where it was.
            batch_size: instead of the one that it was defined with.
            dry_run: run one batch, return what it would have changed, and write nothing.
            reset: begin anew, and likewise those in `next`, unless it is in progress.
            skip_errors: leave out documents for which it fails, and count them.
            next: those that begin when it has succeeded; see `run_serially`.

        Returns:
            How it stands after the first batch; or of the one that was in progress.

        Raises:
            ValueError: `batch_size` is no whole number above 0.
            FunctionNotFound: there is no such function.
            TypeError: `ctx` is a query's.
        """
        options: Options = {"reset": reset, "skipErrors": skip_errors, "dryRun": dry_run}
        if cursor is not UNDEFINED:
            options["cursor"] = cursor
        if batch_size is not None:
            options["batchSize"] = batch_size
        found: MigrationStatus | DryRun = await self._run(ctx, [fn, *next], options)
        return found

    async def run_serially(
        self, ctx: MutationCtx | ActionCtx, migrations: Sequence[Runnable], /
    ) -> MigrationStatus | None:
        """
        Start the first of these that is not done; each other one begins when it has succeeded.

        If one of them is in progress, it is waited for first: none that follows is forgotten.
        One that fails, or is canceled, ends the series; starting that again goes on with it.

        Returns:
            How the first one stands, or the one that was in progress; nothing of no migrations.

        Raises:
            FunctionNotFound, TypeError: as `run_one`.
        """
        if not migrations:
            return None
        status: MigrationStatus = await self._run(ctx, migrations, {})
        return status

    async def get_status(
        self, ctx: AnyCtx, /, *, migrations: Sequence[Runnable] | None = None, limit: int = 100
    ) -> list[MigrationStatus]:
        """
        How migrations stand; followed by a query, as they go on.

        Args:
            migrations: which, in this order. Unless said, the latest, the oldest first.
            limit: of how many, at most 100.
        """
        args: dict[str, Value] = {"limit": limit}
        if migrations is not None:
            args["names"] = [get_function_name(fn) for fn in migrations]
        found: list[MigrationStatus] = await ctx.run_query(self._mount.get_status, args)
        return found

    async def cancel(self, ctx: MutationCtx | ActionCtx, fn: Runnable, /) -> MigrationStatus:
        """
        Stop a migration after the batch that it is at, and the series that wait for it.

        Starting it again goes on where it was.  One that has ended stays as it is.

        Raises:
            ConvexError: it was never started; its data has the `kind` "MigrationNotFound".
        """
        args: dict[str, Value] = {"name": get_function_name(fn)}
        status: MigrationStatus = await _writer(ctx).run_mutation(self._mount.cancel, args)
        return status

    async def cancel_all(self, ctx: MutationCtx | ActionCtx, /) -> list[MigrationStatus]:
        """Stop all that are in progress; the first hundred at once, and these are returned."""
        found: list[MigrationStatus] = await _writer(ctx).run_mutation(self._mount.cancel_all, {})
        return found

    async def _called(self, ctx: MutationCtx, migrations: Sequence[Any], given: Options) -> Any:
        """What `headrace run` asked for, with a word on how to go on."""
        self._check_place(get_function_name(migrations[0]), given)
        after = [make_function_reference(name) for name in given.get("next", ())]
        status = await self._run(ctx, [*migrations, *after], given)
        _tell(status, self._mount.path)
        return status

    def _check_place(self, name: str, given: Options) -> None:
        path = self._mount.path
        if given.get("component", path) != path:
            raise ValueError(
                f"{name} is a migration of {path!r}, and nothing is known of it in "
                f"{given['component']!r}: say --component {path}"
            )

    async def _run(
        self, ctx: MutationCtx | ActionCtx, migrations: Sequence[Runnable], options: Options
    ) -> Any:
        ctx = _writer(ctx)
        names = [get_function_name(fn) for fn in migrations]
        if options.get("dryRun"):
            return await _dry_run(ctx, names[0], options)
        args = await _start_args(
            ctx,
            migrations,
            names,
            options.get("batchSize"),
            options.get("reset", False),
            options.get("skipErrors", False),
        )
        if "cursor" in options:
            args["cursor"] = options["cursor"]
        return await ctx.run_mutation(self._mount.start, args)


async def run_to_completion(
    ctx: ActionCtx,
    mount: Mount,
    fn: Runnable,
    /,
    *,
    cursor: str | Undefined | None = UNDEFINED,
    batch_size: int | None = None,
    reset: bool = False,
    skip_errors: bool = False,
) -> MigrationStatus:
    """
    Run all of a migration now, within an action, each batch a transaction.

    If the action ends before, starting the migration again, here or elsewhere, goes on with it.

    Args:
        mount: the migrations that the application uses; the others are those of `run_one`.

    Raises:
        ConvexError: it failed or was canceled, or is in progress elsewhere; its data is its status.
    """
    args = await _start_args(ctx, [fn], [get_function_name(fn)], batch_size, reset, skip_errors)
    args["one_batch_only"] = True
    if cursor is not UNDEFINED:
        args["cursor"] = cursor
    while True:
        status: MigrationStatus = await ctx.run_mutation(mount.start, args)
        if status["isDone"]:
            return status
        if status["state"] != "unknown" or "latestStart" not in status:
            raise ConvexError(status)
        args["is_begun"] = True


async def _start_args(
    ctx: MutationCtx | ActionCtx,
    migrations: Sequence[Runnable],
    names: Sequence[str],
    batch_size: float | None,
    reset: bool,
    skip_errors: bool,
) -> dict[str, Value]:
    first, *others = [
        {"name": name, "fn": await ctx.create_function_handle(fn)}
        for name, fn in zip(names, migrations, strict=True)
    ]
    return {
        **first,
        "next": others,
        "reset": reset,
        "skip_errors": skip_errors,
        "batch_size": batch_size,
    }


async def _dry_run(ctx: MutationCtx | ActionCtx, name: str, options: Options) -> DryRun:
    """A batch in a sub-transaction that never ends well: it says what it did, and is undone."""
    asked: dict[str, Value] = {"kind": "dry", "cursor": options.get("cursor")}
    if "batchSize" in options:
        asked["size"] = _checked(options["batchSize"])
    try:
        await ctx.run_mutation(name, {"do": asked})
    except ConvexError as error:
        if not (isinstance(error.data, Mapping) and error.data.get("kind") == DRY_RUN):
            raise
        return {**error.data["found"], "dryRun": True, "name": name}  # type: ignore[typeddict-item]
    raise AssertionError("a dry run ends with an error")


def _tell(status: MigrationStatus | DryRun, mount: str) -> None:
    """A word for whoever called it from the command line."""
    name = status["name"]
    if "changes" in status:
        print(f"DRY RUN of {name}: {status['processed']} documents, nothing was written")
        return
    total = f" of {status['total']}" if "total" in status else ""
    print(f"{name}: {status['state']}, {status['processed']}{total} documents so far")
    if status["next"]:
        print(f"after it: {', '.join(status['next'])}")
    if status["state"] == "inProgress":
        print(f"watch it: headrace migrations status {name} --watch --component {mount}")
        print(f"stop it: headrace migrations cancel {name} --component {mount}")


def _checked(size: N) -> N:
    refuse_unless_size(size)
    return size


def _writer(ctx: object) -> MutationCtx | ActionCtx:
    if not isinstance(ctx, MutationCtx | ActionCtx):
        raise TypeError("migrations are started by mutations and `async def` actions")
    return ctx
