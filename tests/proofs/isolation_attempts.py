"""
Attempts to reach what is another component's, from within a function.

An attempt is given what there is to know of its victim (`Loot`), and of whoever tries the same.  It
has to raise the error that stands beside it; where none does, it has to come back with nothing.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from engine import (
    ArgumentValidationError,
    DocumentNotFound,
    FunctionNotFound,
    IndexNotFound,
    InvalidCursor,
    InvalidId,
    InvalidRange,
    InvalidValue,
    NotAllowed,
    Reference,
    Retry,
    SchemaViolation,
    VariableMissing,
    env,
    internal,
    paginator,
)
from engine.indexes.catalog import CRONS, DEPLOYMENTS, SCHEDULED_FUNCTIONS, TABLES
from engine.model.codec import decode, encode
from engine.model.ids import encode_id
from engine.transaction.pagination import _sum

Loot: TypeAlias = Mapping[str, Any]
"""The `path` of the victim and what is there: an `id`, a `job`, cursors; in `own` one's own."""
Run: TypeAlias = Callable[[Any, Loot], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is tried, in a mutation or an action; `expected` is `None` where nothing comes back."""

    name: str
    run: Run
    expected: type[Exception] | None
    is_action: bool = False
    of_components: bool = False
    """The application may do that."""


@dataclass(slots=True)
class Place:
    """What a mount is to a reference, as anybody could write it."""

    path: str


objects: dict[str, Any] = {}
"""The internal function of each component, as the object that was loaded there."""


def crafted(path: str, *steps: str) -> Reference:
    """A reference to a function of any component, which no mount has given."""
    return Reference(Place(path), steps or ("secret",))


# Ids.


async def get(ctx: Any, loot: Loot) -> object:
    return await ctx.db.get(loot["id"])


async def get_of_table(ctx: Any, loot: Loot) -> object:
    return await ctx.db.get("items", loot["id"])


async def patch(ctx: Any, loot: Loot) -> object:
    return await ctx.db.patch(loot["id"], {"word": "taken"})


async def replace(ctx: Any, loot: Loot) -> object:
    return await ctx.db.replace("items", loot["id"], {"word": "taken"})


async def delete(ctx: Any, loot: Loot) -> object:
    return await ctx.db.delete(loot["id"])


async def normalize(ctx: Any, loot: Loot) -> object:
    return await ctx.db.normalize_id("items", loot["id"])


async def give_as_argument(ctx: Any, loot: Loot) -> object:
    return await ctx.run_query("functions:item", {"item": loot["id"]})


async def refer_to(ctx: Any, loot: Loot) -> object:
    return await ctx.db.insert("links", {"item": loot["id"]})


async def range_by_id(ctx: Any, loot: Loot) -> object:
    return await ctx.db.query("items").with_index("by_id", _id=loot["id"]).collect()


async def range_to_id(ctx: Any, loot: Loot) -> object:
    found = ctx.db.query("items").with_index("by_id", lambda r: r.gte("_id", loot["id"]))
    return _stolen(await found.collect(), loot)


# Names of tables.


def of_table(spelling: str) -> Run:
    async def read(ctx: Any, loot: Loot) -> object:
        return await ctx.db.query(spelling.format(**loot)).collect()

    return read


def into_table(spelling: str) -> Run:
    async def write(ctx: Any, loot: Loot) -> object:
        return await ctx.db.insert(spelling.format(**loot), {"word": "mine"})

    return write


async def count(ctx: Any, loot: Loot) -> object:
    return await ctx.db.count(f"{loot['path']}/items") + await ctx.db.count(loot["hidden"])


async def all_of_my_table(ctx: Any, loot: Loot) -> object:
    return _stolen(await ctx.db.query("items").collect(), loot)


async def search(ctx: Any, loot: Loot) -> object:
    found = ctx.db.query("items").with_search_index("by_word", lambda q: q.search("word", "word"))
    return _stolen(await found.take(100), loot)


async def search_by_path(ctx: Any, loot: Loot) -> object:
    found = ctx.db.query(f"{loot['path']}/items")
    return await found.with_search_index("by_word", lambda q: q.search("word", "word")).take(100)


async def search_both(ctx: Any, loot: Loot) -> object:
    found = await ctx.db.hybrid_search(
        "items",
        search_index="by_word",
        search=lambda q: q.search("word", "word"),
        vector_index="by_vector",
        vector=[0.6, 0.8],
    )
    return [hit for hit in found if hit["_id"] == loot["id"]]


async def search_vectors(ctx: Any, loot: Loot) -> object:
    place = ctx.db if hasattr(ctx, "db") else ctx
    found = await place.vector_search("items", "by_vector", vector=[0.6, 0.8], limit=100)
    return [hit for hit in found if hit["_id"] == loot["id"]]


async def search_vectors_by_path(ctx: Any, loot: Loot) -> object:
    place = ctx.db if hasattr(ctx, "db") else ctx
    name = f"{loot['path']}/items"
    return await place.vector_search(name, "by_vector", vector=[0.6, 0.8])


# Functions.


def called(name: Callable[[Loot], object], verb: str = "run_mutation") -> Run:
    async def call(ctx: Any, loot: Loot) -> object:
        return await getattr(ctx, verb)(name(loot), {})

    return call


async def call_object(ctx: Any, loot: Loot) -> object:
    return await ctx.run_mutation(objects[loot["path"]])


def limited(ctx: Any, loot: Loot) -> Awaitable[object]:
    few = ctx.transaction_limits(documents_read=100)
    return few.run_query(crafted(loot["path"], "peek"), {})  # type: ignore[no-any-return]


def path_in(spelling: str) -> Callable[[Loot], object]:
    return lambda loot: spelling.format(**loot)


def place_in(spelling: str, *steps: str) -> Callable[[Loot], object]:
    return lambda loot: crafted(spelling.format(**loot), *steps)


async def schedule(ctx: Any, loot: Loot) -> object:
    return await ctx.scheduler.run_after(3_600_000, crafted(loot["path"]))


async def schedule_object(ctx: Any, loot: Loot) -> object:
    return await ctx.scheduler.run_at(ctx.now_ms + 3_600_000, objects[loot["path"]])


async def register(ctx: Any, loot: Loot) -> object:
    return await ctx.crons.register("mine", crafted(loot["path"]), hours=1)


async def be_told(ctx: Any, loot: Loot) -> object:
    eager = ctx.scheduler.with_retry(Retry(), on_complete=crafted(loot["path"]))
    return await eager.run_after(3_600_000, internal.functions.act)


async def make_handle(ctx: Any, loot: Loot) -> object:
    return await ctx.create_function_handle(crafted(loot["path"]))


async def describe(ctx: Any, loot: Loot) -> object:
    return await ctx.meta.get_function_metadata(crafted(loot["path"]))


# Handles.


def handle(change: Callable[[Loot, str, str], str]) -> Callable[[Loot], object]:
    """A handle made of one's own, by the path of its component, of its function and its proof."""

    def changed(loot: Loot) -> object:
        _, path, proof = loot["own"]["handle"].removeprefix("function://").split(";")
        return f"function://{change(loot, path, proof)}"

    return changed


def of_the_victim(loot: Loot, path: str, proof: str) -> str:
    return f"{loot['path']};{path};{proof}"


def of_another_function(loot: Loot, path: str, _proof: str) -> str:
    """One that was given, for something harmless."""
    component, _, proof = loot["given"].removeprefix("function://").split(";")
    return f"{component};{path};{proof}"


def without_proof(loot: Loot, path: str, _proof: str) -> str:
    return f"{loot['path']};{path};"


def without_anything(loot: Loot, path: str, _proof: str) -> str:
    return f"{loot['path']};{path}"


FORGED: Final = {
    "for the victim": handle(of_the_victim),
    "for another function": handle(of_another_function),
    "without its proof": handle(without_proof),
    "without a place for it": handle(without_anything),
}


def later(name: Callable[[Loot], object]) -> Run:
    async def run(ctx: Any, loot: Loot) -> object:
        return await ctx.scheduler.run_after(3_600_000, name(loot))

    return run


# Cursors.


async def page_on(ctx: Any, loot: Loot) -> object:
    items = ctx.db.query("items").with_index("by_n")
    return (await items.paginate({"numItems": 9, "cursor": loot["cursor"]}))["page"]


async def page_upto(ctx: Any, loot: Loot) -> object:
    items = ctx.db.query("items").with_index("by_n")
    options = {"numItems": 9, "cursor": None, "endCursor": loot["cursor"]}
    return (await items.paginate(options))["page"]


async def page_by_place(ctx: Any, loot: Loot) -> object:
    items = paginator(ctx.db).query("items").with_index("by_n")
    return (await items.paginate({"numItems": 9, "cursor": loot["place"]}))["page"]


async def page_of_search(ctx: Any, loot: Loot) -> object:
    found = ctx.db.query("items").with_search_index("by_word", lambda q: q.search("word", "word"))
    return (await found.paginate({"numItems": 9, "cursor": loot["found"]}))["page"]


async def page_of_jobs(ctx: Any, loot: Loot) -> object:
    jobs = ctx.db.system.query("_scheduled_functions")
    return (await jobs.paginate({"numItems": 9, "cursor": loot["jobs"]}))["page"]


async def page_from_anywhere(ctx: Any, loot: Loot) -> object:
    """A cursor of one's own, at a key before all keys there are."""
    text = loot["own"]["cursor"]
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    payload = encode([decode(data[:-4])[0], b""])
    cursor = urlsafe_b64encode(payload + _sum(payload)).rstrip(b"=").decode()
    items = ctx.db.query("items").with_index("by_n")
    return _stolen((await items.paginate({"numItems": 9, "cursor": cursor}))["page"], loot)


# The engine's own tables, jobs and crons.


def system_table(name: str) -> Run:
    async def read(ctx: Any, _loot: Loot) -> object:
        return await ctx.db.system.query(name).collect()

    return read


def row_of(table: int, *, through_system: bool) -> Run:
    async def read(ctx: Any, _loot: Loot) -> object:
        row = encode_id(table, b"current".ljust(16, b"\0"))
        return await (ctx.db.system if through_system else ctx.db).get(row)

    return read


async def get_job(ctx: Any, loot: Loot) -> object:
    return await ctx.db.get(loot["job"])


async def look_at_job(ctx: Any, loot: Loot) -> object:
    return await ctx.db.system.get(loot["job"])


async def look_at_job_in_table(ctx: Any, loot: Loot) -> object:
    return await ctx.db.system.get("_scheduled_functions", loot["job"])


async def give_job_as_argument(ctx: Any, loot: Loot) -> object:
    return await ctx.run_query("functions:item", {"item": loot["job"]})


def jobs_of(narrowed: Callable[[Any, Loot], Any]) -> Run:
    """The victim's job among those that a query of jobs finds."""

    async def look(ctx: Any, loot: Loot) -> object:
        jobs = narrowed(ctx.db.system.query("_scheduled_functions"), loot)
        return [job for job in await jobs.collect() if job["_id"] == loot["job"]]

    return look


async def jobs_by_component(ctx: Any, loot: Loot) -> object:
    jobs = ctx.db.system.query("_scheduled_functions")
    return await jobs.with_index("by_creation_time", component=loot["path"]).collect()


async def cancel(ctx: Any, loot: Loot) -> object:
    return await ctx.scheduler.cancel(loot["job"])


async def remove_cron(ctx: Any, loot: Loot) -> object:
    return await ctx.crons.remove(loot["cron"])


async def get_cron(ctx: Any, loot: Loot) -> object:
    return await ctx.crons.get(loot["cron"])


async def list_crons(ctx: Any, loot: Loot) -> object:
    return [cron for cron in await ctx.crons.list() if cron["name"] == loot["cron"]]


async def register_its_cron(ctx: Any, loot: Loot) -> object:
    """A cron of one's own may be called as that of another; they are two."""
    await ctx.crons.register(loot["cron"], internal.functions.secret, cron="0 0 29 2 *")
    await ctx.crons.remove(loot["cron"])
    return None


async def insert_where_it_has_a_trigger(ctx: Any, _loot: Loot) -> object:
    """The trigger of this table is one's own, whatever others call theirs."""
    await ctx.db.insert("items", {"word": "mine"})
    return None


# Who asks, what is set, and what others have kept.


async def who(ctx: Any, _loot: Loot) -> object:
    return await ctx.auth.get_user_identity()


async def variable(_ctx: Any, _loot: Loot) -> object:
    return env["ISOLATION_SECRET"]


async def variables(_ctx: Any, _loot: Loot) -> object:
    return dict(env)


async def module_of_mine(ctx: Any, loot: Loot) -> object:
    """What other mounts keep in their copies of a module is not in this one."""
    return [word for word in await ctx.run_query("functions:kept", {}) if word == loot["word"]]


def _stolen(docs: list[Any], loot: Loot) -> list[Any]:
    return [doc for doc in docs if doc["word"] == loot["word"]]


JOBS: Final[Mapping[str, Callable[[Any, Loot], Any]]] = {
    "": lambda jobs, _loot: jobs,
    ", newest first": lambda jobs, _loot: jobs.order("desc"),
    " by its id": lambda jobs, loot: jobs.with_index("by_id", _id=loot["job"]),
    " from its id on": lambda jobs, loot: jobs.with_index(
        "by_id", lambda r: r.gte("_id", loot["job"])
    ),
    " of any time": lambda jobs, _loot: jobs.with_index(
        "by_creation_time", lambda r: r.gte("_creationTime", 0)
    ),
    " without an index": lambda jobs, _loot: jobs.full_table_scan(),
    " with a filter": lambda jobs, loot: jobs.filter(
        lambda q: q.eq(q.field("component"), loot["path"])
    ),
}
"""Queries of jobs, each of which finds one's own alone."""


# All of them.


def attempts() -> Iterator[Attempt]:
    yield from _of_documents()
    yield from _of_functions()
    yield from _of_handles()
    yield from _of_the_rest()


def _of_documents() -> Iterator[Attempt]:
    for run in (get, get_of_table, patch, replace, delete):
        yield Attempt(f"id: {run.__name__}", run, InvalidId)
    yield Attempt("id: normalize_id", normalize, None)
    yield Attempt("id: an argument", give_as_argument, ArgumentValidationError)
    yield Attempt("id: a field", refer_to, SchemaViolation)
    yield Attempt("id: a range of one", range_by_id, None)
    yield Attempt("id: a range", range_to_id, None)
    for spelling in (
        "{path}/items",
        "{path}.items",
        "../items",
        "/items",
        "items/",
        "{path}:items",
    ):
        yield Attempt(f"table: query {spelling}", of_table(spelling), InvalidValue)
        yield Attempt(f"table: insert {spelling}", into_table(spelling), InvalidValue)
    yield Attempt("table: one that the victim alone has", of_table("{hidden}"), None)
    yield Attempt("table: count", count, None)
    yield Attempt("table: of the same name", all_of_my_table, None)
    yield Attempt("search: of the same name", search, None)
    yield Attempt("search: by the path", search_by_path, None)
    yield Attempt("search: with vectors", search_both, None)
    for where, is_action in (("", False), (", in an action", True)):
        yield Attempt(f"vectors: of the same name{where}", search_vectors, None, is_action)
        run = search_vectors_by_path
        yield Attempt(f"vectors: by the path{where}", run, None, is_action)
    yield Attempt("cursor: of the victim", page_on, InvalidCursor)
    yield Attempt("cursor: to the victim's", page_upto, InvalidCursor)
    yield Attempt("cursor: of the victim's paginator", page_by_place, InvalidCursor)
    yield Attempt("cursor: of the victim's search", page_of_search, InvalidCursor)
    yield Attempt("cursor: of the victim's jobs", page_of_jobs, InvalidCursor)
    yield Attempt("cursor: made up", page_from_anywhere, None)


def _of_functions() -> Iterator[Attempt]:
    spellings = ("{path}/functions:secret", "{path}:functions:secret", "../functions:secret")
    for spelling in spellings:
        run = called(path_in(spelling))
        yield Attempt(f"function: {spelling}", run, FunctionNotFound)
    for spelling in ("{path}", "{path}/", "/{path}", "{path}//", "./{path}"):
        run = called(place_in(spelling))
        yield Attempt(f"function: at {spelling}", run, FunctionNotFound)
    yield Attempt("function: the object", call_object, FunctionNotFound)
    module = place_in("{path}/", "functions", "secret")
    yield Attempt("function: with its module", called(module), FunctionNotFound)
    peek = place_in("{path}", "peek")
    for verb in ("run_query", "run_snapshot_query"):
        yield Attempt(f"function: {verb}", called(peek, verb), FunctionNotFound)
    yield Attempt("function: within limits", limited, FunctionNotFound)
    for each in (schedule, schedule_object, register, be_told, make_handle, describe):
        yield Attempt(f"function: {each.__name__}", each, FunctionNotFound)
    for verb, named in (("run_query", peek), ("run_mutation", place_in("{path}"))):
        run = called(named, verb)
        yield Attempt(f"function: {verb} of an action", run, FunctionNotFound, is_action=True)
    act = called(place_in("{path}", "act"), "run_action")
    yield Attempt("function: run_action", act, FunctionNotFound, is_action=True)
    for each in (schedule, be_told, make_handle, describe):
        name = f"function: {each.__name__} of an action"
        yield Attempt(name, each, FunctionNotFound, is_action=True)


def _of_handles() -> Iterator[Attempt]:
    for what, forged in FORGED.items():
        yield Attempt(f"handle: {what}", called(forged), FunctionNotFound)
        yield Attempt(f"handle: {what}, later", later(forged), FunctionNotFound)
        run = called(forged)
        yield Attempt(f"handle: {what}, in an action", run, FunctionNotFound, is_action=True)


def _of_the_rest() -> Iterator[Attempt]:
    for name in ("_tables", "_index", "_crons", "_schemas", "_deployments", "_session_requests"):
        yield Attempt(f"system: {name} as a table", of_table(name), NotAllowed)
        yield Attempt(f"system: {name}", system_table(name), IndexNotFound)
    yield Attempt("system: jobs as a table", of_table("_scheduled_functions"), NotAllowed)
    yield Attempt("system: insert", into_table("_scheduled_functions"), NotAllowed)
    for number in (TABLES, CRONS, DEPLOYMENTS, SCHEDULED_FUNCTIONS):
        yield Attempt(f"system: row of {number}", row_of(number, through_system=False), InvalidId)
    for number in (TABLES, CRONS, DEPLOYMENTS):
        run = row_of(number, through_system=True)
        yield Attempt(f"system: row of {number} through system", run, InvalidId)
    yield Attempt("job: as a document", get_job, InvalidId)
    yield Attempt("job: get", look_at_job, None)
    yield Attempt("job: get of a table", look_at_job_in_table, None)
    yield Attempt("job: an argument", give_job_as_argument, ArgumentValidationError)
    for what, narrowed in JOBS.items():
        yield Attempt(f"job: query{what}", jobs_of(narrowed), None)
    yield Attempt("job: query by component", jobs_by_component, InvalidRange)
    yield Attempt("job: cancel", cancel, DocumentNotFound)
    yield Attempt("job: cancel in an action", cancel, DocumentNotFound, is_action=True)
    yield Attempt("cron: remove", remove_cron, None)
    yield Attempt("cron: get", get_cron, None)
    yield Attempt("cron: list", list_crons, None)
    yield Attempt("cron: of the same name", register_its_cron, None)
    yield Attempt("trigger: of the same name", insert_where_it_has_a_trigger, None)
    yield Attempt("who asks", who, None, of_components=True)
    yield Attempt("who asks, of an action", who, None, is_action=True, of_components=True)
    yield Attempt("variable", variable, VariableMissing, of_components=True)
    yield Attempt("variable of an action", variable, VariableMissing, True, of_components=True)
    yield Attempt("variables", variables, None, of_components=True)
    yield Attempt("a module's own state", module_of_mine, None)


PENDING: Final = ("files", "exports", "backups")
"""Ways that there will be: each is to have its attempts when the engine has it."""
