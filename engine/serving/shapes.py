"""What the documents of tables look like now: all of them are walked, a slice at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

from engine.app.inference import Inferred, Seen, document_fields, seen_documents, snippet
from engine.app.schema import IndexSpec, SearchIndexSpec
from engine.errors import RequestRefused
from engine.indexes.catalog import SCHEMAS, Catalog, IndexInfo, IndexKind, IndexState, TableInfo
from engine.indexes.recovery import recover
from engine.model.codec import decode
from engine.store.interface import Snapshot, Tree

Json: TypeAlias = dict[str, Any]

SLICE_ROWS: Final = 250
"""In one snapshot: a few milliseconds."""
_DECLARED: Final = frozenset({IndexState.ENABLED, IndexState.STAGED, IndexState.STAGING})


@dataclass(slots=True, kw_only=True)
class Shapes:
    """How many documents were looked at, of how many; in the end the schema that they have."""

    done: int = 0
    total: int = 0
    schema: str | None = None


def shapes(
    open_snapshot: Callable[[], Snapshot], component: str, name: str | None
) -> Iterator[Shapes]:
    """
    Look at the documents of a table, or of all tables of a component.

    What others write meanwhile is seen or not; what nobody touches is.

    Args:
        open_snapshot: gives the newest state, again and again; none is open while it yields.

    Raises:
        RequestRefused: there is no such table.
    """
    with open_snapshot() as snapshot:
        end = recover(snapshot)
        rules = _rules(snapshot, component)
    tables = _tables(end.catalog, component, name)
    found = Shapes(total=sum(end.counts.get(table.number, 0) for table in tables))
    inferred = []
    for table in tables:
        seen = seen_documents()
        inferred.append(_inferred(table, seen, rules.get(table.name, {})))
        for count in _walk(open_snapshot, table, seen):
            found.done += count
            yield found
    numbers = {t.number: t.name for t in end.catalog.user_tables if t.component == component}
    found.schema = snippet(inferred, numbers.get)
    yield found


def _tables(catalog: Catalog, component: str, name: str | None) -> list[TableInfo]:
    of_component = [table for table in catalog.user_tables if table.component == component]
    found = [table for table in of_component if name in (None, table.name)]
    if not found and name is not None:
        known = ", ".join(sorted(table.name for table in of_component)) or "none"
        raise RequestRefused(404, "TableNotFound", f"There is no table {name!r}; there are {known}")
    return sorted(found, key=lambda table: table.name)


def _walk(open_snapshot: Callable[[], Snapshot], table: TableInfo, seen: Seen) -> Iterator[int]:
    """Take in the rows of a table; yields how many a slice had."""
    lower, upper = table.row_prefix, (table.number + 1).to_bytes(4, "big")
    while True:
        with open_snapshot() as snapshot:
            rows = list(islice(snapshot.range(Tree.ROWS, lower, upper), SLICE_ROWS))
        for _, image in rows:
            seen.add(document_fields(decode(image)))
        yield len(rows)
        if len(rows) < SLICE_ROWS:
            return
        lower = rows[-1][0] + b"\0"


def _rules(snapshot: Snapshot, component: str) -> dict[str, Json]:
    """By table: what the deployed schema says of its documents, as it is stored."""
    lower, upper = SCHEMAS.to_bytes(4, "big"), (SCHEMAS + 1).to_bytes(4, "big")
    stored = (decode(image) for _, image in snapshot.range(Tree.ROWS, lower, upper))
    found = next((one["tables"] for one in stored if one["component"] == component), "{}")
    rules: dict[str, Json] = json.loads(found)
    return rules


def _inferred(table: TableInfo, seen: Seen, rule: Json) -> Inferred:
    declared = [i for i in table.indexes.values() if i.row is not None and i.state in _DECLARED]
    return Inferred(
        name=table.name,
        seen=seen,
        indexes=tuple(_index(i) for i in declared if i.kind is IndexKind.RANGE),
        search_indexes=tuple(_search_index(i) for i in declared if i.kind is IndexKind.SEARCH),
        left_out=(
            *(f".reference({json.dumps(name)}, ...)" for name in rule.get("references", ())),
            *(f".check({json.dumps(name)}, ...)" for name in rule.get("checks", ())),
        ),
    )


def _index(index: IndexInfo) -> IndexSpec:
    return IndexSpec(
        name=index.name,
        fields=index.field_names[:-1],
        unique=index.unique,
        staged=index.state is not IndexState.ENABLED,
    )


def _search_index(index: IndexInfo) -> SearchIndexSpec:
    return SearchIndexSpec(
        name=index.name,
        search_field=index.options["search_field"],
        filter_fields=tuple(index.options["filter_fields"]),
        staged=index.state is not IndexState.ENABLED,
    )
