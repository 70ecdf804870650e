"""
Rules: what stored schemas know of validators, and whether one rule implies another.

A rule is JSON that leaves nothing out.  What clients are told of a validator, `to_json`, does:
bounds have no word there, and an integral number is a number.  So documents that met the rule
which is stored need not be looked at again if it implies the one to come.  Predicates are never
implied: what they accept hangs on modules, globals and closures that no digest of ours covers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from engine.app.bounds import Bounded
from engine.app.validators import (
    Array,
    Integral,
    Json,
    Object,
    Optional,
    OwnId,
    Record,
    Union,
    Validator,
    v,
)
from engine.model.json_values import from_wire
from engine.model.values import Int64

ANYTHING: Final[Json] = {"type": "any"}
UNSAYABLE: Final[Json] = {"type": "unsayable"}
"""Of a validator of which nothing is known here, or that runs code of the application."""
CONSTRAINED: Final = "constrained"
"""The type of the rule of a table that has references or checks."""
_PLAIN: Final = frozenset(
    type(one)
    for one in (
        v.any(),
        v.null(),
        v.boolean(),
        v.number(),
        v.int64(),
        v.string(),
        v.bytes(),
        v.id("t"),
        v.literal(""),
    )
) | {OwnId}
"""Whose `to_json` says everything."""
_KNOWN: Final = _PLAIN | {Bounded, Integral, Array, Record, Object, Union}


def rule_of(validator: Validator) -> Json:
    """The rule that a validator is."""
    if type(validator) not in _KNOWN:
        return UNSAYABLE
    match validator:
        case Bounded(inner=inner, bounds=bounds):
            if any(bound.is_code for bound in bounds):
                return UNSAYABLE
            return {
                "type": "bounded",
                "value": rule_of(inner),
                "bounds": [bound.text for bound in bounds],
            }
        case Integral():
            return {"type": "integral"}
        case Array(element=element):
            return {"type": "array", "value": rule_of(element)}
        case Record(keys=keys, values=values):
            return {"type": "record", "keys": rule_of(keys), "values": rule_of(values)}
        case Object(fields=fields):
            return {"type": "object", "value": {n: _field(one) for n, one in fields.items()}}
        case Union(members=members):
            return {"type": "union", "value": [rule_of(member) for member in members]}
    return validator.to_json()


def _field(validator: Validator) -> Json:
    inner = validator.inner if isinstance(validator, Optional) else validator
    return {"fieldType": rule_of(inner), "optional": validator.is_optional}


def implies(old: Json, new: Json) -> bool:
    """
    Whether every value that meets `old` meets `new`.

    If it says no, that may still be so.
    """
    if new == ANYTHING:
        return True
    if CONSTRAINED in (old.get("type"), new.get("type")):
        return _constrained_implies(_constrained(old), _constrained(new))
    if UNSAYABLE in (old, new):
        return False
    match old, new:
        case {"type": "union", "value": members}, _:
            return all(implies(member, new) for member in members)
        case {"type": "boolean"}, {"type": "union", "value": members} if _has_both(members):
            return True
        case _, {"type": "union", "value": members}:
            return any(implies(old, member) for member in members)
        case {"type": "bounded"}, {"type": "bounded"}:
            is_bounded = set(new["bounds"]) <= set(old["bounds"])
            return is_bounded and implies(old["value"], new["value"])
        case {"type": "bounded"}, _:
            return implies(old["value"], new)
    return _one_implies(old, new)


def _constrained(rule: Json) -> Json:
    if rule["type"] == CONSTRAINED:
        return rule
    return {"value": rule, "references": [], "checks": []}


def _constrained_implies(old: Json, new: Json) -> bool:
    """As `implies`, of rules of tables."""
    return (
        not new["checks"]
        and set(new["references"]) <= set(old["references"])
        and implies(old["value"], new["value"])
    )


def _one_implies(old: Json, new: Json) -> bool:
    """As `implies`, of rules that are neither bounded nor unions."""
    match old, new:
        case {"type": "literal", "value": one}, {"type": kind} if kind != "literal":
            return kind in _kinds_of(one)
        case {"type": "array"}, {"type": "array"}:
            return implies(old["value"], new["value"])
        case {"type": "record"}, {"type": "record"}:
            return implies(old["keys"], new["keys"]) and implies(old["values"], new["values"])
        case {"type": "object", "value": fields}, {"type": "record", "keys": {"type": "string"}}:
            return all(implies(one["fieldType"], new["values"]) for one in fields.values())
        case {"type": "object"}, {"type": "object"}:
            return _object_implies(old["value"], new["value"])
        case ({"type": "id"}, {"type": "string"}) | ({"type": "integral"}, {"type": "number"}):
            return True
    return _text(old) == _text(new)


def _object_implies(old: Mapping[str, Json], new: Mapping[str, Json]) -> bool:
    if any(name not in old and not one["optional"] for name, one in new.items()):
        return False
    return all(
        name in new
        and (new[name]["optional"] or not one["optional"])
        and implies(one["fieldType"], new[name]["fieldType"])
        for name, one in old.items()
    )


def _has_both(members: Sequence[Json]) -> bool:
    """Whether `true` and `false` are among them."""
    texts = {_text(member) for member in members}
    return texts >= {_text({"type": "literal", "value": one}) for one in (True, False)}


def _kinds_of(literal: Json) -> frozenset[str]:
    """Types of rules that a literal meets."""
    value = from_wire(literal)
    match value:
        case bool():
            return frozenset(("boolean",))
        case str():
            return frozenset(("string",))
        case Int64():
            return frozenset(("bigint",))
        case int():
            return frozenset(("number", "integral"))
    return frozenset(("number",))


def _text(rule: Json) -> str:
    """Equal for equal rules only: Python takes true for 1, and 0 for -0."""
    return json.dumps(rule, sort_keys=True)
