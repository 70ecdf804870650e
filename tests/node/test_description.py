"""The OpenAPI description: what is there, what is not, and for whom."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.host import Engine
from engine.server.http import UNSUPPORTED
from engine.server.server import OPERATORS_PREFIX, Server
from engine.serving import Served, serving
from tests.node.command_line import headrace

# The HTTP server below leaves the channels between its tasks open when a request is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")

APP = """
from typing import Annotated, Any, Literal

from annotated_types import Ge

from engine import Document, Id, Int64, MutationCtx, QueryCtx, Schema, Table
from engine import action, internal_query, mutation, query

class Item(Document):
    name: str
    picture: bytes | None

schema = Schema(items=Table(Item))

@query
async def newest(ctx: QueryCtx, count: Annotated[int, Ge(0)] = 1) -> list[Item]:
    return []

@mutation
async def add(
    ctx: MutationCtx, name: str, size: Int64, kind: Literal["a", 1], picture: bytes | None = None
) -> Id[Item]:
    return await ctx.db.insert("items", {"name": name, "picture": picture})

@query
async def anything(ctx: QueryCtx, value: Any, numbers: dict[str, float]) -> Any:
    return value

@query
async def open(ctx: QueryCtx, first: str, **more: Any):
    return None

@internal_query
async def hidden(ctx: QueryCtx) -> None:
    pass
"""


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[Served]:
    app = folder / "shop.py"
    app.write_text(APP)
    async with serving(folder / "data", app=app, bind="127.0.0.1:0") as served:
        yield served


async def described(served: Served, query: str = "", key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Convex {key}"}
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"{served.url}/api/openapi.json{query}", headers=headers)


def run_paths(document: Any) -> list[str]:
    return [path for path in document["paths"] if path.startswith("/api/run/")]


async def test_every_route_is_described_and_nothing_else(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        document = (await described(served)).json()
        routes = {(one.path, one.method.lower()) for one in served.engine.server._http._routes}
    described_here = {
        (path, method)
        for path, operations in document["paths"].items()
        for method in operations
        if path not in run_paths(document)
    }
    on_purpose = {
        (path, method)
        for path, method in routes
        if path in UNSUPPORTED or path.startswith(OPERATORS_PREFIX) or path == "/api/run/*"
    }

    assert routes - on_purpose == described_here
    assert len(described_here) > 15


async def test_each_public_function_is_an_operation(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        document = (await described(served)).json()

    assert run_paths(document) == [
        "/api/run/shop/add",
        "/api/run/shop/anything",
        "/api/run/shop/newest",
        "/api/run/shop/open",
    ]


async def test_internal_functions_are_told_to_administrators_who_ask(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        key = served.admin_key
        asked = await described(served, "?internal=true", key)
        not_asked = await described(served, "?internal=false", key)
        refused = await described(served, "?internal=true")
        misspelt = await described(served, "?internal=1", key)
        anybody = await described(served)

    assert "/api/run/shop/hidden" in run_paths(asked.json())
    assert "hidden" not in not_asked.text
    assert "hidden" not in anybody.text
    assert (refused.status_code, misspelt.status_code) == (401, 400)


async def test_arguments_are_those_of_the_validators(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        document = (await described(served)).json()

    assert args_of(document, "add") == {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "size": {
                "type": "object",
                "properties": {
                    "$integer": {
                        "type": "string",
                        "pattern": "^[A-Za-z0-9+/]{10}[AEIMQUYcgkosw048]=$",
                        "description": "base64 of 8 bytes, little endian",
                    }
                },
                "required": ["$integer"],
                "additionalProperties": False,
            },
            "kind": {"anyOf": [{"const": "a"}, {"const": 1}]},
            "picture": {
                "anyOf": [args_of(document, "add")["properties"]["picture"]["anyOf"][0], NULL]
            },
        },
        "required": ["name", "size", "kind"],
        "additionalProperties": False,
    }
    assert args_of(document, "newest")["properties"]["count"] == {
        "type": "integer",
        "minimum": -(2**53),
        "maximum": 2**53,
        "description": "has to be at least 0",
    }
    assert args_of(document, "anything")["properties"] == {
        "value": {"$ref": "#/components/schemas/Value"},
        "numbers": {
            "type": "object",
            "propertyNames": {"pattern": "^([ -#%-~][ -~]*)?$", "maxLength": 1024},
            "additionalProperties": {
                "anyOf": [{"type": "number"}, {"$ref": "#/components/schemas/SpecialNumber"}]
            },
        },
    }
    assert args_of(document, "open") == {"type": "object"}


async def test_results_are_described_as_json_spells_them(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        document = (await described(served)).json()

    assert value_of(document, "newest") == {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "_creationTime": NUMBER,
                "_id": value_of(document, "add"),
                "name": {"type": "string"},
                "picture": {"anyOf": [{"type": "string", "contentEncoding": "base64"}, NULL]},
            },
            "required": ["_id", "_creationTime", "name", "picture"],
            "additionalProperties": False,
        },
    }
    assert value_of(document, "add") == {
        "type": "string",
        "pattern": "^[0-9a-hjkmnp-tv-z]{31,37}$",
        "description": "the id of a document of items",
    }
    assert value_of(document, "anything") == value_of(document, "open") == {}


async def test_only_mutations_take_an_idempotency_key(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        document = (await described(served)).json()
    takes = [
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if "Idempotency-Key" in str(operation.get("parameters"))
    ]

    assert takes == ["/api/mutation", "/api/function", "/api/run/shop/add"]


async def test_names_of_operations_are_unique_and_every_reference_leads_somewhere(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as served:
        response = await described(served)
    document = response.json()
    names = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    references = set(re.findall(r'"\$ref":"#/components/(\w+)/(\w+)"', response.text))

    assert len(names) == len(set(names))
    assert references
    assert [one for one in references if one[1] not in document["components"][one[0]]] == []


async def test_it_follows_what_is_deployed(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        before = run_paths((await described(served)).json())
        (tmp_path / "shop.py").write_text(APP.replace("async def add", "async def added"))
        await served.push()
        after = run_paths((await described(served)).json())

    assert ("/api/run/shop/add" in before, "/api/run/shop/add" in after) == (True, False)
    assert "/api/run/shop/added" in after


async def test_behind_a_prefix_it_says_so() -> None:
    async with Engine.open(":memory:", app=[]) as engine:
        document = await asked(engine.asgi, "/convex")

    assert document["servers"] == [{"url": "/convex"}]


def test_it_can_be_printed_where_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    said = headrace(tmp_path, "openapi", "--app", "shop.py", "--internal")

    assert said.json["openapi"] == "3.1.0"
    assert {"/api/run/shop/add", "/api/run/shop/hidden"} < set(run_paths(said.json))
    assert [file.name for file in tmp_path.iterdir() if file.name != "__pycache__"] == ["shop.py"]


NULL = {"type": "null"}
NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}


def args_of(document: Any, function: str) -> Any:
    body = document["paths"][f"/api/run/shop/{function}"]["post"]["requestBody"]
    return body["content"]["application/json"]["schema"]["properties"]["args"]


def value_of(document: Any, function: str) -> Any:
    done = document["paths"][f"/api/run/shop/{function}"]["post"]["responses"]["200"]
    return done["content"]["application/json"]["schema"]["oneOf"][0]["properties"]["value"]


async def asked(server: Server, prefix: str) -> Any:
    transport = httpx.ASGITransport(
        app=server,  # type: ignore[arg-type]  # it takes a scope that is a dictionary
        root_path=prefix,
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return (await client.get("/api/openapi.json")).json()
