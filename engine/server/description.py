"""
The OpenAPI description of the HTTP API, made of the routes and the deployed functions.

Each route says what it does (`Operation`), and the description is nothing but
that, with an operation at `/api/run/...` for each public function; so it cannot tell
of what is not there.  Internal functions are told to administrators who ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from engine.app.json_schema import FIELD_NAME, SPECIAL_NUMBER, VALUE, given, taken
from engine.app.registered import Kind, RegisteredFunction
from engine.app.registry import Application
from engine.app.validators import AnyValue
from engine.errors import RequestRefused, Unauthenticated
from engine.model.json_values import Json
from engine.model.limits import IDEMPOTENCY_KEY_CHARS_MAX
from engine.server.formats import FORMAT_NAMES
from engine.server.idempotency import HEADER
from engine.server.identity import Verifier
from engine.server.requests import (
    JSON_TYPE,
    Access,
    Operation,
    Request,
    Response,
    Route,
)

PATH: Final = "/api/openapi.json"
RUN_PREFIX: Final = "/api/run/"

NOTHING: Final[Mapping[str, Json]] = {}

CALL_STATUSES: Final = (400, 401, 408, 413, 500, 503)
"""With which a call of a function is refused; a function that failed is answered with 200."""


class Description:
    """
    Args:
        application: what is deployed now.
        routes: of the whole HTTP API.
    """

    def __init__(
        self,
        verifier: Verifier,
        application: Callable[[], Application],
        routes: Sequence[Route],
        *,
        title: str,
        version: str,
    ) -> None:
        self._verifier = verifier
        self._application = application
        self._routes = (*routes, self.route())
        self._title = title
        self._version = version
        self._encoded = lru_cache(4)(self._encode)

    def route(self) -> Route:
        asks = {
            "name": "internal",
            "in": "query",
            "description": "with internal functions; for administrators",
            "schema": {"enum": ["true", "false"]},
        }
        says = Operation(
            summary="This description",
            parameters=(asks,),
            answer={"type": "object", "required": ["openapi", "info", "paths"]},
            statuses=(400, 401, 503),
            access=Access.CALLER,
        )
        return Route(method="GET", path=PATH, handler=self._describe, says=says)

    async def _describe(self, request: Request) -> Response:
        who = await self._verifier.from_request(request)
        asked = request.query.get("internal", "false")
        if asked not in ("true", "false"):
            raise RequestRefused(400, "BadParameter", "internal is true or false")
        if asked == "true" and not who.admin:
            raise Unauthenticated("Internal functions are told to who has the admin key")
        deployed = _ByIdentity(self._application())
        return Response(body=self._encoded(deployed, asked == "true", request.prefix))

    def _encode(self, deployed: _ByIdentity, with_internal: bool, prefix: str) -> bytes:
        functions = [
            function
            for path, function in sorted(deployed.application.functions.items())
            if not path.startswith("_") and (function.is_public or with_internal)
        ]
        return msgspec.json.encode(self.document(functions, prefix))

    def document(
        self, functions: Iterable[RegisteredFunction], prefix: str = ""
    ) -> dict[str, Json]:
        """The description of all routes and of these functions, behind a prefix of paths."""
        paths: dict[str, dict[str, Json]] = {}
        for route in self._routes:
            if route.says is not None:
                operations = paths.setdefault(route.path, {})
                operations.setdefault(route.method.lower(), _operation(route.says, route.path))
        for function in functions:
            path = f"{RUN_PREFIX}{_path_of(function).replace(':', '/')}"
            paths[path] = {"post": _operation(_of_function(function), path)}
        return {
            "openapi": "3.1.0",
            "info": {"title": self._title, "version": self._version},
            "servers": [{"url": prefix or "/"}],
            "paths": paths,
            "components": {
                "schemas": SCHEMAS,
                "responses": RESPONSES,
                "securitySchemes": SECURITY_SCHEMES,
            },
        }


class _ByIdentity:
    """An application as the key of a cache: another one is another, and none is compared."""

    def __init__(self, application: Application) -> None:
        self.application = application

    def __hash__(self) -> int:
        return id(self.application)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.application is other.application


def _path_of(function: RegisteredFunction) -> str:
    assert function.path is not None, "a function that is deployed has a path"
    return function.path


def _of_function(function: RegisteredFunction) -> Operation:
    signature = function.signature
    is_open = isinstance(signature.validator, AnyValue)
    args = {"type": "object"} if is_open else taken(signature.validator)
    is_mutation = function.kind is Kind.MUTATION
    return Operation(
        summary=f"The {function.visibility.value} {function.kind.value} {function.path}",
        tag=function.kind.value,
        body={
            "type": "object",
            "properties": {"args": args},
            "required": ["args"] if args.get("required") else [],
        },
        parameters=(IDEMPOTENCY_KEY,) if is_mutation else (),
        answer=envelope(given(signature.returns.validator) if signature.returns else {}),
        statuses=(*CALL_STATUSES, 409) if is_mutation else CALL_STATUSES,
        access=Access.CALLER,
    )


# How the parts of an operation are written.


def _operation(says: Operation, path: str) -> Json:
    described: dict[str, Json] = {
        "summary": says.summary,
        "operationId": says.name or path.strip("/").replace("/", "."),
        "responses": _responses(says),
    }
    if says.tag:
        described["tags"] = [says.tag]
    if says.parameters:
        described["parameters"] = list(says.parameters)
    if says.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON_TYPE: {"schema": says.body}},
        }
    if says.access is Access.CALLER:
        described["security"] = [{}, {"user": []}, {"administrator": []}]
    elif says.access is Access.ADMINISTRATOR:
        described["security"] = [{"administrator": []}]
    return described


def _responses(says: Operation) -> Json:
    content = (
        {JSON_TYPE: {"schema": says.answer}}
        if says.answer is not None
        else {kind: {"schema": {"type": "string"}} for kind in says.texts}
    )
    done = {"description": "It was carried out", "content": content}
    also = {str(status): {**done, "description": why} for status, why in says.also.items()}
    refused = {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in says.statuses
    }
    return {"200": done, **also, **refused}


def envelope(value: Json) -> Json:
    """Of what a function came to, whose results fit `value`."""
    success = {
        "type": "object",
        "properties": {
            "status": {"const": "success"},
            "value": value,
            "ts": {"$ref": "#/components/schemas/Timestamp"},
            "logLines": {"$ref": "#/components/schemas/LogLines"},
        },
        "required": ["status", "value"],
        "additionalProperties": False,
    }
    return {"oneOf": [success, {"$ref": "#/components/schemas/Failure"}]}


def call_schema(more: Mapping[str, Json] = NOTHING, required: Sequence[str] = ()) -> Json:
    """Of the body of a request that calls a function."""
    return {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "as in messages:list"},
            "args": {"$ref": "#/components/schemas/Arguments"},
            "format": FORMAT,
            **more,
        },
        "required": ["path", *required],
    }


def json_parameter(name: str, schema: Json) -> Json:
    """One of the URL, which is JSON text."""
    return {"name": name, "in": "query", "content": {JSON_TYPE: {"schema": schema}}}


ENVELOPE: Final = {"$ref": "#/components/schemas/Envelope"}
FORMAT: Final = {"$ref": "#/components/schemas/Format"}
TIMESTAMP: Final = {"$ref": "#/components/schemas/Timestamp"}

IDEMPOTENCY_KEY: Final = {
    "name": HEADER,
    "in": "header",
    "description": "sent again with the same key, the mutation is answered and not run again",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": IDEMPOTENCY_KEY_CHARS_MAX,
        "pattern": "^[!-~]([ -~]*[!-~])?$",
    },
}

_VALUE_REF: Final = {"$ref": "#/components/schemas/Value"}

SCHEMAS: Final[Mapping[str, Json]] = {
    "Value": VALUE,
    "SpecialNumber": SPECIAL_NUMBER,
    "Arguments": {
        "description": "the argument object, also in an array of its own",
        "anyOf": [
            {"type": "object", "propertyNames": FIELD_NAME, "additionalProperties": _VALUE_REF},
            {"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "object"}},
        ],
    },
    "Format": {
        "description": "of the value: for people (the default), lossless, or as in exports",
        "enum": [*FORMAT_NAMES],
    },
    "Timestamp": {
        "type": "string",
        "pattern": "^[A-Za-z0-9+/]{9}[A-HQ-Xg-nw-z0-3][AEIMQUYcgkosw048]=$",
        "description": "nanoseconds since 1970, below 2**63, base64 of 8 bytes, little endian",
    },
    "LogLines": {
        "type": "array",
        "items": {"type": "string"},
        "description": "of development servers; absent if there are none",
    },
    "Envelope": envelope({}),
    "Failure": {
        "type": "object",
        "properties": {
            "status": {"const": "error"},
            "errorMessage": {"type": "string"},
            "errorData": {"description": "of a ConvexError, also where that is null"},
            "logLines": {"$ref": "#/components/schemas/LogLines"},
        },
        "required": ["status", "errorMessage"],
        "additionalProperties": False,
    },
    "Refusal": {
        "type": "object",
        "properties": {
            "code": {"type": "string", "description": "for programs"},
            "message": {"type": "string", "description": "for people"},
        },
        "required": ["code", "message"],
        "additionalProperties": False,
    },
}

_REFUSALS: Final = {
    400: "The request is none that can be carried out",
    401: "The token or key proves nothing, or is missing",
    404: "The timestamp is too far back, or has not come",
    408: "The body did not arrive",
    409: "The idempotency key was given to another call",
    413: "The body is too large",
    500: "The engine failed; what was on its way to the disk may or may not be done",
    503: "There is no room, or the server is going away; nothing was done",
}
RESPONSES: Final[Mapping[str, Json]] = {
    str(status): {
        "description": why,
        "content": {JSON_TYPE: {"schema": {"$ref": "#/components/schemas/Refusal"}}},
    }
    for status, why in sorted(_REFUSALS.items())
} | {"431": {"description": "The URL and the headers are too long"}}

SECURITY_SCHEMES: Final[Mapping[str, Any]] = {
    "user": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "administrator": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Convex KEY`, with the admin key of the server",
    },
}
