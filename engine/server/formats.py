"""The formats in which the HTTP API gives values, and the envelope around them."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from engine.errors import RequestRefused
from engine.functions.results import ActionResult, Failure, MutationResult, PastResult, QueryResult
from engine.model.json_values import Json, encode_ts, to_clean, to_export, to_wire
from engine.model.values import UNDEFINED, Value


class Format(enum.Enum):
    WIRE = "convex_encoded_json"
    """Lossless: what the official clients ask for."""
    CLEAN = "json"
    """For people and `curl`; loses types."""
    EXPORT = "export_json"

    @classmethod
    def of_client(cls, client: str | None) -> Format:
        """
        What a client gets that names no format.

        Args:
            client: what `Convex-Client` says, as in "npm-1.48.0".

        Raises:
            RequestRefused: that is not a name and a version.
        """
        if client is None:
            return cls.CLEAN
        name, dash, version = client.partition("-")
        if not dash:
            raise RequestRefused(
                400,
                "BadConvexClientHeader",
                "Convex-Client is a name and a version, as in npm-1.48.0",
            )
        numbers = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version)
        since = _NAMES_ITS_FORMAT.get(name)
        if since is None or numbers is None or tuple(map(int, numbers.groups())) >= since:
            return cls.CLEAN
        return cls.WIRE

    @classmethod
    def named(cls, name: Json, default: Format) -> Format:
        """
        The format that a request asks for; `None` asks for none.

        Raises:
            RequestRefused: there is none of that name.
        """
        if name is None:
            return default
        if isinstance(name, str) and name in FORMAT_NAMES:
            return FORMAT_NAMES[name]
        known = ", ".join(each.value for each in cls)
        raise RequestRefused(400, "BadFormat", f"format is one of {known}")

    def spell(self, value: Value) -> Raw:
        match self:
            case Format.WIRE:
                return Raw(msgspec.json.encode(to_wire(value)))
            case Format.CLEAN:
                return Raw(msgspec.json.encode(to_clean(value)))
            case Format.EXPORT:
                return Raw(msgspec.json.encode(to_export(value)))


FORMAT_NAMES: Final[Mapping[str, Format]] = {
    "json": Format.CLEAN,
    "convex_clean_json": Format.CLEAN,
    "convex_encoded_json": Format.WIRE,
    "convex_json": Format.WIRE,
    "export_json": Format.EXPORT,
}
_NAMES_ITS_FORMAT: Final = {"npm": (1, 4, 1), "python": (0, 5, 0)}
"""Since when official clients do; before, there was none but the lossless one."""


class Success(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    status: str
    value: Raw
    log_lines: tuple[str, ...] = ()
    ts: str | UnsetType = UNSET
    """Of a mutation's commit, for whoever asks with `wantsTs`."""


class Error(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    status: str
    error_message: str
    error_data: Raw | UnsetType = UNSET
    log_lines: tuple[str, ...] = ()


def success(
    result: QueryResult | PastResult | MutationResult | ActionResult,
    log_lines: tuple[str, ...],
    form: Format,
    *,
    wants_ts: bool = False,
) -> Success:
    """The envelope of a function that returned."""
    ts: str | UnsetType = UNSET
    if wants_ts and isinstance(result, MutationResult) and result.ts is not None:
        ts = encode_ts(result.ts)
    return Success(status="success", value=_value(result, form), log_lines=log_lines, ts=ts)


def failed(failure: Failure, message: str, log_lines: tuple[str, ...], form: Format) -> Error:
    """The envelope of a function that failed; the HTTP status is 200 all the same."""
    data: Any = UNSET if failure.data is UNDEFINED else form.spell(failure.data)
    return Error(status="error", error_message=message, error_data=data, log_lines=log_lines)


def _value(result: QueryResult | PastResult | MutationResult | ActionResult, form: Format) -> Raw:
    if not isinstance(result, QueryResult):
        return form.spell(result.value)
    spelled = result.encoded.get(form.value)
    if spelled is None:
        spelled = result.encoded[form.value] = bytes(form.spell(result.value))
    return Raw(spelled)
