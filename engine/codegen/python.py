"""
`_generated/` beside an application's modules: api.py, api.pyi and data_model.py.

    api            `api` and `internal` with the functions that there are, each of which takes a
                   mapping of its arguments under the names that they have on the wire
    data_model     names of tables, indexes and fields; what is inserted and patched in a table

What a reference takes and gives are plain values, so objects are a TypedDict,
whatever class a handler has for them, and enums the values of their members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engine.app.registered import RegisteredFunction
from engine.app.registry import Application
from engine.app.schema import Table
from engine.app.validators import AnyValue, Object, Union, Validator, v
from engine.codegen.documents import document_of, field_paths, indexes_of
from engine.codegen.files import PYTHON
from engine.codegen.names import ATTRIBUTE, OWN, WORD, camel, is_name
from engine.codegen.python_types import Types, choice_of
from engine.codegen.tree import Node, tree_of

TYPING: Final = (
    "TYPE_CHECKING",
    "Any",
    "Literal",
    "Never",
    "NotRequired",
    "TypeAlias",
    "TypedDict",
    "overload",
)
HEADRACE: Final = (
    "ActionReference",
    "Id",
    "Int64",
    "MutationReference",
    "Page",
    "PaginationOptions",
    "QueryReference",
    "Undefined",
)
BESIDE: Final = frozenset(
    {"ActionReference", "Any", "Literal", "MutationReference", "QueryReference", "overload"}
)
"""
What stands beside the names of functions, imported as `_Any`: in a class, a function called `Any`
would be taken for it.
"""


def files_of(application: Application) -> dict[str, str]:
    """The text of each file, by its name."""
    return {
        "__init__.py": _file("What type checkers know of this application.", []),
        "api.py": _file(
            "The functions of this application, by their paths.",
            ["from headrace import api, internal", "", '__all__ = ["api", "internal"]'],
        ),
        "api.pyi": _api(application),
        "data_model.py": DataModel.of(application).text,
    }


def _file(about: str, lines: Sequence[str]) -> str:
    return "\n".join([*PYTHON.lines(about), *(["", *lines] if lines else []), ""])


def _imports(lines: Sequence[str]) -> Iterator[str]:
    """What `lines` need, but for the application's own classes."""
    words = set(WORD.findall("\n".join(ATTRIBUTE.sub("", line) for line in lines)))
    if "Mapping" in words:
        yield "from collections.abc import Mapping"
    for module, known in (("typing", TYPING), ("headrace", HEADRACE)):
        needed = [name for name in known if name in words]
        needed += [f"{name} as _{name}" for name in known if name in BESIDE and f"_{name}" in words]
        if needed:
            yield f"from {module} import {', '.join(needed)}"


# Functions.


def _api(application: Application) -> str:
    types = Types(application, taken=(f"_{name}" for name in BESIDE))
    functions = application.functions.values()
    for name, tree in (
        ("api", tree_of(each for each in functions if each.is_public)),
        ("internal", tree_of(each for each in functions if not each.is_public)),
    ):
        types.lines += ["", f"{name}: {_module(tree, f'_{camel(name)}', None, types)}"]
    return _file(
        "The functions of this application, with their arguments and their results.",
        [*_imports(types.lines), *types.classes.imports(), *types.lines],
    )


def _module(node: Node, name: str, function: str | None, types: Types) -> str:
    """
    Define the class of a module, after those of its functions and of the modules in it.

    Args:
        function: the type of the function that has its name too, if there is one.
    """
    members: dict[str, str] = {}
    for member in node.names:
        below = f"{name}{camel(member)}"
        if member in node.functions:
            members[member] = _reference(node.functions[member], below, types)
        if member in node.below:
            members[member] = _module(node.below[member], below, members.get(member), types)
    name = types.names.take(name)
    types.lines += [
        "",
        f"class {name}({function}):" if function else f"class {name}:",
        *(_attributes(members) or ["    pass"]),
    ]
    return name


def _attributes(members: Mapping[str, str]) -> list[str]:
    """Attributes, and items where the name is none that an attribute can have."""
    lines = [f"    {name}: {text}" for name, text in members.items() if is_name(name)]
    others = [(name, text) for name, text in members.items() if not is_name(name)]
    for name, text in others:
        lines += ["    @_overload"] if len(others) > 1 else []
        lines.append(f"    def __getitem__(self, name: _Literal[{name!r}], /) -> {text}: ...")
    return lines


def _reference(function: RegisteredFunction, name: str, types: Types) -> str:
    """The type of a reference, in names that no attribute beside it can have."""
    signature = function.signature
    returns = signature.returns.validator if signature.returns else v.any()
    given = _given(signature.validator, f"{name}Args", types)
    result = _named(types.of(returns, f"{name}Returns"), f"{name}Returns", types)
    return f"_{function.kind.value.capitalize()}Reference[{given}, {result}]"


def _given(validator: Validator, name: str, types: Types) -> str:
    """What is given with a reference: one mapping, or nothing where there are no arguments."""
    match validator:
        case Object(fields=fields) if not fields:
            return "[]"
        case AnyValue():
            return "..."
    return f"[{_named(types.of(validator, name), name, types)}]"


def _named(text: str, name: str, types: Types) -> str:
    """A type as it can stand beside the names of functions, such as `list`."""
    if text == "Any":
        return "_Any"
    return text if text == "None" or OWN.fullmatch(text) else types.alias(name, text)


# Tables.


@dataclass(frozen=True, slots=True, kw_only=True)
class DataModel:
    """data_model.py: its text, and what the names in it stand for."""

    text: str
    validators: Mapping[str, Validator]

    @staticmethod
    def of(application: Application) -> DataModel:
        model = _Model(application)
        imports = model.types.classes.imports()
        lines = [
            "from __future__ import annotations",
            "",
            *_imports([*model.types.lines, *(["TYPE_CHECKING"] if imports else [])]),
            *(["", "if TYPE_CHECKING:", *(f"    {line}" for line in imports)] if imports else []),
            "",
            *model.types.lines,
        ]
        about = "The tables of this application: names, indexes, fields, and what is written."
        return DataModel(text=_file(about, lines), validators=model.validators)


class _Model:
    """The definitions for all tables, one after another."""

    def __init__(self, application: Application) -> None:
        self.types = Types(application)
        self.validators: dict[str, Validator] = {}
        self._bases: set[str] = set()
        tables = application.schema.tables if application.schema else {}
        self._choice("TableName", sorted(tables)) if tables else self._any_name("TableName")
        for name in sorted(tables):
            self._add(name, tables[name])

    def _add(self, name: str, table: Table) -> None:
        base = self._base(name, table)
        paths = field_paths(document_of(name, table.validator))
        self.types.lines += ["", f"# {name}"]
        self._choice(f"{base}Index", indexes_of(table))
        for kind, indexes in (("Search", table.search_indexes), ("Vector", table.vector_indexes)):
            if names := [one.name for one in indexes if not one.staged]:
                self._choice(f"{base}{kind}Index", names)
        if paths.open == ("",):
            self._any_name(f"{base}Field")
        else:
            self._choice(f"{base}Field", paths.known)
        self._written(f"New{base}", table.validator, is_patch=False)
        self._written(f"Patch{base}", table.validator, is_patch=True)

    def _base(self, name: str, table: Table) -> str:
        """What names of the table begin with or end in: its class, or itself."""
        wished = table.documents[0].__name__ if len(table.documents) == 1 else camel(name)
        base = wished if wished not in self._bases else camel(name)
        self._bases.add(base)
        return base

    def _choice(self, name: str, values: Iterable[str]) -> None:
        validator = v.union(*map(v.literal, values))
        self.validators[self.types.alias(name, self.types.of(validator, name))] = validator

    def _any_name(self, name: str) -> None:
        self.validators[self.types.alias(name, "str")] = v.string()

    def _written(self, name: str, validator: Validator, *, is_patch: bool) -> None:
        """What is inserted in a table, or what may be patched in it."""
        match validator:
            case Object(fields=fields):
                name = self.types.typed_dict(name, fields, is_patch=is_patch)
            case Union(members=members):
                texts = [
                    self.types.typed_dict(f"{name}{number}", member.fields, is_patch=is_patch)
                    if isinstance(member, Object)
                    else ANY_DOCUMENT
                    for number, member in enumerate(members, 1)
                ]
                name = self.types.alias(name, choice_of(texts))
            case _:
                name = self.types.alias(name, ANY_DOCUMENT)
        self.validators[name] = _partial(validator) if is_patch else validator


ANY_DOCUMENT: Final = "Mapping[str, Any]"


def _partial(validator: Validator) -> Validator:
    match validator:
        case Object():
            return validator.partial()
        case Union(members=members):
            return Union(tuple(map(_partial, members)))
    return validator
