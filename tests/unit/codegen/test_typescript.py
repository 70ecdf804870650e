"""What an application is in TypeScript, where the compiler is not needed to see it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from engine.app.decorators import query
from engine.app.schema import Schema, Table
from engine.app.validators import Validator, v
from engine.codegen import typescript
from engine.functions.loader import load
from engine.model.limits import VALIDATOR_NESTING_MAX, VALUE_NESTING_MAX
from engine.model.values import Int64
from tests.architecture.source_tree import ROOT


def returned(validator: Validator) -> str:
    """The type of what a function returns."""

    @query(returns=validator)
    async def asked(ctx: Any) -> Any: ...

    lines = typescript.files_of(load([asked]))["api.d.ts"].splitlines()
    (place,) = (number for number, line in enumerate(lines) if line.strip().startswith('"public"'))
    return lines[place + 2].strip()


@pytest.mark.parametrize(
    ("validator", "expected"),
    [
        (v.literal('a "quoted"\nline\u2028'), r'"a \"quoted\"\nline\u2028"'),
        (v.literal(-1), "-1"),
        (v.literal(2.5), "2.5"),
        (v.literal(float("inf")), "number"),
        (v.literal(False), "false"),
        (v.literal(Int64(-(2**63))), "-9223372036854775808n"),
        (v.union(), "never"),
        (v.union(v.number(), v.float64()), "number"),
        (v.object({}), "Record<string, never>"),
        (v.object({"a-b": v.optional(v.null())}), '{ "a-b"?: null }'),
        (v.record(v.union(v.string(), v.id("a")), v.any()), 'Record<string | Id<"a">, any>'),
    ],
    ids=str,
)
def test_a_validator_has_a_type(validator: Validator, expected: str) -> None:
    assert expected == returned(validator)


def test_what_nests_deeper_than_values_may_is_cut_off() -> None:
    validator: Validator = v.string()
    for _ in range(VALIDATOR_NESTING_MAX // 2):
        validator = v.object({"a": v.array(validator)})

    written = returned(validator)

    assert VALUE_NESTING_MAX // 2 == written.count("Array<")
    assert "any" in written
    assert "string" not in written


def test_a_document_is_named_wherever_it_stands_and_only_whole() -> None:
    schema = Schema(people=Table({"name": v.string(), "age": v.optional(v.number())}))
    document = {"_id": v.id("people"), "_creationTime": v.number(), "name": v.string()}
    whole, part = v.object({**document, "age": v.optional(v.number())}), v.object(document)

    @query(returns=v.union(v.array(whole), part))
    async def asked(ctx: Any) -> Any: ...

    written = typescript.files_of(load([asked, schema]))["api.d.ts"]

    assert 'Array<Doc<"people">> | { _id: Id<"people">; _creationTime: number; name: string }' in (
        written
    )


def test_the_text_is_the_same_whatever_the_order_of_sets() -> None:
    code = (
        "from engine.codegen import typescript; from engine.functions.loader import load;"
        "print(typescript.files_of(load('tests/typing/frontend/backend', name='other')))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(3)
    }

    assert 1 == len(texts)
