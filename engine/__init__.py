"""
Headrace: a reactive, durable backend engine inside one Python process.

Everything that applications and hosts use is here; `node.py` is where reading the source begins.

A name is imported when it is first asked for: the process that only writes to the disk, and
`import headrace` in an application's module, do not wait for a server to be imported.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.app.blocking import (
        BlockingActionCtx,
        BlockingAuth,
        BlockingFunctionMeta,
        BlockingScheduler,
    )
    from engine.app.component import (
        App,
        Component,
        CustomJwt,
        Mount,
        Oidc,
        define_app,
        define_component,
    )
    from engine.app.contexts import (
        ActionCtx,
        ActionFunction,
        Auth,
        Committed,
        CronReader,
        CronRegistry,
        DatabaseReader,
        DatabaseWriter,
        Filter,
        FunctionMeta,
        Meta,
        MutationCtx,
        MutationFunction,
        OrderedQuery,
        Query,
        QueryCtx,
        QueryFunction,
        Range,
        Scheduler,
        Search,
        TableQuery,
        TriggerCtx,
        Vars,
        VectorFilter,
    )
    from engine.app.crons import (
        Crons,
        Retry,
        cron_jobs,
    )
    from engine.app.decorators import (
        action,
        internal_action,
        internal_mutation,
        internal_query,
        mutation,
        query,
    )
    from engine.app.environment import (
        env,
    )
    from engine.app.references import (
        ActionReference,
        MutationReference,
        QueryReference,
        Reference,
        api,
        get_function_name,
        internal,
        make_function_reference,
    )
    from engine.app.schema import (
        Schema,
        Table,
        define_schema,
        define_table,
    )
    from engine.app.shapes import (
        pagination_opts_validator,
    )
    from engine.app.triggers import (
        Change,
        Trigger,
        trigger,
    )
    from engine.app.types import (
        Cron,
        CronRun,
        Document,
        FunctionMetadata,
        Page,
        PaginationOptions,
        Secret,
        TransactionLimits,
        TransactionMetrics,
        UserIdentity,
        VectorHit,
    )
    from engine.app.validators import (
        Validator,
        v,
    )
    from engine.errors import (
        ArgumentValidationError,
        Conflict,
        ConvexError,
        DeclarationError,
        DocumentNotFound,
        EngineError,
        FilterError,
        FunctionAborted,
        FunctionFailed,
        FunctionNotFound,
        FunctionTimeout,
        IndexNotFound,
        InvalidAuthHeader,
        InvalidCursor,
        InvalidId,
        InvalidRange,
        InvalidValue,
        LimitExceeded,
        NoAuthProvider,
        NotAllowed,
        NotAwaited,
        OutcomeUnknown,
        OutOfRetention,
        Overloaded,
        Paused,
        ProtocolViolation,
        PushRefused,
        RequestRefused,
        ReturnsValidationError,
        SchemaViolation,
        SnapshotTooOld,
        Stopped,
        StoreDamaged,
        StoreError,
        StoreFailed,
        StoreFull,
        StoreLocked,
        Unauthenticated,
        UnmountedComponent,
        Unreachable,
        UsageError,
        VariableMissing,
        WrongFunctionKind,
    )
    from engine.functions.gather import (
        async_map,
        gather,
    )
    from engine.functions.paginator import (
        paginator,
    )
    from engine.host import (
        Engine,
    )
    from engine.interface import (
        AsOf,
        AsyncInterface,
        Failed,
        Ok,
        Results,
    )
    from engine.model.ids import (
        Id,
    )
    from engine.model.limits import (
        Limits,
    )
    from engine.model.values import (
        UNDEFINED,
        Int64,
        Undefined,
        Value,
    )
    from engine.remote import (
        RemoteEngine,
    )
    from engine.server.listener import (
        ListenConfig,
    )
    from engine.server.server import (
        ServerConfig,
    )

_NAMES = {
    "engine.app.blocking": (
        "BlockingActionCtx",
        "BlockingAuth",
        "BlockingFunctionMeta",
        "BlockingScheduler",
    ),
    "engine.app.component": (
        "App",
        "Component",
        "CustomJwt",
        "Mount",
        "Oidc",
        "define_app",
        "define_component",
    ),
    "engine.app.contexts": (
        "ActionCtx",
        "ActionFunction",
        "Auth",
        "Committed",
        "CronReader",
        "CronReader",
        "CronRegistry",
        "DatabaseReader",
        "DatabaseWriter",
        "Filter",
        "FunctionMeta",
        "Meta",
        "MutationCtx",
        "MutationFunction",
        "OrderedQuery",
        "Query",
        "QueryCtx",
        "QueryFunction",
        "Range",
        "Scheduler",
        "Search",
        "TableQuery",
        "TriggerCtx",
        "Vars",
        "VectorFilter",
    ),
    "engine.app.crons": (
        "Crons",
        "Retry",
        "cron_jobs",
    ),
    "engine.app.decorators": (
        "action",
        "internal_action",
        "internal_mutation",
        "internal_query",
        "mutation",
        "query",
    ),
    "engine.app.environment": ("env",),
    "engine.app.references": (
        "ActionReference",
        "MutationReference",
        "QueryReference",
        "Reference",
        "api",
        "internal",
        "make_function_reference",
        "get_function_name",
    ),
    "engine.app.schema": (
        "Schema",
        "Table",
        "define_schema",
        "define_table",
    ),
    "engine.app.shapes": ("pagination_opts_validator",),
    "engine.app.triggers": (
        "Change",
        "trigger",
        "Trigger",
    ),
    "engine.app.types": (
        "Cron",
        "CronRun",
        "Document",
        "FunctionMetadata",
        "Page",
        "PaginationOptions",
        "Secret",
        "TransactionLimits",
        "TransactionMetrics",
        "UserIdentity",
        "VectorHit",
    ),
    "engine.app.validators": (
        "Validator",
        "v",
    ),
    "engine.errors": (
        "ArgumentValidationError",
        "Conflict",
        "ConvexError",
        "DeclarationError",
        "DocumentNotFound",
        "EngineError",
        "FilterError",
        "FunctionAborted",
        "FunctionFailed",
        "FunctionNotFound",
        "FunctionTimeout",
        "IndexNotFound",
        "InvalidAuthHeader",
        "InvalidCursor",
        "InvalidId",
        "InvalidRange",
        "InvalidValue",
        "LimitExceeded",
        "NoAuthProvider",
        "NotAllowed",
        "NotAwaited",
        "OutOfRetention",
        "OutcomeUnknown",
        "Overloaded",
        "Paused",
        "ProtocolViolation",
        "PushRefused",
        "RequestRefused",
        "ReturnsValidationError",
        "SchemaViolation",
        "SnapshotTooOld",
        "Stopped",
        "StoreDamaged",
        "StoreError",
        "StoreFailed",
        "StoreFull",
        "StoreLocked",
        "Unauthenticated",
        "UnmountedComponent",
        "Unreachable",
        "UsageError",
        "VariableMissing",
        "WrongFunctionKind",
    ),
    "engine.functions.gather": (
        "async_map",
        "gather",
    ),
    "engine.functions.paginator": ("paginator",),
    "engine.host": ("Engine",),
    "engine.interface": (
        "AsOf",
        "AsyncInterface",
        "Failed",
        "Ok",
        "Results",
    ),
    "engine.model.ids": ("Id",),
    "engine.model.limits": ("Limits",),
    "engine.model.values": (
        "UNDEFINED",
        "Int64",
        "Undefined",
        "Value",
    ),
    "engine.remote": ("RemoteEngine",),
    "engine.server.listener": ("ListenConfig",),
    "engine.server.server": ("ServerConfig",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def check_platform() -> None:
    """
    Raises:
        ImportError: this is Windows.
    """
    if sys.platform == "win32":
        raise ImportError(
            "Headrace does not run on Windows, where files cannot be locked and processes "
            "signalled as it needs; run it inside WSL, which is Linux."
        )


if not TYPE_CHECKING:  # to a type checker it would mean that there is a name for everything

    def __getattr__(name: str) -> Any:
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module 'engine' has no attribute {name!r}")
        check_platform()
        value = globals()[name] = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "UNDEFINED",
    "ActionCtx",
    "ActionFunction",
    "ActionReference",
    "App",
    "ArgumentValidationError",
    "AsOf",
    "AsyncInterface",
    "Auth",
    "BlockingActionCtx",
    "BlockingAuth",
    "BlockingFunctionMeta",
    "BlockingScheduler",
    "Change",
    "Committed",
    "Component",
    "Conflict",
    "ConvexError",
    "Cron",
    "CronReader",
    "CronRegistry",
    "CronRun",
    "Crons",
    "CustomJwt",
    "DatabaseReader",
    "DatabaseWriter",
    "DeclarationError",
    "Document",
    "DocumentNotFound",
    "Engine",
    "EngineError",
    "Failed",
    "Filter",
    "FilterError",
    "FunctionAborted",
    "FunctionFailed",
    "FunctionMeta",
    "FunctionMetadata",
    "FunctionNotFound",
    "FunctionTimeout",
    "Id",
    "IndexNotFound",
    "Int64",
    "InvalidAuthHeader",
    "InvalidCursor",
    "InvalidId",
    "InvalidRange",
    "InvalidValue",
    "LimitExceeded",
    "Limits",
    "ListenConfig",
    "Meta",
    "Mount",
    "MutationCtx",
    "MutationFunction",
    "MutationReference",
    "NoAuthProvider",
    "NotAllowed",
    "NotAwaited",
    "Oidc",
    "Ok",
    "OrderedQuery",
    "OutOfRetention",
    "OutcomeUnknown",
    "Overloaded",
    "Page",
    "PaginationOptions",
    "Paused",
    "ProtocolViolation",
    "PushRefused",
    "Query",
    "QueryCtx",
    "QueryFunction",
    "QueryReference",
    "Range",
    "Reference",
    "RemoteEngine",
    "RequestRefused",
    "Results",
    "Retry",
    "ReturnsValidationError",
    "Scheduler",
    "Schema",
    "SchemaViolation",
    "Search",
    "Secret",
    "ServerConfig",
    "SnapshotTooOld",
    "Stopped",
    "StoreDamaged",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreLocked",
    "Table",
    "TableQuery",
    "TransactionLimits",
    "TransactionMetrics",
    "Trigger",
    "TriggerCtx",
    "Unauthenticated",
    "Undefined",
    "UnmountedComponent",
    "Unreachable",
    "UsageError",
    "UserIdentity",
    "Validator",
    "Value",
    "VariableMissing",
    "Vars",
    "VectorFilter",
    "VectorHit",
    "WrongFunctionKind",
    "action",
    "api",
    "async_map",
    "cron_jobs",
    "define_app",
    "define_component",
    "define_schema",
    "define_table",
    "env",
    "gather",
    "get_function_name",
    "internal",
    "internal_action",
    "internal_mutation",
    "internal_query",
    "make_function_reference",
    "mutation",
    "pagination_opts_validator",
    "paginator",
    "query",
    "trigger",
    "v",
]
